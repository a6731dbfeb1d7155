use super::*;

fn problem(text: &str) -> Problem {
    let problems = Settings::parse(text, "settings.yaml").unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn the_shipped_file_has_every_setting_with_its_default() {
    let shipped = include_str!("../../../deploy/settings.yaml");
    assert_eq!(Settings::parse(shipped, "settings.yaml").unwrap(), Settings::default());
    let File {
        pool,
        max_instances,
        events,
        audit,
        log_level,
        log_format,
        listen,
        web,
        traces,
        alerts,
        access,
    } = serde_yaml::from_str(shipped).unwrap();
    assert!(pool.is_some() && max_instances.is_some() && log_level.is_some() && log_format.is_some());
    assert!([events, audit].iter().all(|kept| kept.keep.is_some() && kept.keep_for.is_some()));
    assert!(
        listen.is_empty()
            && web.is_none()
            && traces.is_none()
            && access.is_empty()
            && alerts.sinks.is_empty()
    );
    assert!([alerts.after, alerts.group_for, alerts.boot_grace].iter().all(Option::is_some));
    // What stands behind `#  ` is taken, too.
    let examples = shipped.replace(": []\n", ":\n").replace("\n#  ", "\n  ");
    let settings = Settings::parse(&examples, "settings.yaml").unwrap();
    assert_eq!((settings.listen.len(), settings.access.len(), settings.alerts.sinks.len()), (2, 5, 5));
}

#[test]
fn without_a_file_the_defaults_are_in_force() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(load(data.path()).unwrap(), Settings::default());
    fs::write(data.path().join(FILE), "# nothing yet\n").unwrap();
    assert_eq!(load(data.path()).unwrap(), Settings::default());
    fs::write(data.path().join(FILE), [0xff]).unwrap();
    assert!(matches!(load(data.path()), Err(SettingsError::Read { .. })));
    fs::write(data.path().join(FILE), "pool: 5\n").unwrap();
    let refused = load(data.path()).unwrap_err().to_string();
    assert!(refused.contains("settings.yaml:1:7"), "{refused}");
}

#[test]
fn the_settings_in_force_are_a_file_that_sets_them() {
    let text = "pool: {first: 20000, last: 21000}\nmax_instances: 10\nevents: {keep: 5000, keep_for: 30d}\nlog_level: debug\n";
    let settings = Settings::parse(text, "").unwrap();
    assert_eq!(settings.pool, Pool { first: 20_000, last: 21_000 });
    assert_eq!(Settings::parse(&settings.to_yaml().unwrap(), ""), Ok(settings.clone()));
    assert_eq!(Settings::default().changes(&settings)[1], "`max_instances` was 2000 and is 10");
    assert_eq!(settings.changes(&settings), [""; 0]);
}

#[test]
fn who_may_call_and_where_is_read_and_written_again() {
    let text = "listen:\n- {unix: /run/a.sock, mode: '0666'}\n- {unix: /run/b.sock, group: ops}\n\
                - {unix: /run/c.sock, group: 100}\n- {unix: /run/d.sock}\n- {tcp: '[::1]:7443'}\n\
                access:\n- {uid: 7, role: viewer}\n- {user: alice, role: operator}\n\
                - {gid: 8, role: viewer}\n- {group: ops, role: admin}\n\
                - {certificate: ci, role: operator}\n\
                - {token_file: /srv/a.token, role: rescue, instance: rescue}\n\
                audit: {keep: 2000, keep_for: 7d}\n";
    let settings = Settings::parse(text, "").unwrap();
    assert_eq!(Settings::parse(&settings.to_yaml().unwrap(), ""), Ok(settings.clone()));
    let told: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    let sockets = ["/run/a.sock (0666)", "/run/b.sock (0660, group ops)", "/run/c.sock (0660, group 100)"];
    assert_eq!(told[..3], sockets);
    assert_eq!(told[3..], ["/run/d.sock (0600)", "[::1]:7443"]);
    let told: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    assert_eq!(told[0], "uid 7: viewer");
    assert_eq!(told[5], "token_file /srv/a.token: rescue of `rescue`");
    assert_eq!(
        Settings::default().changes(&Settings { access: settings.access, ..Settings::default() }).len(),
        1
    );
}

