//! Configurations: made, completed, refused.

use proptest::{collection::btree_map, option, prelude::*, sample::select};

use super::*;
use crate::spec::Profile;

struct World {
    data: tempfile::TempDir,
    name: Name,
    neighbours: Vec<Neighbour>,
    previous_base: Option<u16>,
    profile: Option<Profile>,
}

const BASE: u16 = 18_789;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    fn new() -> Self {
        let world = Self {
            data: tempfile::tempdir().unwrap(),
            name: name("main"),
            neighbours: Vec::new(),
            previous_base: None,
            profile: None,
        };
        world.directories().create(world.data.path()).unwrap();
        world
    }

    /// With a configuration in place.
    fn with(text: &str) -> Self {
        let world = Self::new();
        fs::write(world.directories().config, text).unwrap();
        world
    }

    fn directories(&self) -> Directories {
        Directories::at(self.data.path(), &self.name, self.profile.as_ref())
    }

    fn pin_at(&self, base: u16) -> Result<Config, ConfigError> {
        pin(&Wanted {
            name: &self.name,
            directories: &self.directories(),
            block: Block::at(base).unwrap(),
            previous_base: self.previous_base,
            data_dir: self.data.path(),
            neighbours: &self.neighbours,
        })
    }

    fn pin(&self) -> Result<Config, ConfigError> {
        self.pin_at(BASE)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.directories().config).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        jsonc_parser::parse_to_serde_value(&self.text(), &document::json5()).unwrap()
    }

    fn refusal(&self) -> Problem {
        let error = self.pin().unwrap_err();
        error.problem().unwrap_or_else(|| panic!("{error}")).clone()
    }
}

#[test]
fn a_missing_configuration_is_made_with_a_secret_of_its_own() {
    let world = World::new();
    let config = world.pin().unwrap();
    let token = config.token.clone().unwrap();
    let json = world.json();
    assert_eq!(json["gateway"]["mode"], "local");
    assert_eq!(json["gateway"]["port"], BASE);
    assert_eq!(json["gateway"]["bind"], "loopback");
    assert_eq!(json["gateway"]["auth"]["token"], token.expose());
    assert_eq!(json["agents"]["defaults"]["workspace"], world.directories().workspace.to_str().unwrap());
    assert_eq!(json.as_object().unwrap().len(), 3, "the schema is strict: nothing else");
    assert_eq!((token.expose().len(), format!("{token:?}").as_str()), (64, "Token(…)"));
    assert_eq!(fs::metadata(&config.path).unwrap().mode() & 0o777, 0o600);
    assert_ne!(World::new().pin().unwrap().token, Some(token));
}

#[test]
fn a_complete_configuration_is_not_touched() {
    let world = World::new();
    let first = world.pin().unwrap();
    let inode = fs::metadata(&first.path).unwrap().ino();
    assert_eq!(world.pin().unwrap(), first);
    assert_eq!(fs::metadata(&first.path).unwrap().ino(), inode);
    assert_eq!(current_revision(&world.directories()), Some(first.revision));
}

#[test]
fn an_empty_file_is_as_good_as_none() {
    for text in ["", "\n", "\0\0\0\0"] {
        let world = World::with(text);
        world.pin().unwrap();
        assert_eq!(world.json()["gateway"]["port"], BASE);
    }
}

#[test]
fn what_is_missing_is_added_and_everything_else_stays_as_it_was() {
    let text = "// mine\n{\n  // the bot\n  channels: { telegram: { enabled: true, }, },\n  gateway: {\n    auth: { token: 'abc' }, // secret\n  },\n  logging: { level: 'debug' }\n}\n";
    let world = World::with(text);
    fs::set_permissions(world.directories().config, Permissions::from_mode(0o644)).unwrap();
    let config = world.pin().unwrap();
    assert_eq!(config.token.unwrap().expose(), "abc");
    let after = world.text();
    for kept in [
        "// mine",
        "// the bot",
        "{ telegram: { enabled: true, }, }",
        "token: 'abc'",
        "// secret",
        "level: 'debug'",
    ] {
        assert!(after.contains(kept), "{kept}: {after}");
    }
    let json = world.json();
    assert_eq!(json["gateway"]["port"], BASE);
    assert_eq!(
        json["logging"]["file"],
        world.directories().logs.join("openclaw/openclaw.log").to_str().unwrap()
    );
    assert_eq!(json["gateway"]["auth"].as_object().unwrap().len(), 1);
    assert_eq!(fs::metadata(&config.path).unwrap().mode() & 0o777, 0o600, "it holds a secret");
}

