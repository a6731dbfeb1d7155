//! One look at all processes of the host, by proc(5).

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    fs::{CWD, Dir, Mode, OFlags, openat},
    io::{self, Errno},
    process::Signal,
};

use super::signal;
use crate::openclaw::environment::{GUEST, MARK};

/// Bound of an environment: the kernel gives arguments and environment 6 MiB together at most (execve(2)).
const ENVIRONMENT: usize = 6 * 1024 * 1024;

/// Taken of an environment at a time. Nearly all fit in.
const CHUNK: usize = 16 * 1024;

/// Bound of `/proc/<pid>/stat`: 52 numbers and a name.
const STAT: usize = 2 * 1024;

/// How often a process without an environment is looked at again: it is about to begin or to end.
const BLANK_TRIES: u32 = 20;

/// Between two such looks.
const BLANK_PAUSE: Duration = Duration::from_millis(1);

/// Lists of processes that a look reads. Whoever is born while one is worked through is in the next; the last has
/// nobody new, unless somebody forks all the time.
const LISTS: u32 = 8;

/// Flags of a process (`include/linux/sched.h`).
const PF_KTHREAD: u64 = 0x0020_0000;

/// A process, so named that the next bearer of its pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// In clock ticks since boot.
    pub(super) started: u64,
}

/// A process as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) identity: Identity,
    pub(super) parent: i32,
    pub(super) session: i32,
    pub(super) state: State,
    pub(super) mark: Mark,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It runs, or will when what it waits for comes.
    Running,
    /// It does not run a line of its program before it is told to: stopped, or in the middle of a system call
    /// that no signal ends.
    Still,
    /// It has ended, whether its parent knows or not.
    Dead,
}

/// Whose mark a process carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nobody's.
    None,
    /// That of the sweep with this index.
    Sought(usize),
    /// The same, of what a person has run there, in a session of his own.
    Guest(usize),
    /// That of another instance.
    Other,
    /// It could not be seen: the process is just executing its program, or ending.
    Blank,
}

/// Looks at processes.
#[derive(Debug)]
pub(super) struct Looker {
    proc: OwnedFd,
    buffer: Vec<u8>,
}

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug)]
struct Stat {
    started: u64,
    parent: i32,
    session: i32,
    state: State,
    /// The main thread has ended and others have not.
    headless: bool,
    flags: u64,
    /// 0 while there is no program in memory.
    environment_end: u64,
}

