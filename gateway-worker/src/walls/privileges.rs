//! The user, and what a capable one gives up.
//!
//! Of capabilities(7), a program keeps what it needs to look after files and processes of several users of its own,
//! to bind a low port, and to build sandboxes of its own (`SETFCAP`, `SYS_CHROOT`): what containers keep by default,
//! less four. `NET_RAW` forges packets of the neighbours, `MKNOD` makes the host's disks readable,
//! `AUDIT_WRITE` writes into the host's audit log, `FSETID` leaves a program that is written the bit by which it runs as
//! its owner. No gateway does that.

use nix::unistd::{self, setfsgid, setfsuid};
use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Gid, Uid, getgroups, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{User, Walls};

use super::{Claim, Step};

/// What is kept, if it is there.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETFCAP);

/// More than any kernel has; the first that it does not know ends the walk.
const MOST_CAPABILITIES: u32 = 64;

/// What is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    renounces: bool,
    /// Whether the worker may shrink the bounding set. If not, there is nothing in it that could be gained:
    /// with no_new_privs nothing is.
    bounds: bool,
}

/// Plans the end of privileges, if `walls` asks for it.
pub(super) fn plan(walls: &Walls, claims: &mut Vec<Claim>) -> Plan {
    let renounces = walls.privileges;
    let bounds =
        renounces && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP));
    if renounces {
        let claim = Claim::new(Kind::Privileges)
            .on(Step::NoNewPrivileges, State::Unavailable, "set no_new_privs")
            .on(Step::Capabilities, State::Partial, "drop capabilities");
        claims.push(match bounds {
            true => claim.on(Step::BoundingSet, State::Partial, "shrink the bounding set of capabilities"),
            false => claim,
        });
    }
    Plan { renounces, bounds }
}

impl Plan {
    /// Takes from the bounding set what is not kept.
    pub(super) fn shrink_bounding_set(self) -> Result<()> {
        if !self.bounds {
            return Ok(());
        }
        for number in 0..MOST_CAPABILITIES {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if KEPT.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The one before was the last.
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes from the other sets what is not kept. The ambient set holds only what is in two of them.
    pub(super) fn shrink(self) -> Result<()> {
        if !self.renounces {
            return Ok(());
        }
        let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
        let kept = CapabilitySets {
            effective: effective & KEPT,
            permitted: permitted & KEPT,
            inheritable: inheritable & KEPT,
        };
        set_capabilities(None, kept)
    }

    /// From now on, no executed file gives any.
    pub(super) fn renounce(self) -> Result<()> {
        if self.renounces { set_no_new_privs(true) } else { Ok(()) }
    }
}

/// A user to become.
#[derive(Debug)]
pub(super) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    /// By numbers.
    pub(super) fn of(user: &User) -> Self {
        let groups = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        Self { uid: Uid::from_raw(user.uid), gid: Gid::from_raw(user.gid), groups }
    }

    /// Its number.
    pub(super) fn user(&self) -> Uid {
        self.uid
    }

    /// Has this thread open and change files with its rights, and no others, until what this answers is dropped
    /// (credentials(7)).
    pub(super) fn act(&self) -> Result<Acting> {
        let (uid, gid) = (self.uid.as_raw().into(), self.gid.as_raw().into());
        let groups = getgroups()?;
        set_thread_groups(&self.groups)?;
        let gid_before = setfsgid(gid);
        let before = Acting { uid: setfsuid(uid), gid: gid_before, groups };
        // Each answers with what was before, and that is all it tells.
        if (setfsgid(gid), setfsuid(uid)) == (gid, uid) { Ok(before) } else { Err(Errno::PERM) }
    }

    /// Becomes it, for good. Of the process's threads only this one does, so there must be no other.
    pub(super) fn take_on(&self) -> Result<()> {
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        set_thread_res_uid(self.uid, self.uid, self.uid)
    }
}

/// What a thread was that acts for another user, and will be again.
#[derive(Debug)]
pub(super) struct Acting {
    uid: unistd::Uid,
    gid: unistd::Gid,
    groups: Vec<Gid>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        // It was allowed to leave them.
        let _ = set_thread_groups(&self.groups);
        // It is taken with the user. Whose this process is has not changed.
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
}
