//! Whose the supervisor's own files are, and who else could open them.
//!
//! | found | at the start | by the doctor, later |
//! |---|---|---|
//! | another user's | refused | an error |
//! | others could have changed it | refused: nobody knows what is in it | an error |
//! | others could have read it | closed; told of as an alarm if there are secrets in it | an error, or a warning |
//! | open by its mode, where nobody gets at it | closed | a note |
//! | closed to its own user, or what leads there is | opened to it | an error |
//! | all users may write in what leads there | left so, and closed again if it was not so at first | an error |
//!
//! A mode that is too wide says what this user did, or an earlier version, so it is mended and not a reason to leave
//! gateways without a supervisor. Whoever could write here could have made himself an administrator: that is for a
//! person to look at. Looked at is what the supervisor makes for itself; an instance's own files are its
//! [layout's](crate::openclaw::layout) and the doctor's.

mod private;

use std::{
    fs::{self, File, Metadata, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use tokio::{task, time::sleep};
use tracing::warn;

pub(crate) use self::private::Exposed;
use self::private::{Exposure, Private};
use crate::{alerts, lock, openclaw::snapshots, perform::store, settings, typed::word, web};

/// Of a file that others need not read.
const FILE: u32 = 0o600;

/// Of a directory.
const DIRECTORY: u32 = 0o700;

/// Bits by which others see what is in a directory. They may have to pass: instances can have users of their own.
const SEEN: u32 = 0o066;

/// Bits by which others change a file, or what is in a directory.
const CHANGED: u32 = 0o022;

/// The bit by which all users do.
const CHANGED_BY_ALL: u32 = 0o002;

/// The bit by which they do that to their own alone, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Bits by which others pass a directory.
const PASSED: u32 = 0o011;

/// Bits by which its own user passes a directory, and sees what is in it.
const PASSED_BY_OWNER: u32 = 0o500;

/// The user who may do everything anyway.
const ROOT: u32 = 0;

/// Directories of the data directory that hold what the supervisor alone writes.
const OWN: [&str; 5] = ["pki", "pki/issued", "imports", "upgrades", "runtimes"];

/// Directories with one for each instance.
const OF_INSTANCES: [&str; 2] = [RUN, "instances"];

/// Where workers have their sockets and records.
const RUN: &str = "run";

/// Files with secrets, by what their names begin with: the store's copies and logs are called after it.
const SECRET: [&str; 4] = [store::FILE, "supervisor.log", alerts::FILE, web::KEY_FILE];

/// Secrets below the data directory.
const SECRETS: [&str; 2] = ["pki/ca.key", "pki/server.pem"];

/// What opens a worker's socket, in the directory of its instance.
const WORKER_KEY: &str = "worker.key";

/// More entries than there can be instances; the rest is not looked at.
const MOST_ENTRIES: usize = 10_000;

/// How soon what was opened to others is closed again, and what was closed to its own user opened.
const GUARDED: Duration = Duration::from_secs(60);

/// The same of the data directory itself, without which nobody gets at anything, and of what leads there.
const GUARDED_ITSELF: Duration = Duration::from_secs(2);

/// The supervisor's own files, each in a directory that may be closed to it in its turn.
const DEPTH: usize = 4;

/// What a path is to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Others may pass at most.
    Directory,
    /// Nobody else's.
    Secret,
    /// Others may read it, and root may own it.
    Settings,
    /// Whatever else it is: where it is its own user's, that user gets at it.
    Own,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It belongs to this user.
    Foreign(u32),
    /// Others could have changed it.
    Changed,
    /// Others could have read the secrets in it.
    Read,
    /// Its mode is too wide, and nothing came of it.
    Loose,
    /// Its own user does not get at it.
    Shut,
}

/// A path that is not the supervisor's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Which.
    pub(crate) path: PathBuf,
    /// What is wrong.
    pub(crate) what: What,
    /// Its mode.
    pub(crate) mode: u32,
    /// The mode that it should have.
    pub(crate) should: u32,
}

impl Flaw {
    /// Closes the path to others.
    pub(crate) fn mend(&self) -> io::Result<()> {
        close(&self.path, self.should)
    }
}

