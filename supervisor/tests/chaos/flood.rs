//! A gateway that floods: it listens on its port and writes numbered lines in bursts, faster than anybody reads.
//!
//! It also leaves a process behind that has left its session, to be found by whoever ends the instance.

use std::{
    io::{self, Write},
    net::TcpListener,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

/// Lines of one burst: more than any pipe holds.
const BURST: u64 = 4_096;

/// Between two bursts, so that fifty of these leave the host something to do the rest with.
const PAUSE: Duration = Duration::from_millis(500);

/// The program that is left behind.
pub(crate) const STRAY: &str = "sleep";

/// Runs until killed.
pub(crate) fn run(port: u16) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("failed to listen")?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Command::new("setsid")
        .args(["-f", STRAY, "86400"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("failed to leave a process behind")?;
    let mut out = io::stdout().lock();
    for burst in 0_u64.. {
        for line in 0..BURST {
            writeln!(out, "{:>12} {:-<60}", burst * BURST + line, "").context("failed to write")?;
        }
        out.flush().context("failed to write")?;
        thread::park_timeout(PAUSE);
    }
    Ok(ExitCode::SUCCESS)
}
