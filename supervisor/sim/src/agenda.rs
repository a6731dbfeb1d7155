//! What happens next: everything that is on its way, in the order of its time.

use std::{cmp::Ordering, collections::BinaryHeap};

use supervisor_core::{
    event::Event,
    ids::{ConfigId, Incarnation},
    time::Moment,
};

use crate::host::{Serial, Turn};

/// The number of a supervisor's life. What was on its way to an earlier one never comes.
pub(crate) type Epoch = u64;

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event reaches the supervisor.
    Tell(Epoch, Box<Event>),
    /// A task has carried out an order.
    Order(Epoch, usize),
    /// A probe has its answer.
    Probed(Epoch, usize, Incarnation),
    /// The disk has written.
    Written(Epoch),
    /// Something becomes of a gateway.
    Gateway(usize, Serial, Turn),
    /// A worker dies.
    WorkerDies(usize, Serial),
    /// Somebody edits a configuration.
    Edits,
    /// It is noticed that a configuration may have changed.
    Noticed(Epoch, usize),
    /// What a life was started with is kept, while it runs already.
    Kept(Epoch, usize, ConfigId, Incarnation),
    /// A caller asks for something.
    Caller,
    /// The supervisor dies.
    Dies,
    /// The supervisor has halted and ends.
    Ends(Epoch),
    /// The next supervisor begins.
    Begins,
    /// The host sleeps.
    Sleeps,
    /// Nothing goes wrong any more.
    Calm,
    /// Is all well?
    Look,
}

#[derive(Debug)]
struct Coming {
    at: Moment,
    number: u64,
    next: Next,
}

impl PartialEq for Coming {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Coming {}

impl PartialOrd for Coming {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coming {
    /// The soonest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// All that is on its way.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    coming: BinaryHeap<Coming>,
    number: u64,
}

impl Agenda {
    /// Of two things at one moment, what was put in first happens first.
    pub(crate) fn put(&mut self, at: Moment, next: Next) {
        self.number += 1;
        self.coming.push(Coming { at, number: self.number, next });
    }

    pub(crate) fn soonest(&self) -> Option<Moment> {
        self.coming.peek().map(|coming| coming.at)
    }

    pub(crate) fn take(&mut self) -> Option<(Moment, Next)> {
        self.coming.pop().map(|coming| (coming.at, coming.next))
    }
}
