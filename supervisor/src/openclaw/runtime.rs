//! What `auto` and its like come to on this host: a program and its arguments.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{environment::DEFAULT_PATH, prepare::Host};
use crate::spec::{InstanceSpec, Kind, Runtime};

/// OpenClaw's command, as npm installs it.
pub(super) const OPENCLAW: &str = "openclaw";

/// The built-in gateway, installed beside the daemon.
const BUILTIN: &str = "builtin-gateway";

/// Where the versions lie that the supervisor has installed, in the data directory.
pub(crate) const RUNTIMES: &str = "runtimes";

/// Port, bind and auth come from the configuration: versions differ in which flags they honour here.
const RUN: [&str; 2] = ["gateway", "run"];

/// What runs in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Of which kind it is.
    pub kind: Kind,
    /// Absolute.
    pub program: PathBuf,
    /// Without the program's own name; placeholders not yet replaced.
    pub args: Vec<String>,
    /// What the operator should know about the choice.
    pub note: Option<String>,
    /// The program's directory, if a `node` lies there that must be the first one found.
    pub beside: Option<PathBuf>,
}

/// The runtime cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// No such executable.
    #[error("failed to find the program `{program}`{}", looked(search.as_deref()))]
    NotFound {
        /// As the spec names it.
        program: String,
        /// Where it was looked for.
        search: Option<String>,
    },
    /// The daemon was installed without it.
    #[error("failed to find the built-in gateway at `{}`", path.display())]
    NoBuiltin {
        /// Where it should be.
        path: PathBuf,
    },
    /// A command without a program.
    #[error("failed to choose a program: a command needs one")]
    NoProgram,
    /// The version that the spec pins is not there.
    #[error("OpenClaw {version} is not installed under `{}`", directory.display())]
    NotInstalled {
        /// Which.
        version: String,
        /// Where it should be.
        directory: PathBuf,
    },
}

fn looked(search: Option<&str>) -> String {
    search.map(|search| format!(" on PATH ({search})")).unwrap_or_default()
}

impl RuntimeError {
    /// What to do about it: a sentence without its full stop.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::NotFound { program, .. } if program == OPENCLAW => {
                "run `npm install -g openclaw`, name its path in `program`, or use `runtime: builtin`".into()
            }
            Self::NotFound { .. } => "install it, or correct `program` in the spec".into(),
            Self::NoBuiltin { .. } => format!("install `{BUILTIN}` beside `openclaw-supervisor`"),
            Self::NoProgram => "add `program` to the spec".into(),
            Self::NotInstalled { version, .. } => format!("run `openclawctl runtimes install {version}`"),
        }
    }
}

/// Where the supervisor keeps this version of OpenClaw, if it has installed it.
pub(crate) fn home(data_dir: &Path, version: &str) -> PathBuf {
    data_dir.join(RUNTIMES).join(format!("{OPENCLAW}-{version}"))
}

/// The executable of an OpenClaw with this home.
pub(crate) fn executable(home: &Path) -> PathBuf {
    home.join("bin").join(OPENCLAW)
}

/// Chooses the program for `spec`. A version that it pins is never replaced by another.
pub fn resolve(spec: &InstanceSpec, host: &Host) -> Result<Resolved, RuntimeError> {
    let (environment, beside_daemon) = (&host.environment, &host.beside_daemon);
    let openclaw = || {
        let program = match &spec.version {
            Some(version) => pinned(&host.control.data_dir, version)?,
            None => find(spec.program.as_deref().unwrap_or(OPENCLAW), environment)?,
        };
        Ok(gateway(Kind::Openclaw, program))
    };
    match spec.runtime.unwrap_or(Runtime::Auto) {
        Runtime::Openclaw => openclaw(),
        Runtime::Builtin => builtin(beside_daemon),
        Runtime::Auto if spec.version.is_some() => openclaw(),
        Runtime::Auto => openclaw().or_else(|missing| {
            let note = match missing {
                RuntimeError::NotFound { program, .. } if program != OPENCLAW => {
                    format!("`{program}` is not there; the built-in gateway runs")
                }
                RuntimeError::NotFound { .. }
                | RuntimeError::NoBuiltin { .. }
                | RuntimeError::NoProgram
                | RuntimeError::NotInstalled { .. } => {
                    "OpenClaw is not installed; the built-in gateway runs".to_owned()
                }
            };
            builtin(beside_daemon).map(|resolved| Resolved { note: Some(note), ..resolved })
        }),
        Runtime::Command => {
            let program = find(spec.program.as_deref().ok_or(RuntimeError::NoProgram)?, environment)?;
            Ok(Resolved { args: spec.args.clone(), ..gateway(Kind::Command, program) })
        }
    }
}

fn gateway(kind: Kind, program: PathBuf) -> Resolved {
    let beside =
        program.parent().filter(|directory| kind == Kind::Openclaw && is_executable(&directory.join("node")));
    Resolved {
        kind,
        args: RUN.map(str::to_owned).to_vec(),
        note: None,
        beside: beside.map(Path::to_owned),
        program,
    }
}

fn pinned(data_dir: &Path, version: &str) -> Result<PathBuf, RuntimeError> {
    let directory = home(data_dir, version);
    let program = executable(&directory);
    match is_executable(&program) {
        true => Ok(program),
        false => Err(RuntimeError::NotInstalled { version: version.to_owned(), directory }),
    }
}