/// Why a supervisor does not begin with these files.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// Somebody else has it, and could change it at any time.
    #[error(
        "`{path}` belongs to user {owner}, and this supervisor runs as user {me}; give it to this one with \
         `{}`, run the supervisor as user {owner}, or name another data directory",
        own(path, *me)
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who looks.
        me: u32,
    },
    /// Nobody knows what is in it.
    #[error(
        "other users could change `{path}` (mode {mode:o}), and what it says decides what runs here; see that it is as \
         you left it, then type `chmod {should:o} {}`",
        word(path)
    )]
    Changed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        should: u32,
    },
    /// It cannot be closed to others.
    #[error("failed to close `{path}` to other users; type `chmod {should:o} {}`", word(path))]
    Close {
        /// Which.
        path: PathBuf,
        /// The mode that it should have.
        should: u32,
        /// Why.
        source: io::Error,
    },
}

/// Opens to this user what is closed to it: no wall looks at modes, and an agent of this user can do that. What is in a
/// directory is seen once that is open.
pub(crate) fn open_own(data_dir: &Path) {
    open_way(data_dir);
    for _ in 0..DEPTH {
        let shut: Vec<Flaw> = look(data_dir).into_iter().filter(|flaw| flaw.what == What::Shut).collect();
        let mended = shut.iter().filter(|flaw| flaw.mend().is_ok());
        let mut mended = mended.map(|flaw| flaw.path.display().to_string()).peekable();
        if mended.peek().is_none() {
            return;
        }
        let paths: Vec<String> = mended.collect();
        warn!(?paths, "the supervisor's user did not get at these; it does now");
    }
}

/// The same of the run directory of one instance, where its worker is to be reached.
pub(crate) fn open_run(run_dir: &Path) {
    open_way(&run_dir.join(WORKER_KEY));
    for path in entries(run_dir) {
        let shut = fs::symlink_metadata(&path).ok().and_then(|found| judge(path, Kind::Own, &found, false));
        // Whoever takes it away again is outrun, or not.
        let _ = shut.map(|flaw| flaw.mend());
    }
}

/// Opens to this user the directories of its own that lead to the data directory, such as its home, so far that it passes.
fn open_way(data_dir: &Path) {
    for directory in way(data_dir) {
        // What is behind one that could not be opened cannot be seen.
        let Some(Flaw { path, what: What::Shut, mode, .. }) = judge_way(&directory) else { continue };
        if close(&path, mode | PASSED_BY_OWNER).is_ok() {
            warn!(path = %path.display(), "the supervisor's user did not pass here; it does now");
        }
    }
}

/// Closes those of them where all users of the host could move away what they lead to, but for those that people want so.
fn close_way(data_dir: &Path, wanted: &[PathBuf]) {
    for flaw in look_at_way(data_dir) {
        if flaw.what != What::Changed || wanted.contains(&flaw.path) {
            continue;
        }
        let path = flaw.path.display();
        match flaw.mend() {
            Ok(()) => warn!(%path, "all users could move away what is in it; they cannot now"),
            Err(error) => {
                warn!(%path, %error, "all users can move away what is in it, and it cannot be closed");
            }
        }
    }
}

/// What is wrong with the directories that lead to the data directory, from the root on. Of groups that may write there
/// nothing is known: often a user is its only member.
pub(crate) fn look_at_way(data_dir: &Path) -> Vec<Flaw> {
    way(data_dir).iter().filter_map(|directory| judge_way(directory)).collect()
}

/// The directories above this one, the root first.
fn way(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(data_dir) = std::path::absolute(data_dir) else { return Vec::new() };
    let mut above: Vec<PathBuf> = data_dir.ancestors().skip(1).map(Path::to_owned).collect();
    above.reverse();
    above
}

fn judge_way(directory: &Path) -> Option<Flaw> {
    let found = fs::symlink_metadata(directory).ok()?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return None;
    }
    let mode = found.mode() & 0o7777;
    let is_open = mode & CHANGED_BY_ALL != 0 && mode & STICKY == 0;
    let kept = if is_open { mode & !CHANGED_BY_ALL } else { mode };
    let should = kept | PASSED_BY_OWNER;
    let what = match (mode & PASSED_BY_OWNER == PASSED_BY_OWNER, is_open) {
        (false, _) => What::Shut,
        (true, true) => What::Changed,
        (true, false) => return None,
    };
    Some(Flaw { path: directory.to_owned(), what, mode, should })
}

