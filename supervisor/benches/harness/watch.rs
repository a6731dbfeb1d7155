//! Sees from outside who listens and who is dead.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// The longest that anything may take, on a loaded machine and with a fleet.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a fleet that is on its way: fine enough for a figure in seconds, and next to no work.
const PAUSE: Duration = Duration::from_millis(1);

/// A process, held by a descriptor so that its pid cannot become another's.
#[derive(Debug)]
pub(crate) struct Victim {
    pid: Pid,
    handle: OwnedFd,
}

impl Victim {
    /// The living process `pid`.
    pub(crate) fn new(pid: i32) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(pid).context("no process has the pid 0")?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).context("failed to open the victim")?;
        Ok(Self { pid, handle })
    }

    /// `kill -9`. Its moment is when the measurement begins.
    pub(crate) fn kill(&self) -> anyhow::Result<Instant> {
        let moment = Instant::now();
        kill_process(self.pid, Signal::KILL).context("failed to kill the victim")?;
        Ok(moment)
    }

    /// Sleeps until it is dead, and all its sockets with it.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        let mut watched = [PollFd::new(&self.handle, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).context("failed to wait for a death")?;
        let dead = poll(&mut watched, Some(&patience)).context("failed to wait for a death")?;
        anyhow::ensure!(dead > 0, "process {} did not die", self.pid);
        Ok(())
    }
}

/// A connection to a port of this host, if somebody listens. Closing it leaves no TIME_WAIT behind.
fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    let _ = setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
    Some(stream)
}

/// Whether somebody listens.
pub(crate) fn is_listening(port: u16) -> bool {
    connect(port).is_some()
}

/// Whether `GET /readyz` answers 200.
pub(crate) fn is_ready(port: u16) -> bool {
    let ask = || {
        let mut stream = connect(port)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).ok()?;
        Some(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// Asks again and again until it is so, and in between lets run whoever wants to: a pause would be measured as well,
/// and a loop that never yields would keep one of two processors from what is measured.
pub(crate) fn at_once(what: &str, is: impl Fn() -> bool) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let so = is();
        let moment = Instant::now();
        if so {
            return Ok(moment);
        }
        anyhow::ensure!(moment < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        thread::yield_now();
    }
}

/// Waits until it is so for each of `ports`. What is so for one is taken to stay so.
pub(crate) async fn each(what: &str, ports: &[u16], is: impl Fn(u16) -> bool) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    for port in ports {
        while !is(*port) {
            anyhow::ensure!(
                Instant::now() < deadline,
                "{what}: port {port} was not so within {} s",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(Instant::now())
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is: impl Fn() -> std::io::Result<bool>) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while !is().with_context(|| format!("failed to see whether {what}"))? {
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Instant::now())
}
