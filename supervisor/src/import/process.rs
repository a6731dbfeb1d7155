//! The gateway that runs on a profile before the supervisor has it.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    doctor::services::{environment, is_gateway, is_of, state_of, user_of},
    openclaw::{layout::resolve, place::Place},
    proc,
};

/// Locks in one directory that are looked at; OpenClaw keeps two for each gateway.
const MOST_LOCKS: usize = 1_000;

/// The largest lock that is read.
const LOCK_BYTES: u64 = 64 << 10;

/// Descriptors of one process that are looked at.
const MOST_FILES: usize = 4_096;

/// A process, so named that the next bearer of its pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Running {
    /// In clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) started: u64,
    /// Its pid.
    pub(crate) pid: i32,
}

impl Running {
    /// The process that has this pid now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let (started, is_dead) = stat(pid)?;
        (!is_dead).then_some(Self { started, pid })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Asks it to end (SIGTERM). One that has ended needs no signal.
    pub(super) fn terminate(self) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // The descriptor names whoever has the pid now; from here on that cannot be another one.
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(pidfd, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// When a process began, and whether it has ended and only its parent does not know yet.
fn stat(pid: i32) -> Option<(u64, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.nth(18)?.parse().ok()?, matches!(state, "Z" | "X")))
}

/// What a lock of OpenClaw says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    pid: i32,
    #[serde(alias = "starttime")]
    start_time: Option<u64>,
    config_path: Option<PathBuf>,
}

/// The gateway that has the state directory: by its lock, else by what it was started with or has open. A title says
/// only that a process is some gateway.
pub(super) fn owner(root: &Path, state: &Path, config: &Path) -> Option<Running> {
    by_lock(root, state, config).or_else(|| by_process(root, state))
}

fn by_lock(root: &Path, state: &Path, config: &Path) -> Option<Running> {
    // Anybody may make such files, and say that any process is the gateway.
    let user = fs::metadata(state).ok()?.uid();
    let directory = format!("openclaw-{user}");
    let own = locks(&state.join("tmp").join(&directory), user).into_iter();
    // Early versions keep those of all gateways in one place.
    let common = locks(&root.join("tmp").join(directory), user)
        .into_iter()
        .filter(|lock| lock.config_path.as_ref().is_some_and(|path| resolve(path) == resolve(config)));
    own.chain(common).find_map(|lock| {
        let running = Running::of(lock.pid)?;
        let is_it = lock.start_time.is_none_or(|started| started == running.started);
        // An agent may have written the lock to have another process ended.
        let is_theirs = user_of(Path::new(&format!("/proc/{}", lock.pid))) == Some(user);
        (is_it && is_theirs && runs_on(lock.pid, &resolve(state))).then_some(running)
    })
}

/// The locks of this user in a directory of his.
fn locks(directory: &Path, user: u32) -> Vec<Lock> {
    let found =
        Place::open(directory).ok().filter(|place| place.standing().is_ok_and(|found| found.uid == user));
    let Some(place) = found else { return Vec::new() };
    let read = |name: &String| {
        let file = place.file(name).ok()?;
        let about = file.metadata().ok().filter(|about| about.uid() == user && about.len() <= LOCK_BYTES)?;
        let mut text = String::new();
        file.take(about.len()).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    };
    let names = place.names().unwrap_or_default();
    let is_lock = |name: &&String| name.starts_with("gateway") && name.ends_with(".lock");
    names.iter().filter(is_lock).take(MOST_LOCKS).filter_map(read).collect()
}

/// The oldest of its processes: the others are its children.
fn by_process(root: &Path, state: &Path) -> Option<Running> {
    let wanted = resolve(state);
    let entries = fs::read_dir(root.join("proc")).ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| runs_on(*pid, &wanted)).filter_map(Running::of).min()
}

fn runs_on(pid: i32, state: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    // Anybody's process may be called a gateway, and say that it has this state.
    let is_its = fs::metadata(state).is_ok_and(|state| is_of(&process, state.uid()));
    if !is_its || !is_gateway(&proc::look(process.join("cmdline"), proc::COMMAND)) {
        return false;
    }
    let environ = proc::look(process.join("environ"), proc::ENVIRONMENT);
    // One of a supervisor's own.
    if environment(&environ, "OPENCLAWCTL_MARK").is_some() {
        return false;
    }
    let named = environment(&environ, "OPENCLAW_STATE_DIR").is_some();
    // `--profile` chooses the directory once it runs, which its environment does not show.
    resolve(&state_of(&environ)) == state || !named && has_open(&process, state)
}

