//! What one event leads to, gathered until the event is handled.

use alloc::vec::Vec;

use crate::{
    action::{Action, Launch, Write},
    ids::{Incarnation, Name},
    journal::Kind,
    rng::Rng,
    time::Moment,
};

/// The effects of the event being handled.
pub(crate) struct Turn<'a> {
    /// When it happened.
    pub(crate) now: Moment,
    /// Chance.
    pub(crate) rng: &'a mut Rng,
    /// Actions that need not wait for the disk.
    pub(crate) actions: Vec<Action>,
    /// Actions that wait until this turn's changes are durable.
    pub(crate) durably: Vec<Action>,
    /// Launches; each waits for its instance's own gate.
    pub(crate) launches: Vec<Launch>,
    /// Instances whose held launch is not wanted any more.
    pub(crate) cancelled: Vec<Name>,
    /// What happened.
    pub(crate) entries: Vec<(Option<Name>, Incarnation, Kind)>,
    /// Removals and pool changes.
    pub(crate) writes: Vec<Write>,
    /// Instances whose record is written, and why.
    pub(crate) stored: Vec<(Name, Stored)>,
    /// Instances that changed visibly and have not been settled since.
    pub(crate) unsettled: Vec<Name>,
    /// Instances that changed visibly.
    pub(crate) touched: Vec<Name>,
    /// Instances whose deadline may have changed.
    pub(crate) rearmed: Vec<Name>,
}

/// Why a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nothing waits for it.
    Later,
    /// The instance may not be launched before.
    BeforeLaunch,
    /// More incarnations are reserved by it.
    Reservation,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Moment, rng: &'a mut Rng) -> Self {
        Self {
            now,
            rng,
            actions: Vec::new(),
            durably: Vec::new(),
            launches: Vec::new(),
            cancelled: Vec::new(),
            entries: Vec::new(),
            writes: Vec::new(),
            stored: Vec::new(),
            unsettled: Vec::new(),
            touched: Vec::new(),
            rearmed: Vec::new(),
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn act_durably(&mut self, action: Action) {
        self.durably.push(action);
    }

    pub(crate) fn note(&mut self, name: &Name, incarnation: Incarnation, kind: Kind) {
        self.entries.push((Some(name.clone()), incarnation, kind));
        self.touch(name);
    }

    pub(crate) fn note_own(&mut self, kind: Kind) {
        self.entries.push((None, Incarnation(0), kind));
    }

    /// The instance has changed.
    pub(crate) fn touch(&mut self, name: &Name) {
        push_once(&mut self.unsettled, name);
        push_once(&mut self.touched, name);
        self.rearm(name);
    }

    /// Only the instance's deadline may have changed.
    pub(crate) fn rearm(&mut self, name: &Name) {
        push_once(&mut self.rearmed, name);
    }

    pub(crate) fn store(&mut self, name: &Name) {
        self.stored.push((name.clone(), Stored::Later));
    }

    pub(crate) fn store_before_launch(&mut self, name: &Name) {
        self.stored.push((name.clone(), Stored::BeforeLaunch));
    }

    pub(crate) fn reserve(&mut self, name: &Name) {
        self.stored.push((name.clone(), Stored::Reservation));
    }
}

/// A turn touches a handful of instances, and rarely all: looking at the last few suffices to keep the lists
/// short, and a name listed twice does no harm.
fn push_once(list: &mut Vec<Name>, name: &Name) {
    if !list.iter().rev().take(8).any(|known| known == name) {
        list.push(name.clone());
    }
}