/// Refuses what may be another's, and closes the rest to others. Answers what they could have read.
pub(crate) fn take(data_dir: &Path) -> Result<Vec<PathBuf>, CustodyError> {
    let me = geteuid().as_raw();
    open_own(data_dir);
    let flaws = look(data_dir);
    for Flaw { path, what, mode, should } in &flaws {
        let (path, mode, should) = (path.clone(), *mode, *should);
        match *what {
            What::Foreign(owner) => return Err(CustodyError::Foreign { path, owner, me }),
            What::Changed => return Err(CustodyError::Changed { path, mode, should }),
            What::Read | What::Loose | What::Shut => {}
        }
    }
    for flaw in &flaws {
        let failed = |source| CustodyError::Close { path: flaw.path.clone(), should: flaw.should, source };
        flaw.mend().map_err(failed)?;
    }
    Ok(flaws.into_iter().filter(|flaw| flaw.what == What::Read).map(|flaw| flaw.path).collect())
}

/// Closes to others what is opened to them while the supervisor runs, and opens to its user what is closed to it. No wall
/// looks at modes, so an agent of that user can do both, and the next supervisor would not begin.
pub(crate) async fn guard(
    data_dir: PathBuf,
    exposed: Exposed,
    for_all: impl Fn() -> bool + Clone + Send + 'static,
) {
    let mut looked = Instant::now();
    // What was so before is for a person to judge, as the doctor says: it may be a volume for all.
    let flaws = look_at_way(&data_dir).into_iter();
    let private = Arc::new(Mutex::new(Private::new(exposed.clone())));
    let wanted: Arc<[PathBuf]> =
        flaws.filter(|flaw| flaw.what == What::Changed).map(|flaw| flaw.path).collect();
    loop {
        sleep(GUARDED_ITSELF).await;
        let is_due = looked.elapsed() >= GUARDED;
        if is_due {
            looked = Instant::now();
        }
        let (data_dir, wanted, private) = (data_dir.clone(), Arc::clone(&wanted), Arc::clone(&private));
        let (for_all, exposed) = (for_all.clone(), exposed.clone());
        let look = move || {
            close_way(&data_dir, &wanted);
            if is_due || fs::read_dir(&data_dir).is_err() {
                close_again(&data_dir, &exposed);
            }
            private.lock().unwrap_or_else(PoisonError::into_inner).look(&data_dir, for_all());
        };
        // It ends with the runtime.
        let _ = task::spawn_blocking(look).await;
    }
}

fn close_again(data_dir: &Path, exposed: &Exposed) {
    open_own(data_dir);
    for flaw in look(data_dir) {
        let path = flaw.path.display();
        match flaw.what {
            // Told of by the doctor, and by the next start.
            What::Foreign(_) => {}
            // A moment ago it was not.
            What::Shut => {}
            What::Changed | What::Read | What::Loose => {
                let mut exposure = match flaw.what {
                    What::Changed => Some(Exposure::Changed),
                    What::Read => Some(Exposure::Read),
                    What::Loose | What::Foreign(_) | What::Shut => None,
                };
                match flaw.mend() {
                    Ok(()) => {
                        warn!(%path, mode = format!("{:o}", flaw.mode), "it was opened to other users; it is closed");
                    }
                    Err(error) => {
                        exposure = Some(Exposure::Open);
                        warn!(%path, %error, "it was opened to other users, and cannot be closed");
                    }
                }
                exposure.into_iter().for_each(|exposure| exposed.note(&flaw.path, exposure));
            }
        }
    }
}

/// What to type so that `path` is this user's, with all that is in it.
pub(crate) fn own(path: &Path, user: u32) -> String {
    let sudo = if geteuid().is_root() { "" } else { "sudo " };
    let all = if path.is_dir() { "R" } else { "" };
    format!("{sudo}chown -h{all} {user} {}", word(path))
}