/// Whether the process has a file open below the directory.
fn has_open(process: &Path, directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(process.join("fd")) else { return false };
    let files = entries.flatten().take(MOST_FILES).filter_map(|entry| fs::read_link(entry.path()).ok());
    files.into_iter().any(|file| file.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::chown, process::CommandExt},
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A process with the title of a gateway.
    struct Gateway(Child, Running);

    impl Gateway {
        fn start(variables: &[(&str, &str)]) -> Self {
            let mut command = Command::new("sleep");
            command.arg0("openclaw-gateway").arg("600").envs(variables.iter().copied());
            let child = command.spawn().unwrap();
            let running = Running::of(child.id().try_into().unwrap()).unwrap();
            // The kernel shows them a moment after it has begun to run the program.
            let shows = |file: &str| fs::read(format!("/proc/{}/{file}", running.pid)).unwrap();
            while !is_gateway(&shows("cmdline")) || shows("environ").is_empty() {
                std::thread::yield_now();
            }
            Self(child, running)
        }
    }

    impl Drop for Gateway {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_gateway_is_found_by_its_lock_only_if_the_process_is_the_one_that_wrote_it() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let gateway = Gateway::start(&[("OPENCLAW_STATE_DIR", state.to_str().unwrap())]);
        let me = gateway.1;
        let directory = state.join(format!("tmp/openclaw-{}", rustix::process::geteuid().as_raw()));
        fs::create_dir_all(&directory).unwrap();
        let lock = directory.join("gateway.0a1b.lock");
        let config = state.join("openclaw.json");
        let write = |started: u64| {
            fs::write(&lock, format!(r#"{{"pid":{},"startTime":{started},"createdAt":"x"}}"#, me.pid))
                .unwrap();
        };
        write(me.started);
        assert_eq!(by_lock(root.path(), &state, &config), Some(me));
        write(me.started + 1);
        assert_eq!(by_lock(root.path(), &state, &config), None, "it is of an earlier process with this pid");
        fs::remove_file(&lock).unwrap();
        assert_eq!(by_lock(root.path(), &state, &config), None);
    }

    #[test]
    fn a_lock_that_names_what_is_not_the_profiles_gateway_is_not_heard() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let directory = state.join(format!("tmp/openclaw-{}", rustix::process::geteuid().as_raw()));
        fs::create_dir_all(&directory).unwrap();
        let found = |pid: i32| {
            fs::write(directory.join("gateway.1.lock"), format!(r#"{{"pid":{pid}}}"#)).unwrap();
            by_lock(root.path(), &state, &state.join("openclaw.json"))
        };
        let itself = std::process::id().try_into().unwrap();
        assert_eq!(found(itself), None, "no gateway: a supervisor, say");
        let neighbour = Gateway::start(&[("OPENCLAWCTL_MARK", "store/main")]);
        assert_eq!(found(neighbour.1.pid), None, "a supervisor's own");
        let other = Gateway::start(&[("OPENCLAW_STATE_DIR", "/elsewhere")]);
        assert_eq!(found(other.1.pid), None, "another profile's");
        let its = Gateway::start(&[("OPENCLAW_STATE_DIR", state.to_str().unwrap())]);
        assert_eq!(found(its.1.pid), Some(its.1));
    }

    #[test]
    fn a_lock_of_another_user_names_no_process_and_a_pipe_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let gateway = Gateway::start(&[("OPENCLAW_STATE_DIR", state.to_str().unwrap())]);
        let me = gateway.1;
        let uid = rustix::process::geteuid().as_raw();
        let (config, common) = (state.join("openclaw.json"), root.path().join(format!("tmp/openclaw-{uid}")));
        for directory in [&state, &common] {
            fs::create_dir_all(directory).unwrap();
        }
        let lock = common.join("gateway.1.lock");
        fs::write(&lock, format!(r#"{{"pid":{},"configPath":"{}"}}"#, me.pid, config.display())).unwrap();
        nix::unistd::mkfifo(&common.join("gateway.2.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(by_lock(root.path(), &state, &config), Some(me));
        if uid != 0 {
            eprintln!("not all of it is tried: it takes root to give files away");
            return;
        }
        for given in [&lock, &common] {
            chown(given, Some(64_161), None).unwrap();
            assert_eq!(by_lock(root.path(), &state, &config), None, "{}", given.display());
            chown(given, Some(uid), None).unwrap();
        }
        // Of a profile of another user, no process of root's is the gateway.
        chown(&state, Some(64_161), None).unwrap();
        let theirs = root.path().join("tmp/openclaw-64161");
        fs::rename(&common, &theirs).unwrap();
        for given in [&theirs, &theirs.join("gateway.1.lock")] {
            chown(given, Some(64_161), None).unwrap();
        }
        assert_eq!(by_lock(root.path(), &state, &config), None);
    }

    #[test]
    fn a_process_is_asked_to_end_only_if_it_is_the_one_that_was_meant() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let running = Running::of(child.id().try_into().unwrap()).unwrap();
        Running { started: running.started + 1, ..running }.terminate().unwrap();
        assert!(running.is_alive());
        running.terminate().unwrap();
        child.wait().unwrap();
        assert!(!running.is_alive());
        running.terminate().unwrap();
    }
}
