//! Modes of files and their groups, by user notification (seccomp_unotify(2)).
//!
//! Landlock looks at what is opened and not at whose mode is changed: an agent of the supervisor's own user could open to
//! all users of the host what it may not open itself, the supervisor's state among it, or take the control socket from the
//! group that may call. So who changes a mode or an owner waits until the worker has done it in its place, for what lies in
//! the gateway's own trees:
//!
//! ```text
//!   gateway   chmod("notes", 0600) ── waits ──────────────────────────────────── 0
//!                                       │                                        │
//!   worker    the name, as the gateway sees it ──► the file itself ──► in a tree of its own? ──► changes it
//! ```
//!
//! The file is held from the look to the change, so nobody can put another in its place. For a gateway of another user, who
//! may have more on this host than this gateway, the worker does it as that one. To root's no mode means anything: those are
//! asked nothing.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::libc::{self, c_long};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, chmod, chownat, fstat, open, openat2, readlink,
};
use rustix::io::{Errno, IoSlice, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::geteuid;
use seccompiler::BpfProgram;
use supervisor_proto::worker::Walls;
use supervisor_proto::worker::wall::{Kind, State};

use super::privileges::Identity;
use super::syscalls::{FCHMODAT2, instruction, load, word};
use super::{Claim, Step, landlock};
use crate::kernel::{self, Call};

/// The calls that change a mode or an owner, and the arguments by which each says of what.
const CALLS: &[(c_long, Form)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, Form { path: Some(0), ..Form::of(Change::Mode(1)) }),
    (libc::SYS_fchmod, Form { at: Some(0), ..Form::of(Change::Mode(1)) }),
    (libc::SYS_fchmodat, Form { at: Some(0), path: Some(1), ..Form::of(Change::Mode(2)) }),
    (FCHMODAT2, Form { at: Some(0), path: Some(1), flags: Flags::At(3), ..Form::of(Change::Mode(2)) }),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, Form { path: Some(0), ..Form::of(Change::Owner(1)) }),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, Form { path: Some(0), flags: Flags::Are(NOT_FOLLOWED), ..Form::of(Change::Owner(1)) }),
    (libc::SYS_fchown, Form { at: Some(0), ..Form::of(Change::Owner(1)) }),
    (
        libc::SYS_fchownat,
        Form { at: Some(0), path: Some(1), flags: Flags::At(4), ..Form::of(Change::Owner(2)) },
    ),
];

/// Which argument is what.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// A directory, or without a path the file itself. Without this, the path begins where the process is.
    at: Option<usize>,
    path: Option<usize>,
    flags: Flags,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Flags {
    Are(i32),
    At(usize),
}

/// To what.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// To the mode in this argument.
    Mode(usize),
    /// To the user in this argument and the group in the next.
    Owner(usize),
}

impl Form {
    const fn of(change: Change) -> Self {
        Self { at: None, path: None, flags: Flags::Are(0), change }
    }
}

/// For a user or a group that stays.
const STAYS: u32 = u32::MAX;

/// Where a process is, for who names no directory.
const HERE: i32 = libc::AT_FDCWD;

/// The only flags there are.
const NOT_FOLLOWED: i32 = libc::AT_SYMLINK_NOFOLLOW;
const ITSELF: i32 = libc::AT_EMPTY_PATH;

/// By these a process names what it has open; to the worker they would be its own.
const DESCRIPTORS: [&str; 3] = ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"];

/// Bits that chmod(2) looks at.
const BITS: u32 = 0o7777;

/// Where memory lies that has a descriptor and never had a name (memfd_create(2)).
const MEMORY: &[u8] = b"/memfd:";

/// The longest path, with the NUL behind it.
const LONGEST: usize = 4_096;

/// Who traces may trace what it has started (Yama's `ptrace_scope`).
const DESCENDANTS: u32 = 1;

/// Memory is there or not by the page.
const PAGE: usize = 4_096;

