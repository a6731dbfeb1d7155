//! Starts a supervisor on this host, detached from the terminal, and waits until it answers.

use std::{
    env,
    fs::{DirBuilder, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::geteuid,
};
use supervisor_proto::v1::GetInfoRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    connect::{Place, Supervisor},
    error::{Cause, Error, Operation},
    render::style::{printable_line, talk},
};

const PROGRAM: &str = "openclaw-supervisor";
const LOG: &str = "supervisor.log";
/// Set in the environment of every instance.
const INSIDE: &str = "OPENCLAWCTL_INSTANCE";
/// A supervisor listens within milliseconds, and within seconds when it adopts thousands of gateways.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// After our child's end another supervisor may yet listen: the one because of which ours gave up.
const OTHER_DEADLINE: Duration = Duration::from_secs(2);
/// One that listens and has not answered for so long is asked anew.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// The first pause between two looks at the socket; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The end of the log that is shown when the supervisor dies at once.
const SHOWN_LINES: usize = 12;
const SHOWN_BYTES: u64 = 16 << 10;

/// Starts a supervisor on `place`, waits until it answers, and says so on standard error.
pub(crate) async fn start(place: &Place, operation: &Operation) -> Result<Supervisor, Error> {
    let fail = |cause: Cause| cause.during(operation);
    // Whoever is inside an instance belongs to the process tree that its worker ends.
    if let Ok(name) = env::var(INSIDE) {
        return Err(fail(Cause::InsideInstance(name)));
    }
    let program = find(PROGRAM).ok_or_else(|| fail(Cause::DaemonMissing))?;
    let data_dir = &place.data_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|source| fail(Cause::Create { path: data_dir.clone(), source }))?;
    let log = data_dir.join(LOG);
    let file = open_log(data_dir).map_err(fail)?;
    let log_start = file.metadata().map_or(0, |metadata| metadata.len());
    let mut child = spawn(&program, data_dir, file).map_err(fail)?;

    let mut exited: Option<(ExitStatus, Instant)> = None;
    let deadline = Instant::now() + START_DEADLINE;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some((supervisor, pid)) = answering(place).await {
            // Another one may have been quicker; ours then gives up by itself.
            let what =
                if pid == i64::from(child.id()) { "started a supervisor" } else { "a supervisor is running" };
            talk(&format!("{what} (pid {pid})"));
            return Ok(supervisor);
        }
        let now = Instant::now();
        if exited.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            exited = Some((status, now));
        }
        match exited {
            Some((status, at)) if now >= at + OTHER_DEADLINE => {
                let lines = last_lines(&log, log_start).unwrap_or_default();
                return Err(fail(Cause::DaemonDied { status, log }).with_detail(lines));
            }
            None if now >= deadline => {
                return Err(fail(Cause::DaemonSilent { pid: child.id(), after: START_DEADLINE, log }));
            }
            Some(_) | None => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The supervisor that answers at `place`, if one does, and its process. One that is just dying still takes
/// connections, but does not answer.
pub(crate) async fn answering(place: &Place) -> Option<(Supervisor, i64)> {
    let ask = async {
        let supervisor = Supervisor::connect(&place.clone().into()).await.ok()?;
        let info = supervisor.system().get_info(GetInfoRequest {}).await.ok()?;
        Some((supervisor, i64::from(info.into_inner().pid)))
    };
    timeout(ANSWER_DEADLINE, ask).await.ok().flatten()
}

/// An executable of the supervisor's: beside our own, else on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(program)));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = env::split_paths(&path).map(|directory| directory.join(program)).collect();
    beside.into_iter().chain(on_path).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Opens the log of a supervisor that is to be started. In a directory of another user, which the supervisor will refuse,
/// nothing is written before: who has it could lead that anywhere.
fn open_log(data_dir: &Path) -> Result<File, Cause> {
    let failed = |source: io::Error| Cause::Create { path: data_dir.join(LOG), source };
    let directory = File::open(data_dir).map_err(failed)?;
    let owner = directory.metadata().map_err(failed)?.uid();
    if owner != geteuid().as_raw() {
        return Err(Cause::ForeignDirectory { path: data_dir.to_owned(), owner });
    }
    let flags = OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let log = openat(&directory, LOG, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    log.map(File::from).map_err(|error| failed(error.into()))
}

/// Runs the daemon in a process group of its own, so that Ctrl-C in this terminal is not meant for it.
fn spawn(program: &Path, data_dir: &Path, log: File) -> Result<Child, Cause> {
    let out = log.try_clone().map_err(|source| Cause::Create { path: data_dir.join(LOG), source })?;
    Command::new(program)
        .arg("--data-dir")
        .arg(data_dir)
        .current_dir("/")
        // Two heaps for its few threads: glibc's default of eight for each processor costs megabytes.
        .env("MALLOC_ARENA_MAX", "2")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log)
        .spawn()
        .map_err(|source| Cause::Spawn { path: program.to_owned(), source })
}

/// The last lines that were written to the log after `start`.
fn last_lines(log: &Path, start: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(SHOWN_BYTES)).min(length)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
    let text = anstream::adapter::strip_bytes(&bytes).into_vec();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    Ok(shown.iter().map(|line| format!("  | {}", printable_line(line))).collect())
}
