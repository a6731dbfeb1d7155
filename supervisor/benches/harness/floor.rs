//! The floor: what the kernel asks for the same work, without a supervisor.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    bench::{Bench, FIRST_PORT},
    child,
    watch::{self, Victim},
};

/// The bare loop: spawn, wait for death, spawn again.
#[derive(Debug)]
pub(crate) struct Loop<'a> {
    bench: &'a Bench,
    port: u16,
    child: Child,
}

impl<'a> Loop<'a> {
    /// Spawns the first child.
    pub(crate) fn start(bench: &'a Bench, port: u16) -> anyhow::Result<Self> {
        let child = spawn(bench, port)?;
        let this = Self { bench, port, child };
        watch::at_once("the floor's child listens", || watch::is_listening(port))?;
        Ok(this)
    }

    /// From `kill -9` of the child to its successor listening.
    pub(crate) fn turn(&mut self) -> anyhow::Result<Duration> {
        let victim = Victim::new(self.child.id().cast_signed())?;
        let killed = victim.kill()?;
        victim.wait()?;
        self.child.wait().context("failed to reap the floor's child")?;
        self.child = spawn(self.bench, self.port)?;
        let port = self.port;
        let listening = watch::at_once("the floor's child listens", || watch::is_listening(port))?;
        Ok(listening - killed)
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(bench: &Bench, port: u16) -> anyhow::Result<Child> {
    child::command(&bench.child, port).spawn().context("failed to spawn the floor's child")
}

/// From the first of `count` spawns to all of them listening.
pub(crate) async fn start_many(bench: &Bench, count: u16) -> anyhow::Result<Duration> {
    let ports = Bench::ports(count);
    let begun = Instant::now();
    let mut children = Vec::with_capacity(ports.len());
    for port in &ports {
        children.push(spawn(bench, *port)?);
    }
    let listening = watch::each("the floor's children listen", &ports, watch::is_listening).await;
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(listening? - begun)
}

/// How long the child takes to write `bytes` of lines to a file by itself.
pub(crate) async fn write_lines(bench: &Bench, bytes: u64) -> anyhow::Result<Duration> {
    let place = bench.place()?;
    let file = File::create(place.join("lines")).context("failed to make a file for lines")?;
    let port = FIRST_PORT;
    let mut child = Command::new(&bench.child)
        .args([port.to_string(), bytes.to_string()])
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("failed to share a file")?)
        .spawn()
        .context("failed to spawn a child that writes")?;
    // The first connection is also what sets it off.
    let begun = watch::at_once("the child listens", || watch::is_listening(port))?;
    let written = watch::until("the lines are written", || Ok(file.metadata()?.size() >= bytes)).await;
    let _ = child.kill();
    let _ = child.wait();
    // A gibibyte each would fill the disk.
    fs::remove_dir_all(place).context("failed to remove lines")?;
    Ok(written? - begun)
}
