//! What the monkey has done and has to undo: each wound is closed when its time has come, or when calm begins.

use std::{
    fs::{self, File},
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use rustix::{
    fd::OwnedFd,
    process::{Signal, pidfd_send_signal},
};
use serde_json::json;

use crate::{ledger::Ledger, place::Place};

/// The file that fills the disk.
const BALLAST: &str = "ballast";

/// Written at a time, large and then small, until nothing fits any more.
const CHUNKS: [usize; 2] = [1 << 20, 1 << 12];

/// How a wound is closed.
#[derive(Debug)]
pub(crate) enum Cure {
    /// SIGCONT.
    Continue(OwnedFd),
    /// The port is let go.
    Release(#[expect(dead_code, reason = "held, never read")] TcpListener),
    /// The file is as it was.
    Mend { path: PathBuf, content: Vec<u8> },
    /// The disk has room again.
    Free,
    /// A supervisor is started.
    Start,
}

/// Something that was done.
#[derive(Debug)]
struct Wound {
    subject: String,
    due: Instant,
    cure: Cure,
}

/// All that is open.
#[derive(Debug, Default)]
pub(crate) struct Wounds(Vec<Wound>);

impl Wounds {
    /// A new one, to be closed when `due`.
    pub(crate) fn open(&mut self, subject: &str, due: Instant, cure: Cure) {
        self.0.push(Wound { subject: subject.to_owned(), due, cure });
    }

    /// Whether nothing is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the disk is being kept full.
    pub(crate) fn disk_is_full(&self) -> bool {
        self.0.iter().any(|wound| matches!(wound.cure, Cure::Free))
    }

    /// Whether a file has been spoilt already.
    pub(crate) fn is_spoilt(&self, file: &Path) -> bool {
        self.0.iter().any(|wound| matches!(&wound.cure, Cure::Mend { path, .. } if path == file))
    }

    /// Closes what is due by `now`; what cannot be closed yet stays open.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        place: &mut Place,
        ledger: &mut Ledger,
    ) -> anyhow::Result<()> {
        let (due, later) = std::mem::take(&mut self.0).into_iter().partition(|wound| wound.due <= now);
        self.0 = later;
        for wound in due {
            if let Some(open) = cure(wound, place, ledger)? {
                self.0.push(open);
            }
        }
        Ok(())
    }
}

/// Closes one wound, or gives it back.
fn cure(wound: Wound, place: &mut Place, ledger: &mut Ledger) -> anyhow::Result<Option<Wound>> {
    let kind = match &wound.cure {
        Cure::Continue(held) => match pidfd_send_signal(held, Signal::CONT) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => "continue",
            Err(error) => return Err(error).context("failed to continue a process"),
        },
        Cure::Release(_) => "release the port",
        // On a full disk the next attempt, or the one when calm begins, will do.
        Cure::Mend { path, content } => match fs::write(path, content) {
            Ok(()) => "mend",
            Err(_) => return Ok(Some(wound)),
        },
        Cure::Free => {
            if let Some(disk) = &place.disk {
                fs::remove_file(disk.join(BALLAST)).context("failed to free the disk")?;
            }
            "free the disk"
        }
        Cure::Start => {
            place.start_supervisor()?;
            "start a supervisor"
        }
    };
    ledger.note(kind, json!({ "of": wound.subject }))?;
    Ok(None)
}

/// Takes all room that is left on the disk.
pub(crate) fn fill(disk: &Path) -> anyhow::Result<()> {
    let file = File::options().create(true).append(true).open(disk.join(BALLAST));
    let mut file = file.context("failed to make the ballast")?;
    for size in CHUNKS {
        let chunk = vec![0; size];
        while file.write(&chunk).is_ok_and(|written| written > 0) {}
    }
    Ok(())
}