#[test]
fn a_link_in_an_instances_own_directories_is_neither_read_nor_written_through() {
    let world = World::new();
    let elsewhere = world.data.path().join("elsewhere.json");
    fs::write(&elsewhere, "{gateway: {auth: {token: 'theirs'}}}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.directories().config).unwrap();
    let error = world.pin().unwrap_err();
    assert!(matches!(error, ConfigError::NotAFile { .. }), "{error}");
    assert!(
        declared_token(world.directories().own_config()).is_err(),
        "it would be sent to whoever has planted the link"
    );
    assert_eq!(current_revision(&world.directories()), None);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "{gateway: {auth: {token: 'theirs'}}}");
}

#[test]
fn the_log_that_an_earlier_supervisor_had_among_the_output_is_moved() {
    let world = World::new();
    let before = world.directories().logs.join("openclaw.log");
    fs::write(world.directories().config, format!("{{logging: {{file: '{}'}}}}", before.display())).unwrap();
    world.pin().unwrap();
    let now = world.directories().logs.join("openclaw/openclaw.log");
    assert_eq!(world.json()["logging"]["file"], now.to_str().unwrap());
}

#[test]
fn other_ways_to_authenticate_are_left_alone() {
    for (auth, token) in [
        ("{mode: 'password', password: 'x'}", None),
        ("{password: 'x'}", None),
        ("{mode: 'none'}", None),
        ("{mode: 'trusted-proxy'}", None),
        ("{token: '${TOKEN}'}", None),
        ("{token: {source: 'env', id: 'TOKEN'}}", None),
        ("{$include: './auth.json'}", None),
        ("{mode: 'token', token: 'abc'}", Some("abc")),
    ] {
        let world = World::with(&format!("{{gateway: {{auth: {auth}}}}}"));
        let config = world.pin().unwrap();
        assert_eq!(config.token.as_ref().map(Token::expose), token, "{auth}");
        assert!(world.text().contains(auth), "{auth}: {}", world.text());
    }
}

#[test]
fn what_an_include_may_hold_is_not_said_again() {
    let world = World::with("{$include: './base.json'}");
    world.pin().unwrap();
    assert_eq!(world.json()["gateway"], serde_json::json!({ "port": BASE }));
    assert!(world.json().get("agents").is_none());
}

#[test]
fn a_port_outside_the_block_is_refused_with_line_and_both_numbers() {
    let world = World::with("{\n  gateway: {\n    port: 19001,\n  },\n}\n");
    let problem = world.refusal();
    assert_eq!(problem.place.to_string(), "3:11");
    assert_eq!(problem.source_line, "    port: 19001,");
    assert_eq!(problem.path, "gateway.port");
    assert_eq!(problem.message, "the port is 19001, but the ports of `main` are 18789-18808");
    assert_eq!(problem.mend, "write 18789 here, or give `main` this port: `port: 19001` in its spec");
    assert!(world.text().contains("19001"), "the file is left as it was");
}

#[test]
fn a_block_that_moved_takes_its_own_ports_along() {
    let mut world = World::with(
        "{gateway: {port: 18809}, canvasHost: {port: 18813}, browser: {profiles: {a: {cdpPort: 18821}, b: {}}}}",
    );
    world.previous_base = Some(18_809);
    world.pin().unwrap();
    let json = world.json();
    assert_eq!(json["gateway"]["port"], 18_789);
    assert_eq!(json["canvasHost"]["port"], 18_793);
    assert_eq!(json["browser"]["profiles"]["a"]["cdpPort"], 18_801);
    assert_eq!(json["browser"]["profiles"]["b"]["cdpPort"], 18_802);
}

#[test]
fn browser_profiles_get_ports_inside_the_block() {
    let world = World::with(
        "{browser: {profiles: {work: {color: '#FF4500'}, play: {cdpPort: 18801}, remote: {cdpUrl: 'http://10.0.0.42:9222'},\n\
         user: {driver: 'existing-session', cdpPort: 9222}, chrome: {driver: 'extension'}, relay: {driver: 'extension', cdpPort: 18792}}}}",
    );
    world.pin().unwrap();
    let profiles = &world.json()["browser"]["profiles"];
    assert_eq!(
        profiles["work"]["cdpPort"], 18_802,
        "the first is OpenClaw's own browser's, the second is taken"
    );
    for name in ["remote", "chrome"] {
        assert!(profiles[name].get("cdpPort").is_none(), "{name}");
    }
    let declared = World::with("{browser: {profiles: {work: {}, openclaw: {}}}}");
    declared.pin().unwrap();
    let profiles = &declared.json()["browser"]["profiles"];
    assert_eq!(
        (profiles["work"]["cdpPort"].as_u64(), profiles["openclaw"]["cdpPort"].as_u64()),
        (Some(18_800), Some(18_801))
    );
}

