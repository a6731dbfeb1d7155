//! Credentials found, passed over, told apart.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use nix::unistd::geteuid;
use supervisor_core::ids::Name;

use super::*;
use crate::{openclaw::layout::Layout, spec::UserName};

struct World {
    data: tempfile::TempDir,
    directories: Directories,
    spec: InstanceSpec,
}

impl World {
    fn new(environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let directories = Directories::at(data.path(), &Name::new("main").unwrap(), None);
        directories.create(data.path()).unwrap();
        let env = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { data, directories, spec: InstanceSpec { env, ..InstanceSpec::default() } }
    }

    fn of(&self, text: &str) -> Vec<Named> {
        super::of(text, &self.directories, &Purse { salt: "store", spec: &self.spec })
    }

    fn labels(&self, text: &str) -> Vec<String> {
        self.of(text).into_iter().map(|named| named.label).collect()
    }

    /// The fingerprint of the one credential in it.
    fn one(&self, text: &str) -> Credential {
        let found = self.of(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found[0].credential
    }
}

fn telegram(token: &str) -> Credential {
    fingerprint("store", "telegram", token)
}

#[test]
fn a_fingerprint_depends_on_store_channel_and_token_and_shows_none_of_them() {
    let all = [
        fingerprint("store", "telegram", "1:a"),
        fingerprint("other", "telegram", "1:a"),
        fingerprint("store", "discord", "1:a"),
        fingerprint("store", "telegram", "1:b"),
        fingerprint("stor", "etelegram", "1:a"),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{index}");
    }
    let world = World::new(&[]);
    let shown = format!("{:?}", world.of("{channels: {telegram: {botToken: '123456:hush'}}}"));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn every_channel_that_connects_by_itself_is_known() {
    let world = World::new(&[]);
    let text = "{channels: {
        telegram: {botToken: '1:a'}, discord: {token: 'b'}, slack: {appToken: 'xapp-c', botToken: 'xoxb-d'},
        mattermost: {botToken: 'e'}, matrix: {accessToken: 'f'}, zalo: {botToken: 'g'}, feishu: {appSecret: 'h'},
        twitch: {accessToken: 'i'}, qqbot: {clientSecret: 'j'}, clickclack: {token: 'k'}, nostr: {privateKey: 'l'},
        buzz: {privateKey: 'm'},
        msteams: {appPassword: 'x'}, googlechat: {serviceAccount: 'x'}, whatsapp: {}, line: {channelAccessToken: 'x'},
    }}";
    assert_eq!(world.of(text).len(), KINDS.len());
}

#[test]
fn accounts_count_each_and_the_channels_own_token_is_the_default_accounts() {
    let world = World::new(&[]);
    for (channel, labels) in [
        ("{botToken: '1:a'}", vec!["telegram"]),
        ("{accounts: {work: {botToken: '1:a'}}}", vec!["telegram (accounts.work)"]),
        (
            "{botToken: '1:a', accounts: {work: {botToken: '1:b'}}}",
            vec!["telegram (accounts.work)", "telegram"],
        ),
        ("{botToken: '1:a', accounts: {default: {botToken: '1:b'}}}", vec!["telegram (accounts.default)"]),
        (
            "{botToken: '1:a', accounts: {default: {botToken: '1:b'}, work: {}}}",
            vec!["telegram (accounts.default)", "telegram"],
        ),
        ("{botToken: '1:a', accounts: {default: {name: 'Bot'}}}", vec!["telegram"]),
        (
            "{botToken: '1:a', accounts: {default: {botToken: '1:a'}, work: {botToken: '1:a'}}}",
            vec!["telegram (accounts.default)"],
        ),
        ("{}", vec![]),
        ("{botToken: ''}", vec![]),
        ("{botToken: null, accounts: []}", vec![]),
        ("5", vec![]),
    ] {
        assert_eq!(world.labels(&format!("{{channels: {{telegram: {channel}}}}}")), labels, "{channel}");
    }
    for text in ["", "[]", "{channels: 5}", "{broken", "{channels: {telegram: {botToken: '1:a'}}"] {
        assert!(world.of(text).is_empty(), "{text}");
    }
}

