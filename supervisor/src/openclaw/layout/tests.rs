//! Directories: made, kept, and kept apart.

use std::os::unix::fs::symlink;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn profile(state: PathBuf) -> Profile {
    Profile { state_dir: Some(state), ..Profile::default() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn managed_directories_are_made_for_the_owner_alone_and_kept_so() {
    let data = tempfile::tempdir().unwrap();
    let directories = Directories::at(data.path(), &name("main"), None);
    directories.create(data.path()).unwrap();
    fs::set_permissions(&directories.state, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&directories.root, Permissions::from_mode(0o777)).unwrap();
    directories.create(data.path()).unwrap();
    let Directories { root, state, workspace, home, tmp, logs, .. } = &directories;
    for path in [root, state, workspace, home, tmp, logs] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    assert_eq!(directories.config, directories.state.join("openclaw.json"));
}

#[test]
fn a_managed_directory_that_is_a_link_or_a_file_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let directories = Directories::at(data.path(), &name("main"), None);
    directories.create(data.path()).unwrap();
    fs::remove_dir(&directories.tmp).unwrap();
    symlink("/tmp", &directories.tmp).unwrap();
    assert!(matches!(
        directories.create(data.path()),
        Err(LayoutError::NotADirectory { found: "a link", .. })
    ));
    fs::remove_file(&directories.tmp).unwrap();
    fs::write(&directories.tmp, "").unwrap();
    assert!(matches!(
        directories.create(data.path()),
        Err(LayoutError::NotADirectory { found: "a file", .. })
    ));
}

#[test]
fn a_profile_whose_agent_could_replace_the_directory_of_its_configuration_is_refused() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = home.path().join(".openclaw");
    fs::create_dir_all(state.join("conf")).unwrap();
    let with = |config: &str| {
        let profile = Profile { config: Some(home.path().join(config)), ..profile(state.clone()) };
        Directories::at(data.path(), &name("main"), Some(&profile)).create(data.path())
    };
    let error = with(".openclaw/conf/openclaw.json").unwrap_err();
    assert!(matches!(error, LayoutError::Replaceable { .. }), "{error}");
    assert!(error.mend().contains(".openclaw/openclaw.json`"), "{}", error.mend());
    let error = with(".openclaw/workspace/openclaw.json").map_err(|error| error.to_string());
    assert!(error.is_err(), "it writes in there, too");
    with(".openclaw/openclaw.json").unwrap();
    with("openclaw.json").unwrap();
}

#[test]
fn a_profile_whose_agent_could_replace_its_state_is_refused() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (state, workspace) = (home.path().join("ws/.openclaw"), Some(home.path().join("ws")));
    fs::create_dir_all(&state).unwrap();
    let config = Some(home.path().join("openclaw.json"));
    let profile = Profile { workspace, config, ..profile(state) };
    let error = Directories::at(data.path(), &name("main"), Some(&profile)).create(data.path()).unwrap_err();
    assert!(matches!(error, LayoutError::Replaceable { .. }), "{error}");
    assert!(error.mend().contains("profile.state_dir"), "{}", error.mend());
}

#[test]
fn what_an_agent_links_in_its_profile_is_in_nobodys_way() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of = |who: &str| {
        let state = home.path().join(who);
        fs::create_dir_all(&state).unwrap();
        Directories::at(data.path(), &name(who), Some(&profile(state)))
    };
    let (main, lab) = (of("main"), of("lab"));
    symlink(&main.state, lab.state.join("workspace")).unwrap();
    for (me, who, other, whose) in [(&main, "main", &lab, "lab"), (&lab, "lab", &main, "main")] {
        assert_eq!(check_apart(data.path(), (&name(who), me), [(&name(whose), other)]), Ok(()));
    }
}

#[test]
fn nothing_that_lies_in_the_place_of_a_profiles_workspace_is_given_away_or_opened() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (state, others) = (home.path().join(".openclaw"), home.path().join("others"));
    fs::create_dir(&state).unwrap();
    fs::write(&others, "").unwrap();
    fs::set_permissions(&others, Permissions::from_mode(0o644)).unwrap();
    symlink(&others, state.join("workspace")).unwrap();
    let directories = Directories::at(data.path(), &name("main"), Some(&profile(state)));
    let error = directories.create(data.path()).unwrap_err();
    assert!(matches!(error, LayoutError::Make { .. }), "{error}");
    assert_eq!(mode(&others), 0o644);
}

#[test]
fn a_profile_keeps_its_own_modes_and_must_exist() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = home.path().join(".openclaw");
    let directories = Directories::at(data.path(), &name("main"), Some(&profile(state.clone())));
    assert!(matches!(directories.create(data.path()), Err(LayoutError::NoProfile { .. })));
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    directories.create(data.path()).unwrap();
    assert_eq!(mode(&state), 0o755);
    assert_eq!(directories.workspace, state.join("workspace"));
    assert!(directories.home.starts_with(data.path()));
}

#[test]
fn profiles_that_meet_are_refused_by_name_and_path() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("main/sub")).unwrap();
    symlink(at("main"), at("link")).unwrap();
    let of = |who: &str, state: PathBuf| Directories::at(data.path(), &name(who), Some(&profile(state)));
    let main = of("main", at("main"));
    for (state, relation) in [
        (at("main"), Relation::Same),
        (at("link"), Relation::Same),
        (at("link/sub"), Relation::Inside),
        (at("main/not/yet/there"), Relation::Inside),
        (home.path().to_owned(), Relation::Around),
    ] {
        let other = of("rescue", state.clone());
        let clash =
            check_apart(data.path(), (&name("rescue"), &other), [(&name("main"), &main)]).unwrap_err();
        assert_eq!(
            (clash.relation, clash.other.as_ref()),
            (relation, Some(&name("main"))),
            "{}",
            state.display()
        );
        assert_eq!(clash.mine, state);
        assert_eq!(clash.theirs, main.state);
    }
    let apart = of("rescue", at("main-2"));
    assert!(check_apart(data.path(), (&name("rescue"), &apart), [(&name("main"), &main)]).is_ok());
}

#[test]
fn a_workspace_inside_another_instances_state_is_a_clash_and_inside_its_own_is_none() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let main = Directories::at(data.path(), &name("main"), Some(&profile(home.path().join("main"))));
    let workspace = Some(home.path().join("main/workspace-rescue"));
    let rescue = Profile { workspace, ..profile(home.path().join("rescue")) };
    let rescue = Directories::at(data.path(), &name("rescue"), Some(&rescue));
    let clashes = clashes(data.path(), [(&name("main"), &main), (&name("rescue"), &rescue)]);
    assert_eq!(clashes.len(), 1, "{clashes:?}");
    assert!(clashes[0].to_string().contains("lies inside"), "{}", clashes[0]);
    assert_eq!(clashes[0].name, name("rescue"));
}

#[test]
fn no_profile_lies_in_the_data_directory_or_around_it() {
    let data = tempfile::tempdir().unwrap();
    let within = data.path().join("instances/main/state");
    for state in [within, data.path().to_owned(), data.path().parent().unwrap().to_owned()] {
        let mine = Directories::at(data.path(), &name("x"), Some(&profile(state)));
        let clash = check_apart(data.path(), (&name("x"), &mine), []).unwrap_err();
        assert_eq!(clash.other, None);
        assert!(clash.to_string().ends_with("of the supervisor"), "{clash}");
    }
}
