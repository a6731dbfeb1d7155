//! Profiles of other users under a supervisor that runs as root: what he may not, it does not do for him.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::unistd::geteuid;
use supervisor_proto::v1::{InstanceSpec, InstanceStatus, LadderPolicy, Phase, Profile, TrialPolicy};
use support::{Host, builtin, kill_9, program, until};

/// Users that nobody is.
const ITS_USER: u32 = 64_141;
const ANOTHER: u32 = 64_142;

/// What is somebody else's.
const SECRET: &str = "{gateway: {auth: {mode: 'token', token: 'that-of-somebody-else'}}}\n";

fn ctl(host: &Host, args: &[&str]) -> Output {
    Command::new(program("openclawctl")).arg("--data-dir").arg(host.data_dir()).args(args).output().unwrap()
}

/// A directory of a user, which others may list.
fn home(host: &Host, name: &str, owner: u32) -> PathBuf {
    let path = host.directory.path().join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
    path
}

/// All that is in it: name, owner, mode and content.
fn all_in(directory: &Path) -> Vec<(PathBuf, u32, u32, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            (path.clone(), about.uid(), about.mode(), fs::read(&path).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

async fn proven(host: &Host) -> InstanceStatus {
    host.wait("lab", "proven", |status| {
        let config = status.config.clone().unwrap_or_default();
        status.phase() == Phase::Ready && !config.good.is_empty() && config.good == config.content
    })
    .await
}

/// The profile of a user, whose gateway runs and whose configuration has proven good.
async fn lab(host: &Host) -> PathBuf {
    fs::set_permissions(host.directory.path(), Permissions::from_mode(0o711)).unwrap();
    let state = home(host, "its-user", ITS_USER).join(".openclaw");
    fs::create_dir(&state).unwrap();
    chown(&state, Some(ITS_USER), Some(ITS_USER)).unwrap();
    let soon = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
    let spec = InstanceSpec {
        user: ITS_USER.to_string(),
        profile: Some(Profile { state_dir: state.display().to_string(), ..Default::default() }),
        trial: Some(TrialPolicy { good_after: Some(soon), ..Default::default() }),
        ladder: Some(LadderPolicy { roll_back: Some(true), ..Default::default() }),
        ..builtin()
    };
    host.create("lab", spec).await;
    host.up("lab").await;
    proven(host).await;
    state
}

#[tokio::test]
async fn a_user_who_puts_a_link_in_the_place_of_its_profile_has_nobodys_files_read_or_written() {
    if !geteuid().is_root() {
        eprintln!("nothing is tried here: it takes root to have an instance of another user");
        return;
    }
    let host = Host::start().await;
    let state = lab(&host).await;
    let made = fs::metadata(state.join("openclaw.json")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (ITS_USER, 0o600), "what root made for it is not its own");
    let theirs = home(&host, "another", ANOTHER);
    fs::write(theirs.join("openclaw.json"), SECRET).unwrap();
    chown(theirs.join("openclaw.json"), Some(ANOTHER), Some(ANOTHER)).unwrap();
    fs::set_permissions(theirs.join("openclaw.json"), Permissions::from_mode(0o600)).unwrap();
    let roots = home(&host, "root", 0);
    let away = state.with_file_name("away");
    for victim in [theirs, roots] {
        let before = all_in(&victim);
        let pid = proven(&host).await.pid;
        fs::rename(&state, &away).unwrap();
        symlink(&victim, &state).unwrap();
        kill_9(pid);
        host.wait("lab", "refused", |status| status.reason.contains(", a link")).await;
        let rolled = ctl(&host, &["config", "rollback", "lab"]);
        assert!(!rolled.status.success(), "{rolled:?}");
        let upgraded = ctl(&host, &["upgrade", "lab", "--to", "2.0.0"]);
        assert!(!upgraded.status.success(), "{upgraded:?}");
        assert_eq!(all_in(&victim), before);
        fs::remove_file(&state).unwrap();
        fs::rename(&away, &state).unwrap();
        assert!(ctl(&host, &["restart", "lab"]).status.success());
    }
    proven(&host).await;
    let instance = host.data_dir().join("instances/lab");
    let told = |path: &Path| fs::read_to_string(path).unwrap_or_default().contains("somebody-else");
    let kept = fs::read_dir(instance.join("snapshots")).unwrap();
    assert!(kept.map(|kept| kept.unwrap().path()).all(|kept| !told(&kept)));
    // It is its own again: what is rolled back is written with its user's rights, and is his.
    fs::write(state.join("openclaw.json"), "{").unwrap();
    let pid = host.status("lab").await.pid;
    kill_9(pid);
    until("the edit is laid beside", async || {
        let mut names = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().contains(".rolled-back-")).then_some(())
    })
    .await;
    proven(&host).await;
    for entry in fs::read_dir(&state).unwrap().map(Result::unwrap) {
        // What is being written has another name by the time it is looked at.
        let Ok(about) = entry.metadata() else { continue };
        assert_eq!(about.uid(), ITS_USER, "{}", entry.path().display());
    }
}