impl Looker {
    /// Opens `/proc`, so that a look fails for want of few things.
    pub(super) fn open() -> std::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, "/proc", flags, Mode::empty())?;
        Ok(Self { proc, buffer: vec![0; CHUNK] })
    }

    /// All processes there are, without the kernel's own. Each that carries a mark is sent the signal of its sweep on
    /// sight. An error is one of the look as a whole: what cannot be read for want of memory or file descriptors may
    /// be just what is sought.
    pub(super) fn all(&mut self, marks: &HashMap<&[u8], usize>, signals: &[Signal]) -> io::Result<Vec<Seen>> {
        let (mut seen, mut known) = (Vec::new(), HashSet::new());
        for _ in 0..LISTS {
            let listed = self.pids("")?;
            let first = seen.len();
            for pid in listed {
                if known.insert(pid)
                    && let Some(one) = self.one(pid, marks)?
                {
                    self.stop(&one, signals);
                    seen.push(one);
                }
            }
            if first == seen.len() {
                break;
            }
            self.wait_for_marks(&mut seen[first..], marks, signals)?;
        }
        // One huge environment is no reason to keep so much memory.
        self.buffer.truncate(CHUNK);
        self.buffer.shrink_to_fit();
        Ok(seen)
    }

    /// Looks again at those that were just executing a program.
    fn wait_for_marks(
        &mut self,
        seen: &mut [Seen],
        marks: &HashMap<&[u8], usize>,
        signals: &[Signal],
    ) -> io::Result<()> {
        for _ in 0..BLANK_TRIES {
            let blank: Vec<usize> = (0..seen.len()).filter(|&i| seen[i].mark == Mark::Blank).collect();
            if blank.is_empty() {
                break;
            }
            thread::park_timeout(BLANK_PAUSE);
            for i in blank {
                match self.one(seen[i].identity.pid, marks)? {
                    Some(now) if now.identity == seen[i].identity => {
                        self.stop(&now, signals);
                        seen[i] = now;
                    }
                    Some(_) | None => {
                        seen[i].state = State::Dead;
                        seen[i].mark = Mark::None;
                    }
                }
            }
        }
        Ok(())
    }

    /// A look takes longer than some processes live that fork the next of their kind first: by its end there would be
    /// nobody left to send a signal to.
    fn stop(&mut self, seen: &Seen, signals: &[Signal]) {
        if let Mark::Sought(sweep) = seen.mark
            && seen.state == State::Running
            && let Some(signal) = signals.get(sweep)
        {
            signal::send(self, seen.identity, *signal);
        }
    }

    /// What a process does now.
    pub(super) fn state(&mut self, process: Identity) -> io::Result<State> {
        let stat = self.stat(process.pid)?.filter(|stat| stat.started == process.started);
        Ok(stat.map_or(State::Dead, |stat| stat.state))
    }

    fn one(&mut self, pid: i32, marks: &HashMap<&[u8], usize>) -> io::Result<Option<Seen>> {
        let Some(stat) = self.stat(pid)?.filter(|stat| stat.flags & PF_KTHREAD == 0) else { return Ok(None) };
        let mark = match stat.state {
            State::Dead => Mark::None,
            State::Running | State::Still => self.mark(pid, &stat, marks)?,
        };
        let identity = Identity { pid, started: stat.started };
        Ok(Some(Seen { identity, parent: stat.parent, session: stat.session, state: stat.state, mark }))
    }

    fn mark(&mut self, pid: i32, stat: &Stat, marks: &HashMap<&[u8], usize>) -> io::Result<Mark> {
        let mut file = format!("{pid}/environ");
        if stat.headless {
            // The main thread has taken its view of the memory with it.
            let threads = self.pids(&format!("{pid}/task"))?;
            if let Some(other) = threads.into_iter().find(|&thread| thread != pid) {
                file = format!("{pid}/task/{other}/environ");
            }
        }
        let length = match self.read(&file, ENVIRONMENT) {
            Ok(length) => length.unwrap_or(0),
            // Another user's, or a program that hides its memory: such a one is known by its parent.
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Mark::None),
            Err(error) => return Err(error),
        };
        if length == 0 && stat.environment_end == 0 {
            return Ok(Mark::Blank);
        }
        let variable = |name: &str| {
            let mut variables = self.buffer[..length].split(|&byte| byte == 0);
            variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        };
        Ok(match variable(MARK).map(|mark| marks.get(mark)) {
            Some(Some(&sought)) if variable(GUEST).is_some() => Mark::Guest(sought),
            Some(Some(&sought)) => Mark::Sought(sought),
            Some(None) => Mark::Other,
            None => Mark::None,
        })
    }

    fn stat(&mut self, pid: i32) -> io::Result<Option<Stat>> {
        let file = format!("{pid}/stat");
        match self.read(&file, STAT) {
            Ok(length) => Ok(length.and_then(|length| Stat::parse(&self.buffer[..length]))),
            Err(Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The numbers among the names in a directory of `/proc`.
    fn pids(&mut self, directory: &str) -> io::Result<Vec<i32>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = if directory.is_empty() { "." } else { directory };
        let directory = match openat(&self.proc, directory, flags, Mode::empty()) {
            Ok(directory) => Dir::new(directory)?,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut pids = Vec::new();
        for entry in directory {
            pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// Reads the beginning of a file of `/proc` into the buffer. `None`: its process is gone.
    fn read(&mut self, file: &str, most: usize) -> io::Result<Option<usize>> {
        let file = match openat(&self.proc, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut length = 0;
        while length < most {
            self.buffer.resize(self.buffer.len().max(length + CHUNK), 0);
            match io::read(&file, &mut self.buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(length.min(most)))
    }
}

impl Stat {
    /// The name, in parentheses, may itself hold spaces and parentheses; after the last one come numbers.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // Numbers of the fields as in proc(5), where the first after the name is 3.
        let mut next = 3;
        let mut field = |number: usize| {
            let skipped = number - next;
            next = number + 1;
            fields.nth(skipped)
        };
        let letter = field(3)?;
        let parent = field(4)?.parse().ok()?;
        let session = field(6)?.parse().ok()?;
        let flags = field(9)?.parse().ok()?;
        let threads: u32 = field(20)?.parse().ok()?;
        let started = field(22)?.parse().ok()?;
        let environment_end = field(51)?.parse().ok()?;
        let headless = letter == "Z" && threads > 1;
        let state = match letter {
            "Z" if headless => State::Running,
            "Z" | "X" | "x" => State::Dead,
            "T" | "t" | "D" => State::Still,
            _ => State::Running,
        };
        Some(Self { started, parent, session, state, headless, flags, environment_end })
    }
}
