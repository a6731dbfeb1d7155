//! The tools of today that keep a process per service: s6, runit and daemontools.
//!
//! Each is given what serves it best: the child itself as `./run`, no log, no finish script, and a child that has
//! been up for a while, as runit holds back a service that dies within its first second. (s6 waits a second before
//! every restart, and nothing shortens that.)

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    bench::Bench,
    processes,
    stats::Samples,
    watch::{self, Victim},
};

/// A tool of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// skarnet's s6.
    S6,
    /// Gerrit Pape's runit.
    Runit,
    /// Daniel J. Bernstein's daemontools.
    Daemontools,
}

/// Beyond it runit does not hold a restart back.
const SETTLED: Duration = Duration::from_millis(1_200);

/// A restart by a peer is measured at most so often: each takes more than a second.
const RUNS: usize = 25;

impl Peer {
    /// All of them.
    const ALL: [Self; 3] = [Self::S6, Self::Runit, Self::Daemontools];

    /// Those that are on PATH. The others are named on standard error.
    pub(crate) fn installed() -> Vec<Self> {
        let on_path = |program: &str| {
            env::var_os("PATH")
                .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).exists()))
        };
        let (here, absent): (Vec<Self>, Vec<Self>) =
            Self::ALL.into_iter().partition(|peer| on_path(peer.scanner()));
        for peer in absent {
            eprintln!("  {} is not installed", peer.name());
        }
        here
    }

    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S6 => "s6",
            Self::Runit => "runit",
            Self::Daemontools => "daemontools",
        }
    }

    fn scanner(self) -> &'static str {
        match self {
            Self::S6 => "s6-svscan",
            Self::Runit => "runsvdir",
            Self::Daemontools => "svscan",
        }
    }

    fn command(self, directory: &Path) -> Command {
        let mut command = Command::new(self.scanner());
        match self {
            // Its default is 500 services.
            Self::S6 => command.args(["-c", "2000"]).arg(directory),
            Self::Runit | Self::Daemontools => command.arg(directory),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// From nothing but service directories to `count` children listening.
    pub(crate) async fn start_many(self, bench: &Bench, count: u16) -> anyhow::Result<Duration> {
        let ports = Bench::ports(count);
        let (running, begun) = Running::start(self, bench, &ports)?;
        let what = format!("the children of {} listen", self.name());
        let listening = watch::each(&what, &ports, watch::is_listening).await;
        drop(running);
        Ok(listening? - begun)
    }

    /// From `kill -9` of a child to its successor listening.
    pub(crate) async fn restart(self, bench: &Bench) -> anyhow::Result<Samples> {
        let ports = Bench::ports(1);
        let (running, _) = Running::start(self, bench, &ports)?;
        let outcome = restarts(&running, &ports, bench.runs.min(RUNS)).await;
        drop(running);
        Samples::new(outcome.with_context(|| format!("failed to measure {}", self.name()))?)
    }
}

async fn restarts(running: &Running, ports: &[u16], runs: usize) -> anyhow::Result<Vec<Duration>> {
    watch::each("the child listens", ports, watch::is_listening).await?;
    let port = *ports.first().context("there is no port")?;
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        tokio::time::sleep(SETTLED).await;
        let victim = Victim::new(processes::child_of(running.supervisor()?)?)?;
        let killed = victim.kill()?;
        victim.wait()?;
        samples.push(watch::at_once("the successor listens", || watch::is_listening(port))? - killed);
    }
    Ok(samples)
}

/// A peer at work.
#[derive(Debug)]
struct Running {
    scanner: Child,
}

impl Running {
    /// Makes the service directories, then starts the scanner, at the moment that is returned.
    fn start(peer: Peer, bench: &Bench, ports: &[u16]) -> anyhow::Result<(Self, Instant)> {
        let directory = bench.place()?;
        for port in ports {
            let service = directory.join(port.to_string());
            fs::create_dir(&service).context("failed to make a service directory")?;
            symlink(&bench.child, service.join("run")).context("failed to make a service")?;
        }
        let begun = Instant::now();
        let scanner = peer.command(&directory).spawn().context("failed to start a peer")?;
        Ok((Self { scanner }, begun))
    }

    /// The process that supervises the only service.
    fn supervisor(&self) -> anyhow::Result<i32> {
        processes::child_of(self.scanner.id().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First the scanner, which would start anew what is killed below it.
        let _ = self.scanner.kill();
        let _ = self.scanner.wait();
        processes::end_all();
    }
}
