//! The control group of a gateway, seen from the worker, which stays outside.
//!
//! Whatever a gateway starts is born into its group, so the group can be killed whole, by the kernel, in one step: no
//! fork is quick enough to get away. And the group counts whom the kernel killed in it because memory was short, which
//! a wait status does not tell.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{Wall, Walls};

/// Where a "1" kills all members (cgroup v2, since Linux 5.14).
const KILL: &str = "cgroup.kill";

/// Where the controller of memory counts what it had to do. Not there without that controller.
const EVENTS: &str = "memory.events";

/// The group that a life was started in.
#[derive(Debug)]
pub(crate) struct Group {
    directory: PathBuf,
    /// Members that had been killed for memory before this life.
    killed_before: u64,
}

impl Group {
    /// The group that these walls name. To be called before the gateway is started.
    pub(crate) fn named(walls: &Walls) -> Option<Self> {
        let directory = Some(&walls.cgroup).filter(|group| !group.is_empty()).map(PathBuf::from)?;
        let killed_before = killed(&directory);
        Some(Self { directory, killed_before })
    }

    /// Itself, unless the gateway could not join it: then it holds nothing of the gateway's.
    pub(crate) fn joined(self, walls: &[Wall]) -> Option<Self> {
        let joined = |wall: &Wall| wall.kind() == Kind::Cgroup && wall.state() == State::Enforced;
        walls.iter().any(joined).then_some(self)
    }

    /// Sends SIGKILL to all its members. Where the kernel cannot, the worker's own hunt is what there is.
    pub(crate) fn kill(&self) {
        let opened = OpenOptions::new().write(true).open(self.directory.join(KILL));
        let _ = opened.and_then(|mut file| file.write_all(b"1"));
    }

    /// Whether the kernel has killed a member of this life because memory was short.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        killed(&self.directory) > self.killed_before
    }
}

/// Members killed for memory so far; none where nobody counts.
fn killed(directory: &Path) -> u64 {
    let events = fs::read_to_string(directory.join(EVENTS)).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(directory: &Path) -> Option<Group> {
        Group::named(&Walls { cgroup: directory.to_str().unwrap().into(), ..Walls::default() })
    }

    #[test]
    fn only_kills_for_memory_since_the_start_of_a_life_count() {
        let directory = tempfile::tempdir().unwrap();
        let events = |kills: u32| {
            let text = format!("low 0\nhigh 7\nmax 9\noom 3\noom_kill {kills}\noom_group_kill 0\n");
            fs::write(directory.path().join(EVENTS), text).unwrap();
        };
        events(2);
        let life = group(directory.path()).unwrap();
        assert!(!life.was_out_of_memory());
        events(3);
        assert!(life.was_out_of_memory());
        assert!(!group(directory.path()).unwrap().was_out_of_memory(), "the next life has done nothing");
    }

    #[test]
    fn where_nobody_counts_nobody_was_killed_for_memory() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!group(directory.path()).unwrap().was_out_of_memory());
        assert!(Group::named(&Walls::default()).is_none());
    }

    #[test]
    fn a_group_that_the_gateway_is_not_in_is_not_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let wall = |state: State| Wall { kind: Kind::Cgroup.into(), state: state.into(), ..Wall::default() };
        let joined = |walls: &[Wall]| group(directory.path()).unwrap().joined(walls).is_some();
        assert!(joined(&[wall(State::Enforced)]));
        assert!(!joined(&[wall(State::Unavailable)]));
        assert!(!joined(&[]));
    }
}
