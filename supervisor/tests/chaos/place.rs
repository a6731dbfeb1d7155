//! The supervisor, its data directory and its ports.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::{guard, processes};

/// Ports of a slot: a block for each of 80 instances.
const SLOT_PORTS: u16 = 1_600;

/// Slots, from where common services end to where the other tests' begin.
const SLOTS: u16 = 6;

/// First port of the first slot.
const FIRST: u16 = 11_000;

/// A supervisor that ended by itself is started again after this long, as systemd would.
const START_AGAIN: Duration = Duration::from_millis(300);

/// Why there is no supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The monkey killed it.
    Killed,
    /// It ended by itself because the disk was full when it began.
    Starved,
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The small disk, if it could be mounted.
    pub(crate) disk: Option<PathBuf>,
    _slot: Flock<File>,
    supervisor: Option<Child>,
    absent: Option<(Absence, Instant)>,
    /// Whether the disk has been full since the supervisor was started.
    pub(crate) starved: bool,
    /// Supervisors started.
    pub(crate) lives: u32,
}

/// The programs that the workspace builds.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_openclaw-supervisor")).with_file_name(name);
    ensure!(beside.exists(), "{} is missing: run `cargo build --workspace` first", beside.display());
    Ok(beside)
}

impl Place {
    /// A data directory on the small disk, with a pool that no other run uses.
    pub(crate) fn prepare(directory: PathBuf) -> anyhow::Result<Self> {
        let (slot, first) = take_slot()?;
        let disk = directory.join(guard::DISK);
        let data_dir = disk.join("data");
        fs::create_dir(&data_dir).context("failed to make the data directory")?;
        let last = first + SLOT_PORTS - 1;
        // Half an hour of storm makes some hundred thousand events, and none may be trimmed.
        let settings = format!("pool: {{ first: {first}, last: {last} }}\nevents: {{ keep: 3000000 }}\n");
        fs::write(data_dir.join("settings.yaml"), settings).context("failed to write the settings")?;
        let disk = guard::is_mounted(&disk).then_some(disk);
        Ok(Self {
            directory,
            data_dir,
            disk,
            _slot: slot,
            supervisor: None,
            absent: None,
            starved: false,
            lives: 0,
        })
    }

    /// Where the supervisor writes its log: not on the small disk.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("supervisor.log")
    }

    /// Starts a supervisor, and does not wait for it.
    pub(crate) fn start_supervisor(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.context("failed to open the supervisor's log")?;
        let child = Command::new(program("openclaw-supervisor")?)
            .arg("--data-dir")
            .arg(&self.data_dir)
            // As it is shipped: with an arena for each thread and core, what bursts leave behind adds up.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("failed to start a supervisor")?;
        self.supervisor = Some(child);
        self.absent = None;
        self.starved = false;
        self.lives += 1;
        Ok(())
    }

    /// The living supervisor's process.
    pub(crate) fn supervisor(&self) -> Option<processes::Identity> {
        let pid = self.supervisor.as_ref()?.id().cast_signed();
        processes::identify(pid)
    }

    /// Kills it with SIGKILL; says whether there was one.
    pub(crate) fn kill_supervisor(&mut self) -> anyhow::Result<bool> {
        let Some(mut child) = self.supervisor.take() else { return Ok(false) };
        child.kill().context("failed to kill the supervisor")?;
        let status = child.wait().context("failed to wait for the supervisor")?;
        ensure!(status.signal() == Some(9), "the supervisor ended by itself: {status}; see its log");
        self.absent = Some((Absence::Killed, Instant::now()));
        Ok(true)
    }

    /// Notices a supervisor that has ended by itself, which only a full disk excuses, and starts it again.
    pub(crate) fn tend(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.supervisor
            && let Some(status) = child.try_wait().context("failed to look after the supervisor")?
        {
            if !self.starved {
                bail!("the supervisor ended by itself: {status}; see its log");
            }
            self.supervisor = None;
            self.absent = Some((Absence::Starved, Instant::now()));
        }
        match self.absent {
            Some((Absence::Starved, since)) if since.elapsed() > START_AGAIN => {
                let starved = self.starved;
                self.start_supervisor()?;
                self.starved = starved;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether there is neither a supervisor nor anybody who will start one.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self.absent, Some((Absence::Killed, _)))
    }

    /// Waits for the end of a supervisor that was told to end.
    pub(crate) fn wait_for_end(&mut self, patience: Duration) -> anyhow::Result<()> {
        let Some(mut child) = self.supervisor.take() else { bail!("there is no supervisor") };
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait().context("failed to wait for the supervisor")? {
                ensure!(status.success(), "the supervisor ended with {status}; see its log");
                return Ok(());
            }
            if Instant::now() > deadline {
                self.supervisor = Some(child);
                bail!("the supervisor did not end within {patience:?}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// What names the data directory in the mark of each process.
    pub(crate) fn store_id(&self) -> anyhow::Result<String> {
        let db = rusqlite::Connection::open(self.data_dir.join("supervisor.db"));
        let db = db.context("failed to open the store")?;
        db.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| row.get(0))
            .context("failed to read the store's name")
    }

    /// The run directory of an instance.
    pub(crate) fn run_dir(&self, instance: &str) -> PathBuf {
        self.data_dir.join("run").join(instance)
    }
}

/// A slot of ports that no other run has.
fn take_slot() -> anyhow::Result<(Flock<File>, u16)> {
    // Each user has slots of their own; others' ports are avoided by beginning elsewhere.
    let user = rustix::process::getuid().as_raw();
    let directory = std::env::temp_dir().join(format!("openclaw-supervisor-chaos-slots-{user}"));
    fs::create_dir_all(&directory).context("failed to make the directory of slots")?;
    let begin = u16::try_from(user % u32::from(SLOTS)).unwrap_or(0);
    for slot in (0..SLOTS).map(|number| (begin + number) % SLOTS) {
        let file = File::create(directory.join(slot.to_string())).context("failed to make a slot")?;
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            return Ok((lock, FIRST + slot * SLOT_PORTS));
        }
    }
    bail!("{SLOTS} runs are at it already, and there are ports for no more")
}
