//! What is durable of an instance.

use alloc::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    event::{Exit, Files},
    failover::{Cause, Standing},
    fence::Fence,
    ids::{Incarnation, Name},
    ladder::Ladder,
    ports::Block,
    restart::Restarts,
    time::Moment,
    trial::Trial,
};

/// Incarnation numbers reserved at a time: a restart or a failover never waits for the disk, which only sees
/// every so many restarts.
pub(crate) const RESERVE: u64 = 100;

/// With fewer numbers left than this, the next ones are reserved.
pub(crate) const RESERVE_AT: u64 = 20;

/// One instance as the registry keeps it.
///
/// What no version can have written is refused when it is read, like what is no record at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Record {
    /// Its name.
    pub name: Name,
    /// What was asked for, in the shell's words.
    pub spec: Arc<str>,
    /// Rises with each change of the spec.
    pub generation: u64,
    /// Its ports.
    pub block: Block,
    /// The first port it had before, until the configuration has followed.
    pub previous_base: Option<u16>,
    /// What the operator wishes.
    pub wish: Wish,
    /// Incarnations up to this one may be launched.
    pub reserved: Incarnation,
    /// The newest incarnation that is known to have run.
    pub launched: Incarnation,
    /// The exits of all incarnations up to this one are in the journal.
    pub seen: Incarnation,
    /// The generation that the newest incarnation was started with.
    #[serde(default)]
    pub observed: u64,
    /// It ended like this and is not run again: a new supervisor on the same host leaves it so.
    #[serde(default)]
    pub gave_up: Option<Exit>,
    /// All has been tried, and this came of it: it stays down until an operator starts it.
    #[serde(default)]
    pub quarantined: Option<Cause>,
    /// How far up the ladder it is.
    #[serde(default)]
    pub ladder: Ladder,
    /// What is known of its configurations.
    #[serde(default)]
    pub trial: Trial,
    /// What it uses of the channels.
    #[serde(default)]
    pub fence: Fence,
    /// Its restarts so far: neither the budget nor the delays begin anew with the next supervisor.
    #[serde(default)]
    pub restarts: Restarts,
    /// Who is in this instance's place.
    pub standing: Standing,
    /// It is deleted once it has stopped.
    pub deleting: Option<Files>,
    /// When it was created.
    pub created: Moment,
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The derived function of the type itself, not this one.
        let mut record = Self::deserialize(deserializer)?;
        // A life that was found running, after older records were put back, had its number reserved.
        record.reserved = record.reserved.max(record.launched);
        if record.seen > record.launched {
            return Err(de::Error::custom("the exit of a life that never was has been seen"));
        }
        if Block::at(record.block.base).is_none() {
            return Err(de::Error::custom("the ports end above 65535"));
        }
        Ok(record)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As above.
        Self::serialize(self, serializer)
    }
}

impl Record {
    /// Of an instance that has never run and is not to run yet.
    #[must_use]
    pub fn new(name: Name, spec: Arc<str>, block: Block, created: Moment) -> Self {
        Self {
            name,
            spec,
            generation: 1,
            block,
            previous_base: None,
            wish: Wish::Down,
            reserved: Incarnation(0),
            launched: Incarnation(0),
            seen: Incarnation(0),
            observed: 0,
            gave_up: None,
            quarantined: None,
            ladder: Ladder::default(),
            trial: Trial::default(),
            fence: Fence::default(),
            restarts: Restarts::default(),
            standing: Standing::Own,
            deleting: None,
            created,
        }
    }

    /// Nothing in it lies after `now`: after a restart of the host its clock may be behind, and whatever is compared
    /// with moments to come would wait for the clock to catch up. Says whether anything did.
    pub(crate) fn no_later_than(&mut self, now: Moment) -> bool {
        let later = self.created > now;
        self.created = self.created.min(now);
        let parts =
            [self.trial.no_later_than(now), self.fence.no_later_than(now), self.restarts.no_later_than(now)];
        later || parts.contains(&true)
    }
}

/// What the operator wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// It runs, or stands by.
    Up,
    /// It does not run.
    Down,
}
