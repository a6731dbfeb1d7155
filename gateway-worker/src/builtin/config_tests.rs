use super::*;

use std::collections::HashMap;
use std::fs;

use tempfile::TempDir;

/// A directory with one configuration, and the environment that points to it.
struct Home {
    directory: TempDir,
    variables: HashMap<String, OsString>,
}

impl Home {
    fn with(config: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("openclaw.json"), config).unwrap();
        let state = ("OPENCLAW_STATE_DIR".to_owned(), directory.path().as_os_str().to_owned());
        Self { directory, variables: HashMap::from([state]) }
    }

    fn and(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn load(&self, flag: Option<BasePort>) -> Result<Config, ConfigError> {
        let variables = self.variables.clone();
        Config::load(&Environment(Box::new(move |name| variables.get(name).cloned())), flag)
    }

    /// The fault's sentence, with the file's name for its path.
    fn fault(&self) -> String {
        let fault = self.load(None).unwrap_err().to_string();
        fault.replace(self.directory.path().join("openclaw.json").to_str().unwrap(), "FILE")
    }
}

fn fault(config: impl AsRef<[u8]>) -> String {
    Home::with(config).fault()
}

fn port(number: u16) -> Option<BasePort> {
    NonZeroU16::new(number).map(BasePort)
}

const GOOD: &str =
    r#"{ gateway: { mode: "local", port: 19789, bind: "loopback", auth: { mode: "token", token: "t" } } }"#;

#[test]
fn openclaws_smallest_configuration_is_enough() {
    let home = Home::with(GOOD);
    let config = home.load(None).unwrap();
    assert_eq!(Some(config.port), port(19789));
    assert_eq!(config.bind, Bind::Loopback);
    assert_eq!(*config.auth, Auth::Token(Secret("t".to_owned())));
    assert_eq!(config.state_dir, home.directory.path());
    assert_eq!(config.path, home.directory.path().join("openclaw.json"));
}

#[test]
fn all_of_json5_is_understood_and_the_last_of_equal_keys_counts() {
    let text = "\u{feff}// shared with the real one\n{\n  'agents': { list: [1, 2,], },\n  channels: {}, $schema: 'x',\n  \
        gateway: { port: 0x4D4D, port: +19790., auth: { 'token': 'a\\x62\\\nc', }, },\n}";
    let config = Home::with(text).load(None).unwrap();
    assert_eq!(Some(config.port), port(19790));
    assert_eq!(*config.auth, Auth::Token(Secret("abc".to_owned())));
}

#[test]
fn the_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let home = Home::with(GOOD).and("OPENCLAW_GATEWAY_PORT", " 19800 ");
    assert_eq!(Some(home.load(port(19900)).unwrap().port), port(19900));
    assert_eq!(Some(home.load(None).unwrap().port), port(19800));
    let home = home.and("OPENCLAW_GATEWAY_PORT", "");
    assert_eq!(Some(home.load(None).unwrap().port), port(19789));
    let home = Home::with(r#"{ gateway: { auth: { token: "t" } } }"#);
    assert_eq!(Some(home.load(None).unwrap().port), port(18789));
    let home = home.and("OPENCLAW_GATEWAY_PORT", "none");
    assert!(matches!(home.load(None), Err(ConfigError::PortVariable)));
}

#[test]
fn a_syntax_error_is_named_with_line_and_column() {
    assert_eq!(fault(""), "FILE:1:1: failed to parse the configuration: the file is empty");
    assert_eq!(fault("{\n  a: 1\n  b: 2\n}"), "FILE:2:7: failed to parse the configuration: expected comma");
    assert_eq!(
        fault("{\n  gateway: {\n"),
        "FILE:2:12: failed to parse the configuration: unterminated object"
    );
    assert_eq!(
        fault(b"{\n  a: '\xff'\n}"),
        "FILE:2:7: failed to read the configuration: not UTF-8 from here on"
    );
    assert_eq!(fault("[]"), "FILE:1:1: `the configuration` must be an object");
}