/// What is not the supervisor's alone, the data directory first: that may lie behind links. A link in it stands for
/// what it leads to: it is the supervisor's user's. Blocks on the disk.
pub(crate) fn look(data_dir: &Path) -> Vec<Flaw> {
    let Ok(data_dir) = &data_dir.canonicalize() else { return Vec::new() };
    let reach = reachable(data_dir);
    let mut flaws = Vec::new();
    let mut see = |path: PathBuf, kind, reach: bool| {
        let found = fs::metadata(&path).ok()?;
        flaws.extend(judge(path, kind, &found, reach));
        // Whether others get at what is in it.
        Some(reach && found.mode() & PASSED != 0)
    };
    let Some(inside) = see(data_dir.to_owned(), Kind::Directory, reach) else { return Vec::new() };
    see(data_dir.join(settings::FILE), Kind::Settings, inside);
    see(data_dir.join(lock::FILE), Kind::Own, inside);
    for path in entries(data_dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if SECRET.iter().any(|secret| name.starts_with(secret)) {
            see(path, Kind::Secret, inside);
        }
    }
    for own in OWN {
        see(data_dir.join(own), Kind::Directory, inside);
    }
    let pki = inside && passable(&data_dir.join("pki"));
    for secret in SECRETS {
        see(data_dir.join(secret), Kind::Secret, pki);
    }
    for of_instances in OF_INSTANCES {
        let directory = data_dir.join(of_instances);
        let Some(inside) = see(directory.clone(), Kind::Directory, inside) else { continue };
        for path in entries(&directory) {
            let (key, own) = (path.join(WORKER_KEY), entries(&path));
            let inside = see(path, Kind::Directory, inside).unwrap_or_default();
            see(key.clone(), Kind::Secret, inside);
            // What lies loose among an instance's directories is its own.
            for path in own.into_iter().filter(|path| *path != key && (of_instances == RUN || path.is_dir()))
            {
                let is_ours = path.file_name().is_some_and(|name| name == snapshots::DIRECTORY);
                see(path, if is_ours { Kind::Directory } else { Kind::Own }, inside);
            }
        }
    }
    flaws
}

/// What is wrong with the socket that is served, to which others can connect if it is `for_all`. One that is found at a
/// start is replaced whatever it is.
pub(crate) fn look_at_socket(socket: &Path, for_all: bool) -> Option<Flaw> {
    let found = fs::symlink_metadata(socket).ok().filter(|found| found.file_type().is_socket())?;
    let path = socket.parent()?.canonicalize().ok()?.join(socket.file_name()?);
    let flaw = judge(path, Kind::Secret, &found, reachable(socket))?;
    let Flaw { what, .. } = &flaw;
    match what {
        What::Foreign(_) => Some(flaw),
        What::Shut => Some(flaw),
        What::Changed | What::Read | What::Loose => (!for_all).then_some(flaw),
    }
}

fn judge(path: PathBuf, kind: Kind, found: &Metadata, reach: bool) -> Option<Flaw> {
    let mode = found.mode() & 0o777;
    let is_own = found.uid() == geteuid().as_raw();
    let lacks = match found.is_dir() {
        _ if !is_own => 0,
        true => DIRECTORY & !mode,
        false if kind == Kind::Settings => 0o400 & !mode,
        false => FILE & !mode,
    };
    let (too_wide, should) = match kind {
        Kind::Directory => (mode & SEEN != 0, mode & !SEEN & (DIRECTORY | PASSED)),
        Kind::Secret => (mode & 0o077 != 0, mode & FILE),
        Kind::Settings => (mode & CHANGED != 0, mode & !CHANGED),
        Kind::Own => (false, mode),
    };
    let should = should | lacks;
    let what = if lacks != 0 {
        What::Shut
    } else if !is_own {
        match kind {
            Kind::Settings if found.uid() == ROOT => return None,
            Kind::Own => return None,
            Kind::Directory | Kind::Secret | Kind::Settings => What::Foreign(found.uid()),
        }
    } else if !too_wide {
        return None;
    } else if reach && mode & CHANGED != 0 {
        What::Changed
    } else if reach && kind == Kind::Secret && mode & 0o044 != 0 {
        What::Read
    } else {
        What::Loose
    };
    Some(Flaw { path, what, mode, should })
}

/// Whether somebody else could get at `path` at all: no directory above it is closed.
pub(crate) fn reachable(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().skip(1).all(passable)
}

fn passable(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.mode() & PASSED != 0)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.take(MOST_ENTRIES).map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

/// What is at `path`, which is reached through no link: one put in the place of a directory in the meantime leads nowhere,
/// and one in the place of the file is itself.
pub(crate) fn hold(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?.into())
}

/// Gives a file of this user's another mode.
pub(crate) fn close(path: &Path, mode: u32) -> io::Result<()> {
    close_of(path, mode, geteuid().as_raw())
}

/// Gives a file of `owner` another mode, by a descriptor of the file itself.
pub(crate) fn close_of(path: &Path, mode: u32, owner: u32) -> io::Result<()> {
    let file = hold(path)?;
    let found = file.metadata()?;
    if found.is_symlink() || found.uid() != owner {
        return Err(io::Error::other("it is a link, or another user's"));
    }
    if found.is_file() && found.nlink() > 1 {
        return Err(io::Error::other("it has another name elsewhere"));
    }
    fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