/// Answered in one turn: an agent that does nothing else must not keep orders waiting.
const PER_TURN: usize = 64;

/// The kernel asks to be asked again while others rename directories on the way.
const TRIES: usize = 8;

/// The child's part.
#[derive(Debug)]
pub(super) struct Plan {
    filter: BpfProgram,
    to: OwnedFd,
}

/// The worker's part, until the child has done its own.
#[derive(Debug)]
pub(super) struct Pending {
    from: OwnedFd,
    trees: Vec<PathBuf>,
    other: Option<Identity>,
}

/// Changes modes for who is behind the walls.
#[derive(Debug)]
pub(crate) struct Keeper {
    calls: OwnedFd,
    trees: Vec<PathBuf>,
    /// Whose files they are, if not this process's user's.
    other: Option<Identity>,
}

/// Plans to keep the modes of what lies outside `walls`, if they need that.
pub(super) fn plan(walls: &Walls, claims: &mut [Claim]) -> Result<Option<(Plan, Pending)>> {
    let Some(files) = claims.iter_mut().find(|claim| claim.kind == Kind::Files) else { return Ok(None) };
    let other = walls.user.as_ref().map(Identity::of);
    if other.as_ref().map_or(geteuid(), Identity::user).is_root() {
        return Ok(None);
    }
    let taken = std::mem::replace(files, Claim::new(Kind::Files));
    if let Some(scope) = only_by_root() {
        let why = format!("modes of files outside can be changed, as `kernel.yama.ptrace_scope` is {scope}");
        *files = taken.lacks(State::Partial, why);
        return Ok(None);
    }
    let what = "keep the modes of files outside as they are";
    *files = taken.on(Step::Modes, State::Partial, what);
    let (from, to) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let own = walls.write.iter().chain(&walls.files);
    let trees = own.filter_map(|path| place(&landlock::open(path)?).ok()).collect();
    Ok(Some((Plan { filter: filter(), to }, Pending { from, trees, other })))
}

/// Which setting of this host keeps a worker from seeing the names in a gateway's memory, if one does.
fn only_by_root() -> Option<u32> {
    beyond_descendants(&fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?)
}

fn beyond_descendants(scope: &str) -> Option<u32> {
    scope.trim().parse().ok().filter(|scope| *scope > DESCENDANTS)
}

/// Hands over the calls that change modes. The filter before this one refuses those of other processor modes.
fn filter() -> BpfProgram {
    let mut program = vec![load()];
    for (left, (number, _)) in (1..=CALLS.len()).rev().zip(CALLS) {
        // Over those behind it, and over the leave to go on.
        let over = [u8::try_from(left).unwrap_or(u8::MAX), 0];
        program.push(instruction([libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K], over, word(*number)));
    }
    for answer in [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF] {
        program.push(instruction([libc::BPF_RET, libc::BPF_K, 0], [0, 0], answer));
    }
    program
}

impl Plan {
    /// From now on this process and all that it starts wait for the worker. To be called in the child.
    pub(super) fn install(&self) -> Result<()> {
        let calls = kernel::hand_over(&self.filter)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        let calls = [calls.as_fd()];
        with.push(SendAncillaryMessage::ScmRights(&calls));
        sendmsg(&self.to, &[IoSlice::new(b"m")], &mut with, SendFlags::empty())?;
        Ok(())
    }
}

impl Pending {
    /// What the child has handed over.
    pub(super) fn take(self) -> Option<Keeper> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        recvmsg(&self.from, &mut [IoSliceMut::new(&mut [0])], &mut with, flags).ok()?;
        let calls = with.drain().find_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut handed) = message else { return None };
            handed.next()
        });
        Some(Keeper { calls: calls?, trees: self.trees, other: self.other })
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.calls.as_fd()
    }
}

