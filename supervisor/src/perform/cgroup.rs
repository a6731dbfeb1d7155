//! Control groups (cgroup v2): what the kernel bounds, counts and kills together.
//!
//! ```text
//!   GROUND                       the supervisor's to divide: the unit's group, given to it by `Delegate=yes`
//!   ├── supervisor               this process and all workers: whatever becomes of a gateway, they go on
//!   ├── gateway-main-STORE       a gateway and all that it ever starts; memory.max, cpu.max, pids.max
//!   └── gateway-rescue-STORE
//! ```
//!
//! A group that bounds others may have no members of its own (cgroups(7), "no internal processes"). So the supervisor
//! must have been started in a group beside those of instances, as systemd does since version 254
//! (`DelegateSubgroup=supervisor`). It does not move there by itself: its manager would then be refused to start the
//! next one in the ground, for as long as a gateway runs. Where it was started in the ground itself, instances get
//! groups to be killed in, and no bounds.
//!
//! Nothing is remembered. A group is found by its name, and what holds in it is read from it, so a supervisor that
//! finds gateways running knows as much as the one that started them. That a group is there changes nothing about when
//! a gateway is run: what is missing is reported, and limits of the user, looks at memory, and the sweep stand in.

mod bounds;
mod find;
mod standing;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor_core::ids::Name;
use tracing::{debug, warn};

use crate::{lineage, spec::InstanceSpec};
use bounds::{Bound, Controller};

/// Which controllers the kernel offers in a group, and which it applies to the groups below.
const OFFERED: &str = "cgroup.controllers";
const APPLIED: &str = "cgroup.subtree_control";

/// The kernel tells when a killed group is empty. One that is not by then is killed once more.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Where the groups of instances are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Groups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: String,
    /// Or why there is none, as a clause.
    ground: Result<Ground, String>,
}

/// A group that is the supervisor's to divide.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ground {
    directory: PathBuf,
    seat: Seat,
    /// Controllers that the host has given to cgroup v1.
    elsewhere: BTreeSet<String>,
}

/// Where the supervisor was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// In a group beside those of instances.
    Beside,
    /// In the ground itself.
    Within,
}