#[test]
fn a_role_that_cannot_be_given_and_a_place_that_cannot_be_served_are_refused_where_they_stand() {
    for (text, place, field) in [
        ("access:\n- {role: viewer}\n", "2:3", "access[0]"),
        ("access:\n- {uid: 7}\n", "2:3", "access[0]"),
        ("access:\n- {uid: 7, role: root}\n", "2:18", "access[0].role"),
        ("access:\n- {uid: -1, role: viewer}\n", "2:9", "access[0].uid"),
        ("access:\n- {uid: 7, user: a, role: viewer}\n", "2:18", "access[0].user"),
        ("access:\n- {uid: 7, role: rescue}\n", "2:3", "access[0]"),
        ("access:\n- {uid: 7, role: admin, instance: main}\n", "2:35", "access[0].instance"),
        ("access:\n- {uid: 7, role: rescue, instance: Main}\n", "2:36", "access[0].instance"),
        ("access:\n- {user: '', role: viewer}\n", "2:10", "access[0].user"),
        ("access:\n- {token_file: a.token, role: viewer}\n", "2:16", "access[0].token_file"),
        ("access:\n- {token: abc, role: viewer}\n", "2:4", "access[0].token"),
        ("listen:\n- {unix: a.sock}\n", "2:10", "listen[0].unix"),
        ("listen:\n- {unix: /a.sock, mode: 0660}\n", "2:25", "listen[0].mode"),
        ("listen:\n- {unix: /a.sock, mode: '0777'}\n", "2:25", "listen[0].mode"),
        ("listen:\n- {tcp: 'localhost:1'}\n", "2:9", "listen[0].tcp"),
        ("listen:\n- {tcp: '[::]:1', group: ops}\n", "2:26", "listen[0].group"),
        ("listen:\n- {tcp: '[::]:1', unix: /a}\n", "2:9", "listen[0].tcp"),
        ("listen:\n- {unix: /a}\n- {unix: /a, mode: '0666'}\n", "3:3", "listen[1]"),
        ("listen:\n- {}\n", "2:3", "listen[0]"),
        ("audit: {keep: 5}\n", "1:15", "audit.keep"),
    ] {
        let problem = problem(text);
        assert_eq!((problem.place.to_string().as_str(), problem.path.as_str()), (place, field), "{text}");
    }
}

#[test]
fn token_files_of_one_name_are_refused_as_they_would_be_one_caller() {
    let text = "access:\n- {token_file: /srv/a/token, role: admin}\n- {uid: 7, role: viewer}\n\
                - {token_file: /srv/b/token, role: operator}\n";
    let found = problem(text);
    assert_eq!(
        (found.file.as_str(), found.place.to_string().as_str(), found.path.as_str()),
        ("settings.yaml", "4:16", "access[2].token_file")
    );
    assert_eq!(
        found.message,
        "the file is called as `/srv/a/token` of `access[0]` is, and callers are told apart by that name"
    );
    assert_eq!(found.mend, "`mv /srv/b/token /srv/b/b-token`, and write the new path here");
    // Each that is like the first is told of.
    let third = format!("{text}- {{token_file: /token, role: viewer}}\n");
    let problems = Settings::parse(&third, "settings.yaml").unwrap_err();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[1].mend, "`mv /token /other-token`, and write the new path here");
    // One file is one caller, whatever roles it is given.
    for other in ["/srv/a/token", "/srv//a/token", "/srv/a/Token", "/srv/b/b.token"] {
        let text = text.replace("/srv/b/token", other);
        assert_eq!(Settings::parse(&text, "").unwrap().access.len(), 3, "{other}");
    }
}

#[test]
fn a_token_file_that_every_instance_could_read_is_refused() {
    let found = problem("access:\n- {uid: 7, role: viewer}\n- {token_file: /etc/claw/token, role: admin}\n");
    assert_eq!(found.path, "access[1].token_file");
    assert_eq!(found.message, "every instance may read in `/etc`, and so the token");
    assert!(found.mend.starts_with("move the file into the supervisor's data directory"), "{}", found.mend);
}

#[test]
fn mistakes_are_refused_with_their_place() {
    let unknown = problem("events:\n  kepp: 5\n");
    assert_eq!((unknown.place.to_string().as_str(), unknown.mend.as_str()), ("2:3", "did you mean `keep`?"));
    for (text, place) in [
        ("max_instances: 0\n", "1:16"),
        ("max_instances: many\n", "1:16"),
        ("pool: {first: 100, last: 200}\n", "1:1"),
        ("pool: {first: 20000, last: 20010}\n", "1:1"),
        ("log_level: info\nevents: {keep_for: 5s}\n", "2:20"),
        ("log_level: loud\n", "1:12"),
        ("traces: collector:4317\n", "1:9"),
    ] {
        assert_eq!(problem(text).place.to_string(), place, "{text}");
    }
}

#[test]
fn a_pool_in_the_ephemeral_range_is_warned_of() {
    let settings = Settings::parse("pool: {first: 30000, last: 40000}\n", "").unwrap();
    assert_eq!(settings.warnings(Some((32_768, 60_999))).len(), 1);
    assert!(settings.warnings(Some((32_768, 60_999)))[0].contains("end the pool at 32767"));
    assert_eq!(Settings::default().warnings(Some((32_768, 60_999))), [""; 0]);
    assert_eq!(settings.warnings(None), [""; 0]);
    let web = Settings { web: Some(([127, 0, 0, 1], 40_000).into()), ..Settings::default() };
    let told = web.warnings(Some((32_768, 60_999)));
    assert!(told[0].starts_with("the dashboard's port 40000 lies in 32768 to 60999"), "{told:?}");
    assert!(ephemeral_ports().is_some_and(|(from, to)| from < to));
}