fn builtin(beside_daemon: &Path) -> Result<Resolved, RuntimeError> {
    let path = beside_daemon.join(BUILTIN);
    match is_executable(&path) {
        true => Ok(gateway(Kind::Builtin, path)),
        false => Err(RuntimeError::NoBuiltin { path }),
    }
}

/// An absolute path as it is, a word on PATH.
fn find(program: &str, host: &BTreeMap<String, String>) -> Result<PathBuf, RuntimeError> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match path.is_absolute() && is_executable(&path) {
            true => Ok(path),
            false => Err(RuntimeError::NotFound { program: program.to_owned(), search: None }),
        };
    }
    let search = host.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    search
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(program))
        .find(|path| is_executable(path))
        .ok_or_else(|| RuntimeError::NotFound {
            program: program.to_owned(),
            search: Some(search.to_owned()),
        })
}

pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openclaw::environment::Control;

    struct World {
        directory: tempfile::TempDir,
        host: Host,
    }

    impl World {
        /// A PATH of `bin`, and a daemon in `libexec`.
        fn new(programs: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for program in programs {
                let path = directory.path().join(program);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "#!/bin/sh\n").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let path = format!("relative::{}", directory.path().join("bin").display());
            let data_dir = directory.path().join("data");
            let host = Host {
                control: Control { socket: data_dir.join("control.sock"), data_dir },
                environment: BTreeMap::from([("PATH".to_owned(), path)]),
                beside_daemon: directory.path().join("libexec"),
            };
            Self { directory, host }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn resolve(&self, spec: &InstanceSpec) -> Result<Resolved, RuntimeError> {
            resolve(spec, &self.host)
        }
    }

    #[test]
    fn auto_takes_openclaw_where_it_is_installed() {
        let world = World::new(&["bin/openclaw", "bin/node", "libexec/builtin-gateway"]);
        let resolved = world.resolve(&InstanceSpec::default()).unwrap();
        assert_eq!((resolved.kind, resolved.note), (Kind::Openclaw, None));
        assert_eq!(resolved.program, world.at("bin/openclaw"));
        assert_eq!(resolved.args, ["gateway", "run"]);
        assert_eq!(resolved.beside, Some(world.at("bin")), "its own node is found first");
    }

    #[test]
    fn auto_falls_back_to_the_built_in_gateway_and_says_so() {
        let world = World::new(&["libexec/builtin-gateway"]);
        let resolved = world.resolve(&InstanceSpec::default()).unwrap();
        assert_eq!(resolved.kind, Kind::Builtin);
        assert_eq!(resolved.note.as_deref(), Some("OpenClaw is not installed; the built-in gateway runs"));
        let spec = InstanceSpec { program: Some("/opt/nowhere".into()), ..InstanceSpec::default() };
        assert_eq!(
            world.resolve(&spec).unwrap().note.unwrap(),
            "`/opt/nowhere` is not there; the built-in gateway runs"
        );
    }

    #[test]
    fn what_is_asked_for_by_name_is_never_replaced() {
        let world = World::new(&["libexec/builtin-gateway"]);
        let spec = InstanceSpec { runtime: Some(Runtime::Openclaw), ..InstanceSpec::default() };
        let error = world.resolve(&spec).unwrap_err();
        assert!(error.to_string().starts_with("failed to find the program `openclaw` on PATH"), "{error}");
        assert!(error.mend().contains("npm install"), "{}", error.mend());
        let bare = World::new(&[]);
        let spec = InstanceSpec { runtime: Some(Runtime::Builtin), ..InstanceSpec::default() };
        assert!(matches!(bare.resolve(&spec), Err(RuntimeError::NoBuiltin { .. })));
    }

    #[test]
    fn a_command_is_found_on_path_or_by_its_own() {
        let world = World::new(&["bin/serve"]);
        let command = |program: &str| InstanceSpec {
            runtime: Some(Runtime::Command),
            program: Some(program.into()),
            args: vec!["--port={port}".into()],
            ..InstanceSpec::default()
        };
        let resolved = world.resolve(&command("serve")).unwrap();
        assert_eq!(
            (resolved.kind, resolved.args.as_slice()),
            (Kind::Command, ["--port={port}".to_owned()].as_slice())
        );
        let absolute = world.at("bin/serve");
        assert_eq!(world.resolve(&command(absolute.to_str().unwrap())).unwrap().program, absolute);
        assert!(matches!(world.resolve(&command("/nowhere")), Err(RuntimeError::NotFound { .. })));
        let nothing = InstanceSpec { program: None, ..command("x") };
        assert_eq!(world.resolve(&nothing), Err(RuntimeError::NoProgram));
    }

    #[test]
    fn a_pinned_version_is_the_one_that_was_installed_and_no_other() {
        let world = World::new(&[
            "bin/openclaw",
            "data/runtimes/openclaw-2026.9.6/bin/openclaw",
            "libexec/builtin-gateway",
        ]);
        let of = |version: &str| InstanceSpec { version: Some(version.into()), ..InstanceSpec::default() };
        let resolved = world.resolve(&of("2026.9.6")).unwrap();
        assert_eq!(resolved.kind, Kind::Openclaw);
        assert_eq!(resolved.program, world.at("data/runtimes/openclaw-2026.9.6/bin/openclaw"));
        let error = world.resolve(&of("2026.2.9")).unwrap_err();
        assert!(error.to_string().starts_with("OpenClaw 2026.2.9 is not installed under"), "{error}");
        assert_eq!(error.mend(), "run `openclawctl runtimes install 2026.2.9`");
    }
}