impl Groups {
    /// Looks for a ground, and removes what the last supervisor had no time to. `store` names this supervisor's data
    /// directory among all others.
    pub(crate) fn find<'a>(store: &str, known: impl Iterator<Item = &'a Name>) -> Self {
        let ground = find::ground();
        match &ground {
            Ok(ground) => debug!(ground = %ground.directory.display(), "instances have control groups"),
            Err(why) => debug!("instances have no control groups: {why}"),
        }
        let groups = Self(Arc::new(Inner { store: store.to_owned(), ground }));
        groups.tidy(known);
        groups
    }

    /// Removes the groups of instances that are not there any more.
    fn tidy<'a>(&self, known: impl Iterator<Item = &'a Name>) {
        let Ok(ground) = &self.0.ground else { return };
        let known: BTreeSet<String> = known.map(|name| self.name(name)).collect();
        let store = format!("-{}", self.0.store);
        let entries = fs::read_dir(&ground.directory).into_iter().flatten().flatten();
        let ours = entries.filter_map(|entry| entry.file_name().into_string().ok());
        for group in ours.filter(|group| group.starts_with(lineage::GROUP) && group.ends_with(&store)) {
            if !known.contains(&group) {
                // One that has members is not removed by this.
                let _ = fs::remove_dir(ground.directory.join(&group));
            }
        }
    }

    /// Makes the group of an instance that is about to be started, empty and bounded. None, if there can be none.
    /// What could not be done shows in how it stands.
    pub(crate) fn prepare(&self, name: &Name, spec: &InstanceSpec) -> Option<PathBuf> {
        let (ground, group) = self.of(name)?;
        match fs::create_dir(&group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => warn!(instance = %name, %error, "failed to make `{}`", group.display()),
        }
        // It cannot be the next life's: nothing of the instance is alive.
        let _ = kill(&group);
        bind(ground, name, &group, spec);
        Some(group)
    }

    /// The group of an instance, if it has one already.
    pub(crate) fn existing(&self, name: &Name) -> Option<PathBuf> {
        self.of(name).map(|(_, group)| group).filter(|group| group.is_dir())
    }

    /// Bounds the group of an instance that runs: what was in force may have been lost with its supervisor's unit.
    pub(crate) fn renew(&self, name: &Name, spec: &InstanceSpec) {
        if let Some((ground, group)) = self.of(name).filter(|(_, group)| group.is_dir()) {
            bind(ground, name, &group, spec);
        }
    }

    /// Kills all that is in the group of an instance, and returns once it is empty, however long that takes. Blocks.
    pub(crate) fn clear(&self, name: &Name) {
        let Some((_, group)) = self.of(name) else { return };
        match clear(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The sweep is what there is, as before Linux 5.14.
                debug!(instance = %name, %error, "failed to clear its control group");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// The instance is deleted. Blocks.
    pub(crate) fn remove(&self, name: &Name) {
        let Some((_, group)) = self.of(name) else { return };
        match fs::remove_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(instance = %name, %error, "failed to remove `{}`", group.display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Names the data directory among all others.
    pub(crate) fn store(&self) -> &str {
        &self.0.store
    }

    /// What all processes of an instance carry in their environment.
    pub(crate) fn mark(&self, name: &Name) -> String {
        format!("{}/{name}", self.store())
    }

    fn name(&self, instance: &Name) -> String {
        lineage::group(instance, &self.0.store)
    }

    fn of(&self, instance: &Name) -> Option<(&Ground, PathBuf)> {
        let ground = self.0.ground.as_ref().ok()?;
        Some((ground, ground.directory.join(self.name(instance))))
    }
}

impl Ground {
    /// Applies those controllers to the groups below that bounds are made of. Done again at each start: who was in the
    /// way may have gone.
    fn divide(&self) {
        match self.seat {
            Seat::Beside => {}
            Seat::Within => return,
        }
        let (offered, applied) = (self.words(OFFERED), self.words(APPLIED));
        for controller in Controller::ALL.map(Controller::name) {
            if offered.contains(controller)
                && !applied.contains(controller)
                && let Err(error) = put(&self.directory.join(APPLIED), &format!("+{controller}"))
            {
                debug!(%error, "failed to apply the controller `{controller}`");
            }
        }
    }

    /// Why this controller bounds no instance, as a clause.
    fn lacks(&self, controller: Controller) -> String {
        let (ground, controller) = (self.directory.display(), controller.name());
        if self.elsewhere.contains(controller) {
            return format!("the host has given `{controller}` to cgroup v1, which is not supported");
        }
        match self.seat {
            Seat::Within => {
                format!(
                    "the supervisor was started in `{ground}` itself, and not in `{}` below it",
                    lineage::SEAT
                )
            }
            Seat::Beside if !self.words(OFFERED).contains(controller) => {
                format!("`{ground}` is given no controller `{controller}`")
            }
            Seat::Beside if self.words(APPLIED).contains(controller) => {
                format!("`{controller}` does not take it")
            }
            Seat::Beside => {
                format!("processes in `{ground}` itself keep it from being divided; stop all instances once")
            }
        }
    }

    fn words(&self, file: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

/// Bounds a group by what its spec says. A bound that is gone from the spec is taken away.
fn bind(ground: &Ground, name: &Name, group: &Path, spec: &InstanceSpec) {
    ground.divide();
    for Bound { file, value, .. } in bounds::of(spec) {
        match put(&group.join(file), &value) {
            // Its controller is not applied: how it stands says why.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(instance = %name, %error, "failed to write `{value}` to its `{file}`"),
            Ok(()) => {}
        }
    }
}

fn kill(group: &Path) -> io::Result<()> {
    put(&group.join("cgroup.kill"), "1")
}

/// Kills until nothing in it is alive.
fn clear(group: &Path) -> io::Result<()> {
    let mut events = File::open(group.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if !text.lines().any(|line| line == "populated 1") {
            return Ok(());
        }
        kill(group)?;
        // Ready once it has changed since it was read; an interruption is as good.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&PATIENCE));
    }
}

/// Writes to a file that the kernel has made. Each write is an order, so all of it goes at once.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests;