#[test]
fn a_browser_port_that_leaves_the_block_is_refused_with_its_line() {
    for port in ["18789", "18799", "18809", "0x4965"] {
        let world = World::with(&format!("{{browser: {{profiles: {{\n  work: {{ cdpPort: {port} }}}}}}}}"));
        let problem = world.refusal();
        assert_eq!((problem.place.line, problem.place.column), (2, 20), "{port}");
        assert_eq!(problem.path, "browser.profiles.work.cdpPort");
        assert!(problem.message.contains("have 18800 to 18808"), "{problem}");
    }
    let canvas = World::with("{canvasHost: {port: 18793}}");
    canvas.pin().unwrap();
    assert_eq!(World::with("{canvasHost: {port: 18813}}").refusal().path, "canvasHost.port");
}

#[test]
fn one_browser_port_is_not_given_twice() {
    let problem = World::with("{browser: {profiles: {a: {cdpPort: 18801},\nb: {cdpPort: 18801}}}}").refusal();
    assert_eq!(problem.place.line, 2);
    assert_eq!(problem.message, "port 18801 is that of the profile `a` (line 1) too");
    let ten: String = (0..10).map(|n| format!("p{n}: {{}}, ")).collect();
    assert!(
        World::with(&format!("{{browser: {{profiles: {{{ten}}}}}}}"))
            .refusal()
            .message
            .contains("no port from")
    );
}

#[test]
fn a_browser_of_another_instance_is_refused() {
    let neighbour =
        Neighbour::of(&name("rescue"), Block::at(19_789).unwrap(), &crate::spec::InstanceSpec::default());
    let mut world = World::with("{browser: {\n cdpUrl: 'http://user@127.0.0.1:19800/json'}}");
    world.neighbours = vec![neighbour.clone()];
    let problem = world.refusal();
    assert_eq!((problem.place.line, problem.path.as_str()), (2, "browser.cdpUrl"));
    assert_eq!(problem.message, "port 19800 belongs to `rescue` (19789-19808)");

    let theirs = neighbour.directories(world.data.path());
    theirs.create(world.data.path()).unwrap();
    fs::write(&theirs.config, "{browser: {profiles: {\nx: {cdpUrl: 'ws://10.0.0.42:9222/a'}}}}").unwrap();
    for (url, shared) in
        [("http://10.0.0.42:9222", true), ("http://10.0.0.42:9223", false), ("http://[::1]:18792", false)]
    {
        fs::write(
            world.directories().config,
            format!("{{browser: {{profiles: {{y: {{cdpUrl: '{url}'}}}}}}}}"),
        )
        .unwrap();
        match world.pin() {
            Ok(_) => assert!(!shared, "{url}"),
            Err(error) => assert!(shared && error.to_string().contains("openclaw.json:2)"), "{url}: {error}"),
        }
    }
}