#[test]
fn what_is_disabled_does_not_count() {
    let world = World::new(&[("TELEGRAM_BOT_TOKEN", "1:z")]);
    for text in [
        "{channels: {telegram: {enabled: false, botToken: '1:a', accounts: {work: {botToken: '1:b'}}}}}",
        "{channels: {telegram: {botToken: '1:a'}}, plugins: {entries: {telegram: {enabled: false}}}}",
        "{channels: {telegram: {botToken: '1:a'}}, plugins: {enabled: false}}",
        "{channels: {telegram: {botToken: '1:a'}}, plugins: {deny: ['telegram']}}",
        "{channels: {telegram: {botToken: '1:a', accounts: {default: {enabled: false}}}}}",
    ] {
        assert!(world.of(text).is_empty(), "{text}");
    }
    let one_of_two = "{channels: {telegram: {accounts: {a: {botToken: '1:a', enabled: false}, default: {botToken: '1:b'}}}}}";
    assert_eq!(world.one(one_of_two), telegram("1:b"));
}

#[test]
fn where_the_service_calls_nothing_is_fought_for() {
    let world = World::new(&[]);
    for text in [
        "{channels: {slack: {mode: 'http', botToken: 'xoxb-a', accounts: {work: {botToken: 'xoxb-b'}}}}}",
        "{channels: {feishu: {connectionMode: 'webhook', appSecret: 'a'}}}",
    ] {
        assert!(world.of(text).is_empty(), "{text}");
    }
    let mixed = "{channels: {slack: {mode: 'http', accounts: {work: {mode: 'socket', appToken: 'xapp-b'}}}}}";
    assert_eq!(world.labels(mixed), ["slack (accounts.work)"]);
}

#[test]
fn references_are_followed_as_far_as_the_instances_own_environment_goes() {
    let world = World::new(&[("BOT", "1:a"), ("EMPTY", " ")]);
    let found = |token: &str, rest: &str| {
        world.of(&format!("{{channels: {{telegram: {{botToken: {token}}}}}{rest}}}"))
    };
    let same = vec![Named { credential: telegram("1:a"), label: "telegram".into() }];
    for token in
        ["'1:a'", "' 1:a\\n'", "'${BOT}'", "'$BOT'", "{source: 'env', provider: 'default', id: 'BOT'}"]
    {
        assert_eq!(found(token, ""), same, "{token}");
    }
    for env in [", env: {vars: {OWN: '1:a'}}", ", env: {OWN: '1:a'}"] {
        assert_eq!(found("'${OWN}'", env), same, "{env}");
    }
    assert_eq!(found("'${BOT}'", ", env: {vars: {BOT: '1:b'}}"), same, "the environment comes first");
    for token in [
        "'${ELSEWHERE}'",
        "'$ELSEWHERE'",
        "'${EMPTY}'",
        "{source: 'file', provider: 'p', id: '/bot'}",
        "{source: 'exec', provider: 'p', id: 'bot'}",
        "{source: 'env'}",
    ] {
        assert!(found(token, "").is_empty(), "{token}");
    }
    let resolved = |text: &str| {
        let (config, purse) = (Value::Null, Purse { salt: "", spec: &world.spec });
        Reader { config: &config, directories: &world.directories, purse: &purse }.resolved(text)
    };
    assert_eq!(resolved("a${BOT}b$${BOT}c${bot}d${").as_deref(), Some("a1:ab${BOT}c${bot}d${"));
}

