//! What every row needs: the programs, the child, a place, and how often.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::{Arguments, child, watch};

/// The first port that anything here uses.
pub(crate) const FIRST_PORT: u16 = 10_000;

/// The last, below the kernel's ephemeral range.
pub(crate) const LAST_PORT: u16 = 32_767;

/// Ports of an instance's block.
const BLOCK: u16 = 20;

/// What every row needs.
#[derive(Debug)]
pub(crate) struct Bench {
    directory: PathBuf,
    programs: PathBuf,
    /// The compiled child.
    pub(crate) child: PathBuf,
    /// How often a row is measured.
    pub(crate) runs: usize,
    /// How often a row is that starts a whole fleet.
    pub(crate) fleet_runs: usize,
    /// Instances of a whole fleet.
    pub(crate) instances: u16,
    /// How long an idle fleet is watched.
    pub(crate) idle: Duration,
    places: Cell<u32>,
}

impl Bench {
    /// Builds the programs and the child.
    pub(crate) fn prepare(arguments: &Arguments, directory: PathBuf) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("failed to find the workspace")?;
        let programs = root.join("target/dist");
        if !arguments.no_build {
            build(root, &programs)?;
        }
        let instances = u16::try_from(arguments.instances).context("failed to count the instances")?;
        let runs = usize::try_from(arguments.runs).context("failed to count the runs")?;
        let child = child::compile(&directory)?;
        check_ports(instances)?;
        Ok(Self {
            directory,
            programs,
            child,
            runs,
            fleet_runs: runs.div_ceil(5),
            instances,
            idle: Duration::from_secs(arguments.idle.into()),
            places: Cell::new(0),
        })
    }

    /// A program of the workspace.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        anyhow::ensure!(path.exists(), "{} is missing: run without --no-build", path.display());
        Ok(path)
    }

    /// A fresh directory. It stays until the harness ends: ext4 looks for an inode that was not deleted just now
    /// (`recently_deleted` in fs/ext4/ialloc.c), so what the last row removed would slow the next one down.
    pub(crate) fn place(&self) -> anyhow::Result<PathBuf> {
        let number = self.places.get();
        self.places.set(number + 1);
        let place = self.directory.join(number.to_string());
        fs::create_dir(&place).context("failed to make a directory for a row")?;
        Ok(place)
    }

    /// `count` ports, one after the other, for what does not choose its own.
    pub(crate) fn ports(count: u16) -> Vec<u16> {
        (FIRST_PORT..).take(count.into()).collect()
    }
}

/// Builds what is measured, as it is shipped.
fn build(root: &Path, programs: &Path) -> anyhow::Result<()> {
    let status = Command::new(root.join("deploy/build"))
        .arg(programs)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("failed to run deploy/build")?;
    anyhow::ensure!(status.success(), "failed to build the programs: {status}");
    Ok(())
}

/// A stranger on one of the ports would be taken for an instance, or keep one from starting.
fn check_ports(instances: u16) -> anyhow::Result<()> {
    let last = FIRST_PORT.saturating_add(instances.saturating_mul(BLOCK)).min(LAST_PORT);
    let taken: Vec<u16> = (FIRST_PORT..=last).filter(|port| watch::is_listening(*port)).take(3).collect();
    anyhow::ensure!(
        taken.is_empty(),
        "the ports {FIRST_PORT} to {last} must be free; others listen on {taken:?}"
    );
    Ok(())
}
