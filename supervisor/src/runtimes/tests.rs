//! Versions that are installed, and those that are not. npm is a script here: what it does is in its hands.

use std::{collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::{openclaw::environment::Control, tool::Tool};

struct World {
    directory: tempfile::TempDir,
    runtimes: Runtimes,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let bin = directory.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&data_dir).unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let host = Host {
            control: Control { socket: data_dir.join("control.sock"), data_dir },
            environment: BTreeMap::from([("PATH".to_owned(), path)]),
            beside_daemon: bin,
        };
        Self { directory, runtimes: Runtimes::new(Arc::new(host)) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn program(&self, path: &str, text: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn ensure(&self, version: &str, from: Option<&Path>) -> Result<(Installed, bool), InstallError> {
        let wanted = Wanted { version: version.into(), from: from.map(Path::to_owned), node: None };
        self.runtimes.ensure(self.runtimes.turn().await, wanted).await
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at("data/runtimes")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn run(program: &Path, word: &str) -> String {
    Tool::new(program, &[word]).ask(Duration::from_secs(60)).unwrap()
}

#[tokio::test]
async fn a_program_that_is_installed_elsewhere_becomes_a_version_and_stays_where_it_is() {
    let world = World::new();
    let mine = world.program("it's mine/openclaw", "#!/bin/sh\necho \"OpenClaw 2026.9.6 (eb377ac) $1\"\n");
    let (installed, was_there) = world.ensure("2026.9.6", Some(&mine)).await.unwrap();
    assert!(!was_there);
    assert_eq!(installed.source, mine.display().to_string());
    assert_eq!(run(&installed.program, "gateway"), "OpenClaw 2026.9.6 (eb377ac) gateway");
    assert_eq!(world.ensure("2026.9.6", None).await.unwrap(), (installed.clone(), true));
    assert_eq!(world.runtimes.list().await, [installed]);
    assert_eq!(world.names(), ["openclaw-2026.9.6"]);
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_not_installed_and_leaves_nothing() {
    let world = World::new();
    let other = world.program("other/bin/openclaw", "#!/bin/sh\necho 'OpenClaw 2026.9.61'\n");
    let broken = world.program("broken", "#!/bin/sh\necho 'no such module' >&2\nexit 3\n");
    let of = async |from: &Path| world.ensure("2026.9.6", Some(from)).await.unwrap_err().to_string();
    assert_eq!(of(&world.at("other")).await, "it is not 2026.9.6: it says `OpenClaw 2026.9.61`");
    assert_eq!(of(&other).await, "it is not 2026.9.6: it says `OpenClaw 2026.9.61`");
    assert_eq!(of(&broken).await, "it does not say its version: it exits with status 3: no such module");
    assert!(of(&world.at("nowhere")).await.contains("is neither an executable"));
    assert!(matches!(world.ensure("../x", None).await, Err(InstallError::NoVersion(_))));
    assert_eq!(world.names(), Vec::<String>::new());
}

/// Fails unless the overrides are there, then installs a package that is of the version that it was asked for, or 3.1.
const NPM: &str = r#"#!/bin/sh
echo "npm says: $*"
grep -q libsignal package.json || exit 1
version=$(sed -n 's/.*"openclaw": "\([^"]*\)".*/\1/p' package.json)
[ "$version" = latest ] && version=3.1
mkdir -p node_modules/openclaw
echo "{\"version\": \"$version\"}" >node_modules/openclaw/package.json
echo "$version" >node_modules/openclaw/openclaw.mjs
"#;

/// Prints the file that it is given, and the rest of its arguments.
const NODE: &str = "#!/bin/sh\necho \"$(cat \"$1\") $2\"\n";

#[tokio::test]
async fn npm_installs_a_version_aside_also_one_whose_dependencies_must_be_overridden() {
    let world = World::new();
    world.program("bin/node", NODE);
    world.program("bin/npm", NPM);
    let (installed, _) = world.ensure("2026.9.6", None).await.unwrap();
    assert_eq!((installed.version.as_str(), installed.source.as_str()), ("2026.9.6", "npm"));
    assert_eq!(run(&installed.program, "gateway"), "2026.9.6 gateway");
    let (latest, _) = world.ensure("latest", None).await.unwrap();
    assert_eq!(latest.version, "3.1", "a tag is what it comes to");
    let (again, _) = world.ensure("latest", None).await.unwrap();
    assert_eq!(again, latest);
    let log = fs::read_to_string(world.at("data/runtimes/install-2026.9.6.log")).unwrap();
    assert!(log.contains("npm says: install --prefix"), "{log}");
    let turn = world.runtimes.turn().await;
    let removed = world.runtimes.prune(turn, BTreeSet::from(["3.1".to_owned()])).await.unwrap();
    assert_eq!(removed, ["2026.9.6"]);
    assert_eq!(world.runtimes.list().await, [latest]);
}

#[tokio::test]
async fn when_npm_fails_nothing_is_left_but_what_it_said() {
    let world = World::new();
    world.program("bin/node", NODE);
    world.program("bin/npm", "#!/bin/sh\nmkdir -p node_modules/openclaw\necho 'npm error 404'\nexit 1\n");
    fs::create_dir_all(world.at("data/runtimes/.new-1-1/bin")).unwrap();
    let error = world.ensure("2026.9.6", None).await.unwrap_err().to_string();
    assert!(error.starts_with("npm failed: npm error 404; its output is in"), "{error}");
    assert_eq!(world.names(), ["install-2026.9.6.log"]);
    let world = World::new();
    let without = Wanted { version: "1".into(), from: Some(world.at("x.tgz")), node: None };
    fs::write(world.at("x.tgz"), "").unwrap();
    let host = Host {
        environment: BTreeMap::from([("PATH".into(), "/nowhere".into())]),
        ..(*world.runtimes.host).clone()
    };
    let runtimes = Runtimes::new(Arc::new(host));
    let error = runtimes.ensure(runtimes.turn().await, without).await.unwrap_err();
    assert!(matches!(error, InstallError::NoTool("node")), "{error}");
}