#[test]
fn a_token_file_comes_before_a_token() {
    let mut world = World::new(&[]);
    let file = world.data.path().join("token");
    world.spec.walls.read = vec![file.clone()];
    fs::write(&file, "1:file\n").unwrap();
    let text = |path: &str| format!("{{channels: {{telegram: {{tokenFile: '{path}', botToken: '1:a'}}}}}}");
    assert_eq!(world.one(&text(file.to_str().unwrap())), telegram("1:file"));
    fs::write(world.directories.home.join("mine"), "1:home").unwrap();
    assert_eq!(world.one(&text("mine")), telegram("1:home"), "the working directory is the home");
    assert!(world.of(&text("/nowhere")).is_empty(), "OpenClaw takes no other then");
    fs::write(&file, "1".repeat(1 << 20)).unwrap();
    assert!(world.of(&text(file.to_str().unwrap())).is_empty(), "no token is that long");
}

#[test]
fn a_token_file_that_the_gateway_could_not_read_is_not_read_for_it() {
    let mut world = World::new(&[]);
    let file = world.data.path().join("token");
    fs::write(&file, "1:file\n").unwrap();
    symlink(&file, world.directories.home.join("link")).unwrap();
    let text = |path: &str| format!("{{channels: {{telegram: {{tokenFile: '{path}'}}}}}}");
    for path in [file.to_str().unwrap(), "link", "../../../token"] {
        assert!(world.of(&text(path)).is_empty(), "{path}");
    }
    // Beside a configuration that lies elsewhere, all that is its own is the configuration.
    world.directories.config = world.data.path().join("openclaw.json");
    assert!(world.of(&text(file.to_str().unwrap())).is_empty());
    world.spec.walls.files = Some(false);
    assert_eq!(world.one(&text("link")), telegram("1:file"), "it can");
    if geteuid().is_root() {
        // Its user cannot.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        world.directories.user = Some(UserName("54321".into()));
        assert!(world.of(&text("link")).is_empty());
    }
}

#[test]
fn a_token_file_behind_a_link_in_place_of_the_workspace_is_not_read() {
    let mut world = World::new(&[]);
    let others = world.data.path().join("others");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("token"), "1:others").unwrap();
    fs::write(world.directories.state.join("token"), "1:mine").unwrap();
    world.directories.layout = Layout::Profile;
    world.directories.workspace = world.directories.state.join("workspace");
    let of = |path: &str| format!("{{channels: {{telegram: {{tokenFile: '{path}'}}}}}}");
    let [mine, theirs] =
        ["token", "workspace/token"].map(|file| of(world.directories.state.join(file).to_str().unwrap()));
    symlink(&others, &world.directories.workspace).unwrap();
    assert_eq!(world.one(&mine), telegram("1:mine"));
    assert!(world.of(&theirs).is_empty());
    // An operator may say that it is to be read.
    world.spec.walls.read.push(others);
    assert_eq!(world.one(&theirs), telegram("1:others"));
}

#[test]
fn a_variable_stands_in_for_the_default_account() {
    let world = World::new(&[("TELEGRAM_BOT_TOKEN", "1:env"), ("DISCORD_BOT_TOKEN", "Bot abc")]);
    let found = world.of("{}");
    assert_eq!(found[0].credential, telegram("1:env"));
    assert_eq!(found[1].credential, fingerprint("store", "discord", "abc"));
    assert_eq!(
        world.of("{channels: {discord: {token: 'bot abc'}}}")[1],
        found[1],
        "as it is written elsewhere"
    );
    let telegram_only = "{channels: {discord: {enabled: false}, telegram: {botToken: '1:a'}}}";
    assert_eq!(world.one(telegram_only), telegram("1:a"));
}

#[test]
fn no_more_are_named_than_core_can_bear() {
    let world = World::new(&[]);
    let accounts: String = (0..1000).map(|n| format!("a{n}: {{botToken: '{n}:x'}}, ")).collect();
    assert_eq!(
        world.of(&format!("{{channels: {{telegram: {{accounts: {{{accounts}}}}}}}}}")).len(),
        MAX_NAMED
    );
}
