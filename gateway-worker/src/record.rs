//! Exits that the supervisor has not yet made its own, kept so that no crash of either side forgets one.
//!
//! The file `exits` in the run directory holds `Exited` messages in the frames of the wire, one after
//! another. An exit is appended before it is reported, and the file is emptied when all of them are
//! acknowledged. Writing is enough to survive the death of this process; only the death of the host needs
//! fsync, which takes milliseconds, so it waits until the worker has nothing better to do, and is mostly
//! spared by the acknowledgement. A worker that is started in a used run directory reads what the one before
//! it left.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::libc;
use supervisor_proto::frame;
use supervisor_proto::worker::Exited;

use crate::complain::complain;

const FILE: &str = "exits";
const REPLACEMENT: &str = "exits.new";

/// Exits kept without acknowledgement. A supervisor that runs further incarnations but cannot store their
/// exits has long lost count of them; the newest are the ones that matter. The file holds at most twice as
/// many.
const MAX_KEPT: usize = 256;

/// Bytes of an old file that are read: far more than that many exits need.
const MAX_READ: u64 = 256 << 10;

/// How the file stands against what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Both agree, and would survive the host.
    Durable,
    /// Both agree as long as the host lives.
    Written,
    /// The file lacks something or holds too much; it has to be replaced.
    Behind,
}

/// The record of exits.
#[derive(Debug)]
pub(crate) struct Exits {
    file: File,
    /// Bytes of whole records in the file.
    length: u64,
    /// Records in the file.
    records: usize,
    kept: VecDeque<Exited>,
    standing: Standing,
}

impl Exits {
    /// Opens the record in the current directory and reads what an earlier worker left. A last record that
    /// was cut short by a crash is taken off.
    pub(crate) fn open() -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(FILE)?;
        let mut bytes = Vec::new();
        (&file).take(MAX_READ).read_to_end(&mut bytes)?;
        let (mut kept, length) = read(bytes);
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        let records = kept.len();
        kept.drain(..records.saturating_sub(MAX_KEPT));
        let standing = if records == 0 { Standing::Durable } else { Standing::Written };
        Ok(Self { file, length, records, kept, standing })
    }

    /// Records `exit`. If the file cannot take it, it is kept in memory and written by a later `settle`.
    pub(crate) fn append(&mut self, exit: Exited) {
        let mut record = Vec::new();
        frame::encode(&exit, &mut record);
        self.kept.push_back(exit);
        if self.kept.len() > MAX_KEPT {
            self.kept.pop_front();
        }
        if self.standing == Standing::Behind || self.records >= 2 * MAX_KEPT {
            self.standing = Standing::Behind;
            return;
        }
        match self.file.write_all_at(&record, self.length) {
            Ok(()) => {
                self.length += record.len() as u64;
                self.records += 1;
                self.standing = Standing::Written;
            }
            Err(error) => {
                complain(format_args!("failed to record an exit: {error}"));
                self.standing = Standing::Behind;
            }
        }
    }

    /// Forgets the exits up to `incarnation`, which are durable elsewhere.
    pub(crate) fn acknowledge(&mut self, incarnation: u64) {
        self.kept.retain(|exit| exit.incarnation > incarnation);
        if !self.kept.is_empty() || self.records == 0 {
            return;
        }
        match self.file.set_len(0) {
            Ok(()) => {
                self.length = 0;
                self.records = 0;
                self.standing = Standing::Durable;
            }
            Err(error) => complain(format_args!("failed to empty the record of exits: {error}")),
        }
    }

    /// Exits not yet acknowledged, oldest first.
    pub(crate) fn unacknowledged(&self) -> Vec<Exited> {
        self.kept.iter().cloned().collect()
    }

    /// Whether [`Exits::settle`] has something to do.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.standing != Standing::Durable
    }

    /// Makes the record survive the host. May take many milliseconds.
    pub(crate) fn settle(&mut self) {
        let outcome = match self.standing {
            Standing::Durable => Ok(()),
            Standing::Written => self.file.sync_data(),
            Standing::Behind => self.replace(),
        };
        match outcome {
            Ok(()) => self.standing = Standing::Durable,
            Err(error) => complain(format_args!("failed to make the record of exits durable: {error}")),
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for exit in &self.kept {
            frame::encode(exit, &mut bytes);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(REPLACEMENT)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(REPLACEMENT, FILE)?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.records = self.kept.len();
        Ok(())
    }
}

/// The whole records at the front of `bytes`, and how many bytes they take.
fn read(mut bytes: Vec<u8>) -> (VecDeque<Exited>, u64) {
    let total = bytes.len();
    let mut exits = VecDeque::new();
    while let Ok(Some(exit)) = frame::decode(&mut bytes) {
        exits.push_back(exit);
    }
    (exits, (total - bytes.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_anywhere_yields_the_whole_ones_before_it() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for incarnation in 1..=3 {
            frame::encode(&Exited { incarnation, pid: 7, ..Exited::default() }, &mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rposition(|&end| end <= cut).unwrap();
            let (exits, length) = read(bytes[..cut].to_vec());
            assert_eq!(exits.len(), whole);
            assert_eq!(length, ends[whole] as u64);
        }
    }
}