#[test]
fn files_of_another_instance_are_refused() {
    let mut world = World::new();
    let neighbour =
        Neighbour::of(&name("rescue"), Block::at(19_789).unwrap(), &crate::spec::InstanceSpec::default());
    let theirs = neighbour.directories(world.data.path()).workspace.join("sub");
    world.neighbours = vec![neighbour];
    let text = format!("{{agents: {{defaults: {{workspace: '{}'}}}}}}", theirs.display());
    fs::write(world.directories().config, text).unwrap();
    let problem = world.refusal();
    assert_eq!(problem.path, "agents.defaults.workspace");
    assert!(problem.message.contains("of `rescue`"), "{problem}");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (text, place, message) in [
        ("{\n  gateway: {,}\n}", "2:13", "this is not JSON5"),
        ("{\n  gateway: {port: 18789}\n  agents: {}\n}", "2:25", "this is not JSON5"),
        ("[]", "1:1", "a configuration is an object"),
        ("{gateway: 5}", "1:11", "an object is wanted here"),
        ("{gateway: {port: '18789'}}", "1:18", "a port is wanted here"),
        ("{gateway: {port: 70000}}", "1:18", "a port is wanted here"),
        ("{gateway: {},\ngateway: {}}", "2:1", "the first is on line 1"),
    ] {
        let problem = World::with(text).refusal();
        assert_eq!(problem.place.to_string(), place, "{text}: {problem}");
        assert!(problem.message.contains(message), "{text}: {problem}");
    }
    let world = World::new();
    fs::write(world.directories().config, b"{\n  \"a\": \"\xff\"}").unwrap();
    assert_eq!(world.refusal().place.to_string(), "2:9");
    let deep = World::with(&"[".repeat(100_000));
    assert!(deep.refusal().message.contains("this is not JSON5"));
    assert!(matches!(World::with(&" ".repeat(5 << 20)).pin(), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_profile_keeps_its_mode_and_its_log_file_and_its_port_can_be_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.profile = Some(Profile { state_dir: Some(home.path().join(".openclaw")), ..Profile::default() });
    fs::create_dir(home.path().join(".openclaw")).unwrap();
    let config = world.directories().config;
    assert_eq!(declared_port(Own::nobodys(&config)).unwrap(), None);
    fs::write(&config, "{gateway: {port: 0x4965, auth: {token: 'abc'}}}").unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(declared_port(Own::nobodys(&config)).unwrap(), Some(18_789));
    world.pin().unwrap();
    assert_eq!(fs::metadata(&config).unwrap().mode() & 0o777, 0o640);
    assert!(world.json().get("logging").is_none() && world.json().get("agents").is_none());
    assert_eq!(world.pin_at(19_789).unwrap_err().problem().unwrap().path, "gateway.port");
}

#[test]
fn announcements_are_only_made_where_they_are_asked_for() {
    for (text, discovery) in [
        ("{}", Discovery::Quiet),
        ("{discovery: {mdns: {mode: 'off'}}}", Discovery::Quiet),
        ("{discovery: {mdns: {mode: 'minimal'}}}", Discovery::AskedFor),
    ] {
        assert_eq!(World::with(text).pin().unwrap().discovery, discovery, "{text}");
    }
}

/// Configurations with what matters here present, missing, odd or wrong.
fn configurations() -> impl Strategy<Value = serde_json::Value> {
    let port = || prop_oneof![18_789u16..18_812, 9_222u16..9_224].prop_map(serde_json::Value::from);
    let word = |words: &'static [&'static str]| select(words).prop_map(serde_json::Value::from);
    let field = |name: &'static str, value: BoxedStrategy<serde_json::Value>| {
        option::weighted(0.4, value).prop_map(move |value| (name, value))
    };
    let object = |fields: Vec<BoxedStrategy<(&'static str, Option<serde_json::Value>)>>| {
        fields.prop_map(|fields| {
            let set = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            serde_json::Value::Object(set.collect())
        })
    };
    let profile = object(vec![
        field("driver", word(&["openclaw", "extension", "existing-session"]).boxed()).boxed(),
        field("cdpPort", port().boxed()).boxed(),
        field("cdpUrl", word(&["http://127.0.0.1:18800", "ws://10.0.0.1:9222", "nonsense"]).boxed()).boxed(),
    ]);
    let profiles =
        btree_map("[a-c]|openclaw", profile, 0..4).prop_map(|profiles| serde_json::json!(profiles));
    let auth = object(vec![
        field("mode", word(&["token", "password", "none"]).boxed()).boxed(),
        field("token", word(&["", "abc", "${T}"]).boxed()).boxed(),
        field("password", word(&["x"]).boxed()).boxed(),
    ]);
    let gateway = object(vec![
        field("port", select(vec![18_789, 18_789, 18_809, 19_001]).prop_map(serde_json::Value::from).boxed())
            .boxed(),
        field("bind", word(&["lan"]).boxed()).boxed(),
        field("auth", auth.boxed()).boxed(),
        field("$include", word(&["./x.json"]).boxed()).boxed(),
    ]);
    let browser = object(vec![field("profiles", profiles.boxed()).boxed()]);
    object(vec![
        field("gateway", gateway.boxed()).boxed(),
        field("browser", browser.boxed()).boxed(),
        field("canvasHost", object(vec![field("port", port().boxed()).boxed()]).boxed()).boxed(),
        field("odd", word(&["x"]).boxed()).boxed(),
    ])
}

proptest! {
    #[test]
    fn what_is_pinned_stays_pinned_inside_the_block(found in configurations()) {
        let mut world = World::with(&found.to_string());
        world.previous_base = Some(18_809);
        let Ok(first) = world.pin() else { return Ok(()) };
        let text = world.text();
        world.previous_base = None;
        prop_assert_eq!(world.pin().unwrap(), first, "a second look finds nothing to do");
        prop_assert_eq!(world.text(), text);
        let json = world.json();
        prop_assert_eq!(&json["gateway"]["port"], BASE);
        prop_assert_eq!(json.get("odd"), found.get("odd"));
        let mut ports = Vec::new();
        for profile in json["browser"]["profiles"].as_object().into_iter().flat_map(|profiles| profiles.values()) {
            match (profile["driver"].as_str(), profile["cdpPort"].as_u64()) {
                (Some("existing-session"), _) | (Some("extension"), None) => {}
                (_, Some(port)) => ports.push(port),
                (_, None) => prop_assert!(profile.get("cdpUrl").is_some(), "{}", profile),
            }
        }
        prop_assert!(ports.iter().all(|port| (18_792..=18_808).contains(port)), "{:?}", ports);
        let all = ports.len();
        ports.sort_unstable();
        ports.dedup();
        prop_assert_eq!(ports.len(), all, "{}", json);
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[a-z0-9{}\\[\\]:,'\"$/ \n]{0,80}") {
        if let Err(error) = World::with(&text).pin() {
            prop_assert!(!error.mend().is_empty() && error.problem().is_some(), "{}", error);
        }
    }
}
