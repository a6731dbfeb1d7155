//! Actions that wait for the disk: persist, then act, then answer.

use alloc::{collections::VecDeque, vec::Vec};

use crate::{
    action::Action,
    ids::{Name, Revision},
};

/// Actions in the order of the revisions they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outbox {
    held: VecDeque<(Revision, Action)>,
}

impl Outbox {
    /// Holds `action` until `revision` is durable.
    pub(crate) fn hold(&mut self, revision: Revision, action: Action) {
        let place = self.held.partition_point(|(held, _)| *held <= revision);
        self.held.insert(place, (revision, action));
    }

    /// Takes out what waited for `stored` or less.
    pub(crate) fn release(&mut self, stored: Revision) -> Vec<Action> {
        let ready = self.held.partition_point(|(held, _)| *held <= stored);
        self.held.drain(..ready).map(|(_, action)| action).collect()
    }

    /// Drops the launch of `name` that has not left yet.
    pub(crate) fn cancel_launch(&mut self, name: &Name) {
        self.held.retain(|(_, action)| !matches!(action, Action::Launch(launch) if launch.name == *name));
    }
}