#[test]
fn nesting_and_size_are_bounded() {
    assert!(fault("[".repeat(100_000)).contains("maximum nesting depth exceeded"));
    let home = Home::with(vec![b' '; CONFIG_BYTES as usize + 1]);
    assert!(matches!(home.load(None), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_wrong_type_is_named_with_line_and_column() {
    for (text, expected) in [
        ("{ gateway: [] }", "FILE:1:12: `gateway` must be an object"),
        ("{\n gateway: { port: '1' } }", "FILE:2:19: `gateway.port` must be a number"),
        ("{ gateway: { bind: true } }", "FILE:1:20: `gateway.bind` must be a string"),
        ("{ gateway: { mode: null } }", "FILE:1:20: `gateway.mode` must be a string"),
        ("{ gateway: { auth: 'x' } }", "FILE:1:20: `gateway.auth` must be an object"),
        ("{ gateway: { auth: {\n token: 5 } } }", "FILE:2:9: `gateway.auth.token` must be a string"),
        ("{ gateway: { auth: { mode: 1 } } }", "FILE:1:28: `gateway.auth.mode` must be a string"),
    ] {
        assert_eq!(fault(text), expected);
    }
}

#[test]
fn a_value_that_cannot_be_honoured_is_refused() {
    for (text, expected) in [
        (
            "{ gateway: { port: 70000 } }",
            "FILE:1:20: `gateway.port` must be a whole number from 1 to 65535, not 70000",
        ),
        (
            "{ gateway: { port: 0 } }",
            "FILE:1:20: `gateway.port` must be a whole number from 1 to 65535, not 0",
        ),
        (
            "{ gateway: { port: 1.5 } }",
            "FILE:1:20: `gateway.port` must be a whole number from 1 to 65535, not 1.5",
        ),
        (
            "{ gateway: { port: -1 } }",
            "FILE:1:20: `gateway.port` must be a whole number from 1 to 65535, not -1",
        ),
        ("{ gateway: { mode: 'remote' } }", "FILE:1:20: `gateway.mode` must be \"local\", not \"remote\""),
        (
            "{ gateway: { bind: 'tailnet' } }",
            "FILE:1:20: `gateway.bind` must be \"loopback\", \"auto\" or \"lan\" (built-in gateway), not \"tailnet\"",
        ),
        (
            "{ gateway: { auth: { mode: 'trusted-proxy' } } }",
            "FILE:1:28: `gateway.auth.mode` must be \"token\", \"password\" or \"none\" (built-in gateway), \
             not \"trusted-proxy\"",
        ),
        (
            "{ $include: './base.json5', gateway: {} }",
            "FILE:1:3: the built-in gateway does not follow `$include`: write the `gateway` keys into this file",
        ),
    ] {
        assert_eq!(fault(text), expected);
    }
}

#[test]
fn without_a_usable_secret_it_does_not_start() {
    const MEND: &str = "or, on loopback, `gateway.auth.mode` to \"none\"";
    for (text, place, key) in [
        ("{}", "FILE:1:1", "token"),
        ("{ gateway: {} }", "FILE:1:12", "token"),
        ("{ gateway: {\n auth: {} } }", "FILE:2:8", "token"),
        ("{ gateway: { auth: { token: ' ' } } }", "FILE:1:20", "token"),
        ("{ gateway: { auth: { mode: 'password', token: 't' } } }", "FILE:1:20", "password"),
    ] {
        assert_eq!(fault(text), format!("{place}: no usable auth: set `gateway.auth.{key}`, {MEND}"));
    }
    let open = "{ gateway: { bind: 'lan', auth: { mode: 'none' } } }";
    assert_eq!(
        fault(open),
        "FILE:1:41: `gateway.auth.mode` \"none\" is only for `gateway.bind` \"loopback\""
    );
    let closed = Home::with("{ gateway: { auth: { mode: 'none' } } }").load(None).unwrap();
    assert_eq!(*closed.auth, Auth::None);
}

#[test]
fn a_secret_may_come_from_the_environment() {
    let home = Home::with("{ gateway: {} }").and("OPENCLAW_GATEWAY_TOKEN", "from-env");
    assert_eq!(*home.load(None).unwrap().auth, Auth::Token(Secret("from-env".to_owned())));
    let home = Home::with("{ gateway: { auth: { token: 'a-${B_2}-$${B_2}-${b}' } } }").and("B_2", "x");
    assert_eq!(*home.load(None).unwrap().auth, Auth::Token(Secret("a-x-${B_2}-${b}".to_owned())));
    assert_eq!(
        fault("{ gateway: { auth: { token: '${B}' } } }"),
        "FILE:1:29: `gateway.auth.token` refers to the environment variable `B`, which is not set"
    );
}

#[test]
fn a_file_that_is_missing_or_no_file_is_named() {
    let home = Home::with("").and("OPENCLAW_CONFIG_PATH", "/nowhere/openclaw.json");
    assert_eq!(home.fault(), "failed to read the configuration `/nowhere/openclaw.json`");
    let home = Home::with("").and("OPENCLAW_CONFIG_PATH", "/dev/null");
    assert_eq!(home.fault(), "failed to read the configuration `/dev/null`");
    let nowhere = Environment(Box::new(|_| None));
    assert!(matches!(Config::load(&nowhere, None), Err(ConfigError::NoPath)));
}

#[test]
fn a_secret_matches_only_itself_and_is_never_shown() {
    let secret = Secret("right".to_owned());
    assert!(secret.matches("right"));
    for wrong in ["", "r", "righ", "wrong", "rights", "right\0"] {
        assert!(!secret.matches(wrong), "{wrong:?}");
    }
    assert!(!format!("{:?}", Auth::Token(secret)).contains("right"));
}