/// Waits until `other` can be read, or `timeout` is over; meanwhile modes are changed. Whether it can be read.
pub(crate) fn wait(
    other: impl AsFd,
    keeper: &mut Option<Keeper>,
    timeout: Option<&Timespec>,
) -> Result<bool> {
    let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut fds = vec![watched(other.as_fd())];
    fds.extend(keeper.iter().map(|keeper| watched(keeper.as_fd())));
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(error),
    }
    let flags: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    if let Some(flags) = flags.get(1) {
        serve(keeper, *flags);
    }
    Ok(flags.first().is_some_and(|flags| !flags.is_empty()))
}

/// Does what is to be done for `keeper`, of which poll(2) says `flags`. Once nothing is left that could ask, there is nobody
/// to hear.
pub(crate) fn serve(keeper: &mut Option<Keeper>, flags: PollFlags) {
    if let Some(keeper) = keeper {
        keeper.answer();
    }
    if flags.contains(PollFlags::HUP) {
        *keeper = None;
    }
}

impl Keeper {
    /// Answers who waits, as far as one turn goes.
    fn answer(&self) {
        for _ in 0..PER_TURN {
            let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            let waits = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
            if !waits || !fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            // Whoever waited may have been killed meanwhile.
            let Ok(call) = kernel::next_call(self.as_fd()) else { continue };
            kernel::answer(self.as_fd(), call.id, self.change(&call));
        }
    }

    fn change(&self, call: &Call) -> Result<()> {
        let _acting = self.other.as_ref().map(Identity::act).transpose()?;
        let (_, form) = CALLS.iter().find(|(number, _)| *number == call.number).ok_or(Errno::NOSYS)?;
        let file = find(call, *form)?;
        // Until now its process number was its own, so this is what it has named.
        if !kernel::waits(self.as_fd(), call.id) {
            return Err(Errno::SRCH);
        }
        let argument = |index: usize| low(call.arguments[index]);
        let kind = self.check(&file)?;
        match form.change {
            Change::Mode(_) if kind.is_symlink() => Err(Errno::OPNOTSUPP),
            Change::Mode(mode) => chmod(itself(&file), Mode::from_raw_mode(argument(mode) & BITS)),
            Change::Owner(user) if ![STAYS, self.user()].contains(&argument(user)) => Err(Errno::PERM),
            Change::Owner(user) => {
                let group = Some(argument(user + 1)).filter(|group| *group != STAYS);
                chownat(&file, c"", None, group.map(Gid::from_raw), AtFlags::EMPTY_PATH)
            }
        }
    }

    /// Whose files they are.
    fn user(&self) -> u32 {
        self.other.as_ref().map_or(geteuid(), Identity::user).as_raw()
    }

