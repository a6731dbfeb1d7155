//! A worker in a directory of its own, and a supervisor's end of its socket.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use supervisor_proto::frame;
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::exited::How;
use supervisor_proto::worker::order::Order as Demand;
use supervisor_proto::worker::report::Report as Body;
use supervisor_proto::worker::{
    Attach, Bootstrap, EnvironmentVariable, Exited, Kill, Launch, LogPolicy, Order, Refused, Report, Run,
    Started, State, Stop,
};
use tempfile::TempDir;

/// How long anything may take on a machine under heavy load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The worker's program.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_gateway-worker");

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a level")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Whether `pid` is a process that still runs.
pub(crate) fn alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X') | None)
}

/// Sends `signal` to `pid`, if there is such a process.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// A directory with everything one worker needs.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) policy: LogPolicy,
    pub(crate) key: Vec<u8>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::below(tempfile::tempdir().unwrap())
    }

    pub(crate) fn below(dir: TempDir) -> Self {
        for name in ["run", "log", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let directory = dir.path().join("log").to_str().unwrap().to_owned();
        let policy = LogPolicy { directory, max_file_bytes: 1 << 20, max_files: 4 };
        Self { dir, policy, key: vec![7; 32] }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn log(&self) -> PathBuf {
        PathBuf::from(&self.policy.directory)
    }

    /// The gateway's working directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A launch of `script` in the shell.
    pub(crate) fn shell(&self, script: &str) -> Launch {
        let variable =
            |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
        Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            environment: vec![variable("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")],
            working_directory: self.home().to_str().unwrap().into(),
            notify: false,
            walls: None,
        }
    }

    pub(crate) fn bootstrap(&self, launch: Launch) -> Bootstrap {
        Bootstrap {
            instance: "main".into(),
            run_dir: self.run().to_str().unwrap().into(),
            epoch: 1,
            log: Some(self.policy.clone()),
            run: Some(Run { incarnation: 1, launch: Some(launch) }),
            key: self.key.clone(),
        }
    }

    /// Starts a worker that runs `launch` as incarnation 1, and returns once the gateway runs.
    pub(crate) fn start(&self, launch: Launch) -> (Worker, Link, Started) {
        self.start_by(Command::new(WORKER), launch)
    }

    /// The same with a worker that is executed in its own way.
    pub(crate) fn start_by(&self, worker: Command, launch: Launch) -> (Worker, Link, Started) {
        let (worker, mut link) = Worker::spawn(worker);
        link.order(Demand::Bootstrap(self.bootstrap(launch)));
        link.state();
        let started = link.started();
        (worker, link, started)
    }

    pub(crate) fn start_shell(&self, script: &str) -> (Worker, Link, Started) {
        self.start(self.shell(script))
    }

    /// Connects to the worker's socket. Works however long the path is.
    pub(crate) fn connect(&self) -> Link {
        let run = fs::File::open(self.run()).unwrap();
        let path = format!("/proc/self/fd/{}/worker.sock", std::os::fd::AsRawFd::as_raw_fd(&run));
        Link::new(UnixStream::connect(path).unwrap())
    }

    pub(crate) fn attach(&self, role: Role, epoch: u64) -> (Link, State) {
        let mut link = self.connect();
        link.attach(role, epoch, &self.key);
        let state = link.state();
        (link, state)
    }

    /// The number that the gateway writes to `file` in its working directory.
    pub(crate) fn number(&self, file: &str) -> i32 {
        let mut number = None;
        eventually(file, || {
            let text = fs::read_to_string(self.home().join(file)).unwrap_or_default();
            number = text.strip_suffix('\n').and_then(|text| text.trim().parse().ok());
            number.is_some()
        });
        number.unwrap()
    }

    /// A named pipe in the gateway's working directory, for it to wait at.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.home().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// Everything captured, in order.
    pub(crate) fn captured(&self) -> String {
        let bytes: Vec<u8> = self.log_files().iter().flat_map(|path| fs::read(path).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn log_files(&self) -> Vec<PathBuf> {
        files(&self.log(), "log")
    }
}

/// The numbered files of a log directory, in order.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("/gateway-") && path.extension().unwrap() == extension)
        .collect();
    files.sort();
    files
}

/// A worker's process. Dropping it ends it, and with it its gateway.
pub(crate) struct Worker(Child);

impl Worker {
    /// Starts `command` with one end of a socket as its standard input.
    pub(crate) fn spawn(mut command: Command) -> (Self, Link) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        (Self(child), Link::new(ours))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the worker has exited", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if ended(&mut self.0) {
            return;
        }
        signal(self.pid(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ended(&mut self.0) && Instant::now() < deadline {
            pause();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An order as it goes over the wire.
pub(crate) fn frame(demand: Demand) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&Order { order: Some(demand) }, &mut bytes);
    bytes
}

/// One connection to a worker.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
    inbox: Vec<u8>,
}

impl Link {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, inbox: Vec::new() }
    }

    pub(crate) fn order(&mut self, demand: Demand) {
        self.bytes(&frame(demand));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Writes `bytes` over and over, 64 MiB at most. True if the worker hung up.
    pub(crate) fn hangs_up_on(&mut self, bytes: &[u8]) -> bool {
        let rounds = (64 << 20) / bytes.len();
        (0..rounds).any(|_| self.stream.write_all(bytes).is_err())
    }

    pub(crate) fn attach(&mut self, role: Role, epoch: u64, key: &[u8]) {
        self.order(Demand::Attach(Attach { role: role.into(), epoch, key: key.to_vec() }));
    }

    pub(crate) fn run(&mut self, incarnation: u64) {
        self.order(Demand::Run(Run { incarnation, launch: None }));
    }

    pub(crate) fn stop(&mut self, incarnation: u64, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap();
        self.order(Demand::Stop(Stop { incarnation, grace_ms }));
    }

    pub(crate) fn kill(&mut self, incarnation: u64) {
        self.order(Demand::Kill(Kill { incarnation }));
    }

    /// The next report, or `None` at the connection's end.
    pub(crate) fn next(&mut self) -> Option<Body> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(report) = frame::decode::<Report>(&mut self.inbox).unwrap() {
                return Some(report.report.unwrap());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.inbox.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no report within {PATIENCE:?}: {error}"),
            }
        }
    }

    pub(crate) fn state(&mut self) -> State {
        match self.next() {
            Some(Body::State(state)) => state,
            other => panic!("not a state: {other:?}"),
        }
    }

    pub(crate) fn started(&mut self) -> Started {
        match self.next() {
            Some(Body::Started(started)) => started,
            other => panic!("not a start: {other:?}"),
        }
    }

    pub(crate) fn exited(&mut self) -> Exited {
        match self.next() {
            Some(Body::Exited(exited)) => exited,
            other => panic!("not an exit: {other:?}"),
        }
    }

    pub(crate) fn refused(&mut self) -> Refused {
        match self.next() {
            Some(Body::Refused(refused)) => refused,
            other => panic!("not a refusal: {other:?}"),
        }
    }
}

pub(crate) fn pid(started: &Started) -> i32 {
    started.process.unwrap().pid
}

pub(crate) const KILLED: Option<How> = Some(How::Signal(9));
pub(crate) const TERMINATED: Option<How> = Some(How::Signal(15));
