//! The supervisor as a process: it dies, the next one begins, and the host sleeps or is restarted under it.

use std::{sync::Arc, time::Duration};

use supervisor_core::{Origin, Supervisor, instance::Boot, view::View};

use crate::{
    agenda::Next,
    chance::{Lot, NOBODY},
    check::Violation,
    tasks::Task,
    trial::Watched,
    watch::Source,
    world::World,
};

/// Until somebody notices that the supervisor has died, and starts the next.
const DOWN: Duration = Duration::from_secs(3);

/// How long a host sleeps, at most: longer than every limit that core has.
const SLEEP: Duration = Duration::from_secs(7_200);

/// How far the clock may fall back at a restart of the host, at most: a host without a battery begins anywhere.
const BACK: Duration = Duration::from_secs(86_400);

impl World {
    pub(crate) fn on_death_drawn(&mut self) -> Result<(), Violation> {
        self.draw_next(Lot::SupervisorDies, Next::Dies);
        match self.strikes_so(Lot::SupervisorDies, NOBODY, crate::chance::ALWAYS) {
            Some(_) => self.on_supervisor_dies(),
            None => Ok(()),
        }
    }

    /// The supervisor is gone, in the middle of whatever it did.
    pub(crate) fn on_supervisor_dies(&mut self) -> Result<(), Violation> {
        if self.core.take().is_none() {
            return Ok(());
        }
        self.narrate(|| "the supervisor dies".into());
        self.tally.deaths += 1;
        self.epoch += 1;
        self.tick = None;
        self.tear()?;
        self.hang_up()?;
        self.reference.lose();
        self.stop_watching();
        if self.strikes(Lot::Reboot, NOBODY).is_some() {
            self.reboot();
        }
        self.tasks.fill(Task::default());
        let span = self.span(Lot::Begin, NOBODY, DOWN);
        self.after(span, Next::Begins);
        Ok(())
    }

    fn reboot(&mut self) {
        self.narrate(|| "the host is restarted".into());
        self.boot = Boot::New;
        self.lose_processes();
        self.watched.iter_mut().for_each(Watched::reboot);
        if let Some(mut swarm) = self.strikes(Lot::ClockBack, NOBODY) {
            let back = swarm.span(BACK);
            self.behind += back;
            self.narrate(|| format!("its clock is {} s further behind", back.as_secs()));
        }
    }

    pub(crate) fn on_supervisor_begins(&mut self) -> Result<(), Violation> {
        self.narrate(|| "a supervisor begins".into());
        let records = self.store.durable.records.values();
        let origin = Origin {
            records: records.map(|record| (record.clone(), self.fleet.policy(&record.spec))).collect(),
            pool: self.store.durable.pool,
            max_instances: self.fleet.names.len().max(2) - 1,
            revision: self.store.durable.revision,
            boot: std::mem::replace(&mut self.boot, Boot::Same),
            seed: self.chance.seed(),
        };
        let mut actions = Vec::new();
        let core = Supervisor::restore(origin, self.clock(), &mut actions);
        self.view = View::new(core.revision());
        for instance in core.instances() {
            self.view.instances.insert(instance.name().clone(), Arc::new(instance.clone()));
        }
        self.look_again();
        self.core = Some(core);
        self.examine(&actions, &Source::World)?;
        self.perform(&mut actions)
    }

    /// The host sleeps: whatever was on its way comes when it wakes.
    pub(crate) fn on_sleep(&mut self) {
        self.draw_next(Lot::HostSleeps, Next::Sleeps);
        if let Some(mut swarm) = self.strikes_so(Lot::HostSleeps, NOBODY, crate::chance::ALWAYS) {
            let span = swarm.span(SLEEP);
            self.narrate(|| format!("the host sleeps for {} s", span.as_secs()));
            self.now = self.now + span;
        }
    }
}