    /// What it is, if it is the gateway's own.
    fn check(&self, file: &OwnedFd) -> Result<FileType> {
        let found = fstat(file)?;
        if found.st_uid != self.user() {
            return Err(Errno::PERM);
        }
        let kind = FileType::from_raw_mode(found.st_mode);
        match kind {
            FileType::RegularFile
            | FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::Symlink => {
                // What has lost its name is where it had it: a neighbour's file can be held from before it was replaced.
                let place = place(file)?;
                let is_memory = found.st_nlink == 0 && place.as_os_str().as_bytes().starts_with(MEMORY);
                let is_own = is_memory || self.trees.iter().any(|tree| place.starts_with(tree));
                is_own.then_some(kind).ok_or(Errno::PERM)
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => Err(Errno::PERM),
        }
    }
}

/// What the call is about, as its process sees it.
fn find(call: &Call, form: Form) -> Result<OwnedFd> {
    let argument = |index: usize| low(call.arguments[index]).cast_signed();
    let at = form.at.map_or(HERE, argument);
    let flags = match form.flags {
        Flags::Are(flags) => flags,
        Flags::At(index) => argument(index),
    };
    if flags & !(NOT_FOLLOWED | ITSELF) != 0 {
        return Err(Errno::INVAL);
    }
    let Some(path) = form.path else { return descriptor(call.pid, at) };
    let path = text(call.pid, call.arguments[path])?;
    if let Some(number) = descriptor_named(&path) {
        return descriptor(call.pid, number);
    }
    if path.is_empty() {
        return match (flags & ITSELF != 0, at) {
            (true, HERE) => start(call.pid, "cwd"),
            (true, at) => descriptor(call.pid, at),
            (false, _) => Err(Errno::NOENT),
        };
    }
    let (from, resolve) = match (path.first(), at) {
        (Some(b'/'), _) => (start(call.pid, "root")?, ResolveFlags::IN_ROOT),
        (_, HERE) => (start(call.pid, "cwd")?, ResolveFlags::empty()),
        (_, at) => (descriptor(call.pid, at)?, ResolveFlags::empty()),
    };
    let mut how = OFlags::PATH | OFlags::CLOEXEC;
    how.set(OFlags::NOFOLLOW, flags & NOT_FOLLOWED != 0);
    // Links to what this process has open lead elsewhere for the other.
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..TRIES {
        match openat2(&from, path.as_slice(), how, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            found => return found,
        }
    }
    openat2(&from, path.as_slice(), how, Mode::empty(), resolve)
}

/// The descriptor that a path stands for.
fn descriptor_named(path: &[u8]) -> Option<i32> {
    let path = str::from_utf8(path).ok()?;
    DESCRIPTORS.into_iter().find_map(|names| path.strip_prefix(names))?.parse().ok()
}

/// What a process has open.
fn descriptor(pid: i32, number: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/fd/{number}");
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Errno::BADF,
        other => refused(other),
    })
}

/// Where its paths begin: `cwd` or `root`.
fn start(pid: i32, which: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/{which}");
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(refused)
}

/// The path that its memory holds there.
fn text(pid: i32, address: u64) -> Result<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).map_err(|error| known(&error))?;
    let mut bytes = Vec::new();
    let mut at = address;
    while bytes.len() < LONGEST {
        let left_of_page = PAGE - usize::try_from(at).unwrap_or_default() % PAGE;
        let mut piece = vec![0; left_of_page.min(LONGEST - bytes.len())];
        // What is not there cannot be read, whatever it answers then.
        memory.read_exact_at(&mut piece, at).map_err(|_| Errno::FAULT)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            bytes.extend(piece.drain(..end));
            return Ok(bytes);
        }
        at = at.checked_add(piece.len() as u64).ok_or(Errno::FAULT)?;
        bytes.extend(piece);
    }
    Err(Errno::NAMETOOLONG)
}

fn known(error: &io::Error) -> Errno {
    refused(Errno::from_io_error(error).unwrap_or(Errno::PERM))
}

/// What is out of the worker's sight stays as it is.
fn refused(error: Errno) -> Errno {
    if error == Errno::ACCESS { Errno::PERM } else { error }
}

/// Where it lies, by the kernel's word.
fn place(file: &OwnedFd) -> Result<PathBuf> {
    let place = readlink(itself(file), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(CString::into_bytes(place))))
}

fn itself(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The half of an argument that an `int` is in.
fn low(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_kept_where_a_worker_may_trace_what_it_has_started() {
        let beyond = ["0\n", "1\n", "2\n", "3\n", ""].map(beyond_descendants);
        assert_eq!(beyond, [None, None, Some(2), Some(3), None]);
    }

    #[test]
    fn only_the_whole_name_of_a_descriptor_stands_for_it() {
        for (path, number) in [
            ("/proc/self/fd/3", Some(3)),
            ("/proc/thread-self/fd/12", Some(12)),
            ("/dev/fd/0", Some(0)),
            ("/proc/self/fd/", None),
            ("/proc/self/fd/3/notes", None),
            ("/proc/self/fd/../fd/3", None),
            ("/proc/1/fd/3", None),
            ("fd/3", None),
        ] {
            assert_eq!(descriptor_named(path.as_bytes()), number, "{path}");
        }
        assert_eq!(descriptor_named(b"/dev/fd/\xff"), None);
    }
}
