//! Files, ports, signals and abstract sockets, by Landlock (landlock(7)).
//!
//! A process in a Landlock domain can also neither trace nor look into the memory of one outside, so with any of
//! these walls neighbours, workers and the supervisor are safe from that, the environments in `/proc` included.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use supervisor_proto::worker::Walls;
use supervisor_proto::worker::wall::{Kind, State};

use super::{Claim, Step};
use crate::complain::complain;
use crate::kernel;

/// The rights over files that are walled. ABI 9 has sockets with a path as well, which would close a gateway off
/// from its own supervisor; those are guarded by who listens.
const FILES: ABI = ABI::V8;

/// What it takes to write, make and replace files. Without [`AccessFs::RemoveDir`] the kernel moves no directory away,
/// without [`AccessFs::MakeSym`] it puts no link in the place of anything.
const REPLACING: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile});

/// The first ABI that knows ports.
const PORTS_SINCE: i32 = 4;

/// The first ABI that knows signals and abstract sockets.
const APART_SINCE: i32 = 6;

/// Makes the ruleset for `walls`, as far as this kernel knows such; `None` if nothing is left of it.
pub(super) fn plan(walls: &Walls, claims: &mut Vec<Claim>) -> Option<RulesetCreated> {
    let files = !(walls.write.is_empty() && walls.read.is_empty() && walls.files.is_empty());
    let ports = !walls.bind.is_empty();
    let asked = [(Kind::Files, files), (Kind::Ports, ports), (Kind::Apart, walls.apart)];
    let kinds = || asked.iter().filter(|(_, asked)| *asked).map(|(kind, _)| *kind);
    kinds().next()?;
    let none = |why: String| kinds().map(|kind| Claim::unavailable(kind, why.clone())).collect::<Vec<_>>();
    let abi = match kernel::landlock_abi() {
        Ok(abi) => abi,
        Err(errno) => {
            claims.extend(none(absence(errno)));
            return None;
        }
    };
    match ruleset(walls, files, ports && abi >= PORTS_SINCE, walls.apart && abi >= APART_SINCE) {
        Ok(ruleset) => {
            claims.extend(kinds().map(|kind| claim(kind, abi)));
            ruleset
        }
        Err(error) => {
            claims.extend(none(format!("failed to make a Landlock ruleset: {error}")));
            None
        }
    }
}

/// What a kernel without Landlock says.
fn absence(errno: Errno) -> String {
    match errno {
        Errno::NOSYS => "this kernel has no Landlock".to_owned(),
        Errno::OPNOTSUPP => "Landlock is switched off in this kernel".to_owned(),
        other => format!("failed to ask for Landlock: {other}"),
    }
}

/// What a kernel of this ABI can hold of `kind`.
fn claim(kind: Kind, abi: i32) -> Claim {
    let missing = |what: &str| format!("this kernel's Landlock (ABI {abi}) {what}");
    let claim = match kind {
        Kind::Files if abi < 2 => Claim::new(kind).lacks(
            State::Partial,
            missing("keeps no file from being truncated, and lets none be moved to another directory"),
        ),
        Kind::Files if abi < 3 => {
            Claim::new(kind).lacks(State::Partial, missing("keeps no file from being truncated"))
        }
        Kind::Ports if abi < PORTS_SINCE => Claim::unavailable(kind, missing("knows no ports")),
        Kind::Apart if abi < APART_SINCE => {
            Claim::unavailable(kind, missing("knows neither signals nor abstract sockets"))
        }
        Kind::Files
        | Kind::Ports
        | Kind::Apart
        | Kind::Unspecified
        | Kind::Privileges
        | Kind::Syscalls
        | Kind::Limits
        | Kind::User
        | Kind::Cgroup => Claim::new(kind),
    };
    claim.on(Step::Landlock, State::Unavailable, "enter the Landlock ruleset")
}

fn ruleset(
    walls: &Walls,
    files: bool,
    ports: bool,
    apart: bool,
) -> Result<Option<RulesetCreated>, RulesetError> {
    if !(files || ports || apart) {
        return Ok(None);
    }
    let all = AccessFs::from_all(FILES);
    let read = AccessFs::from_read(FILES);
    let mut ruleset = Ruleset::default();
    if files {
        ruleset = ruleset.handle_access(all)?;
    }
    if ports {
        ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    }
    if apart {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    let mut ruleset = ruleset.create()?;
    let trees = [(&walls.write, all), (&walls.files, read | REPLACING), (&walls.read, read)];
    let trees = trees.into_iter().flat_map(|(paths, access)| paths.iter().map(move |path| (path, access)));
    for (path, access) in trees {
        if let Some(tree) = open(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(tree, access))?;
        }
    }
    if ports {
        // Port 0 is the kernel's own choice.
        let ranges = walls.bind.iter().flat_map(|range| range.first..=range.last);
        for port in ranges.chain([0]).filter_map(|port| u16::try_from(port).ok()) {
            ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
        }
    }
    Ok(Some(ruleset))
}

/// A tree, unless it cannot be opened, or a link leads to it: then it stays outside. Who may write in one tree could put
/// a link in the place of another, and the wall would be built around what it points to.
pub(super) fn open(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(tree) => Some(tree),
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        Err(error) => {
            complain(format_args!("left `{path}` outside the gateway's walls: {error}"));
            None
        }
    }
}

/// Puts this process behind `ruleset`.
pub(super) fn enter(ruleset: RulesetCreated) -> rustix::io::Result<()> {
    match ruleset.restrict_self() {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_raw_os_error(*landlock::Errno::from(error))),
    }
}
