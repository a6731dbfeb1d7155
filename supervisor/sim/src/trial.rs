//! What must never be of configurations and on the ladder, seen from outside of core.

use std::collections::BTreeSet;

use supervisor_core::{
    Supervisor,
    action::{Action, Launch},
    event::{Command, Event, Sighting},
    failover::Standing,
    ids::{ConfigId, Incarnation, Name},
    instance::{Goal, Instance, Phase},
    journal::{Kind, Recovery},
    ladder::{Purpose, Rung},
    record::Record,
    time::Moment,
};

use crate::{check::Violation, config::Config, fleet::Fleet, host::Doom, world::World};

/// A rule of configurations or of the ladder does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misstep {
    /// There was a good configuration, and none is known any more.
    #[error("{0}: its last good configuration is forgotten")]
    GoodLost(Name),
    /// Taken for good without having been ready for long enough, and nobody said so.
    #[error("{name}: {} is taken for good and has not proven it", content.short())]
    Unproven {
        /// Whose.
        name: Name,
        /// What.
        content: ConfigId,
    },
    /// Put back without having been asked for, and not the last good one.
    #[error("{name}: {} is put back and is not the last good configuration", to.short())]
    PutBack {
        /// Whose.
        name: Name,
        /// What.
        to: ConfigId,
    },
    /// What is to be put back was not kept.
    #[error("{name}: {} is to be put back and has not been kept", to.short())]
    NotKept {
        /// Whose.
        name: Name,
        /// What.
        to: ConfigId,
    },
    /// Started once more with what was taken back.
    #[error("{name}: is started with {}, which was taken back before", content.short())]
    Relapse {
        /// Whose.
        name: Name,
        /// What.
        content: ConfigId,
    },
    /// A second repair.
    #[error("{0}: is repaired again")]
    RepairedTwice(Name),
    /// A rung was climbed that its policy leaves out.
    #[error("{name}: {what}, against its policy")]
    AgainstPolicy {
        /// Whose.
        name: Name,
        /// What was done.
        what: &'static str,
    },
    /// Back at the foot of the ladder for no reason.
    #[error("{0}: is back at the foot of the ladder, and was neither well nor started by an operator")]
    FootReached(Name),
    /// Quarantine was left without an operator.
    #[error("{0}: is started, and no operator has ended its quarantine")]
    QuarantineBroken(Name),
    /// A repair was taken for a gateway.
    #[error("{0}: is a repair, and serves")]
    RepairServes(Name),
}

/// What an operator asked for that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A start.
    Anew,
    /// It is to stand in.
    Called,
    /// This content is good.
    Good(ConfigId),
}

/// What is known from outside of one instance's trial and climb.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// What an operator asks for just now.
    asked: Option<Asked>,
    /// Every content that proved good, or was said to be.
    proven: BTreeSet<ConfigId>,
    /// Which life is ready, and since when.
    ready: Option<(Incarnation, Moment)>,
    /// A repair has left since it was last at the foot of the ladder.
    repaired: bool,
    quarantined: bool,
    /// The content that core was told of last.
    sighted: Option<ConfigId>,
    /// The life of which core was told what it was started with.
    told: Option<Incarnation>,
}

impl Watched {
    /// The host is restarted.
    pub(crate) fn reboot(&mut self) {
        self.quarantined = false;
    }

    /// A record becomes durable: what is good is still known, and is good.
    pub(crate) fn check_stored(&self, before: Option<&Record>, now: &Record) -> Result<(), Misstep> {
        let before = before.filter(|before| before.created == now.created);
        match (before.and_then(|before| before.trial.good()), now.trial.good()) {
            (Some(_), None) => Err(Misstep::GoodLost(now.name.clone())),
            (_, Some(content)) if !self.proven.contains(&content) => {
                Err(Misstep::Unproven { name: now.name.clone(), content })
            }
            (_, _) => Ok(()),
        }
    }

    /// It has been ready for long enough to be back at the foot of the ladder.
    fn was_well(&self, before: &Instance, after: &Instance, now: Moment) -> bool {
        let reset_after = |instance: &Instance| instance.policy().restart.reset_after;
        let since = self.ready.map(|(_, since)| since).or((*after.phase() == Phase::Ready).then_some(now));
        since.is_some_and(|since| now.since(since) >= reset_after(before).min(reset_after(after)))
    }

    fn follow_ready(&mut self, instance: &Instance, now: Moment) {
        let life = instance.incarnation();
        self.ready = match self.ready {
            _ if *instance.phase() != Phase::Ready => None,
            Some((before, since)) if before == life => Some((before, since)),
            Some(_) | None => Some((life, now)),
        };
    }

    /// Whether the newest good configuration has become so rightly. To be asked before it is seen whether it is
    /// still ready.
    fn check_good(
        &mut self,
        config: &Config,
        before: Option<&Instance>,
        now: &Instance,
        clock: Moment,
    ) -> Result<(), Misstep> {
        let good = |instance: &Instance| instance.record().trial.good();
        let name = || now.name().clone();
        match (before.and_then(good), good(now)) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(Misstep::GoodLost(name())),
            (before, Some(content)) if before == Some(content) => Ok(()),
            (_, Some(content)) => {
                let (life, since) = self.ready.unwrap_or((now.incarnation(), clock));
                let long = clock.since(since) >= now.policy().trial.good_after;
                let proven = long && config.started.get(&life) == Some(&content);
                if !proven && self.asked != Some(Asked::Good(content)) {
                    return Err(Misstep::Unproven { name: name(), content });
                }
                self.proven.insert(content);
                Ok(())
            }
        }
    }

    /// What was taken back is not started with again, as far as that was known when the life began.
    fn check_relapse(&self, now: &Instance) -> Result<(), Misstep> {
        let (trial, ladder) = (&now.record().trial, now.policy().ladder);
        let Some(content) = self.sighted.filter(|_| ladder.roll_back && !ladder.held) else { return Ok(()) };
        let rejected = trial.rejected().iter().any(|rejection| rejection.content == content);
        let refuge = trial.good().is_some_and(|good| good != content);
        if rejected && refuge && trial.restoring().is_none() {
            return Err(Misstep::Relapse { name: now.name().clone(), content });
        }
        Ok(())
    }
}

/// Core is about to be told what a configuration is like.
pub(crate) fn watch_sighting(core: &Supervisor, fleet: &Fleet, watched: &mut [Watched], event: &Event) {
    let awaits = |name: &Name, content: &ConfigId| {
        let restoring = core.instance(name).and_then(|instance| instance.record().trial.restoring());
        restoring.is_some_and(|restoring| restoring.to == *content)
    };
    let is_late = |name: &Name, sighting: &Sighting| {
        core.instance(name)
            .is_some_and(|instance| sighting.used_by.is_some_and(|life| life < instance.incarnation()))
    };
    let (name, content, used_by) = match event {
        Event::ConfigSeen(name, sighting) if is_late(name, sighting) => return,
        Event::ConfigSeen(name, sighting) => (name, sighting.content, sighting.used_by),
        Event::Restored(name, content) if awaits(name, content) => (name, Some(*content), None),
        // It comes so late that something else has been wished since.
        Event::Restored(..) => return,
        Event::Command(..)
        | Event::Stored(_)
        | Event::StoreFailing(_)
        | Event::Tick
        | Event::Adopted(..)
        | Event::Launched(..)
        | Event::LaunchFailed(..)
        | Event::Notified(..)
        | Event::Probed(..)
        | Event::Exited(..)
        | Event::WorkerLost(..)
        | Event::Swept(..)
        | Event::Handoff(..)
        | Event::Examined(..)
        | Event::RestoreFailed(..)
        | Event::FilesLeft(..) => return,
    };
    if let Some(watched) = fleet.index(name).and_then(|who| watched.get_mut(who)) {
        watched.sighted = content;
        watched.told = used_by.or(watched.told);
    }
}

impl World {
    /// An operator asks for something.
    pub(crate) fn ask_watched(&mut self, command: &Command) {
        let (name, asked) = match command {
            Command::Start { name, .. } | Command::Restart { name, .. } | Command::RollBack { name, .. } => {
                (name, Asked::Anew)
            }
            Command::MarkGood { name, content } => (name, Asked::Good(*content)),
            Command::FailOver { rescue: Some(rescue), .. } => (rescue, Asked::Called),
            Command::Create(_)
            | Command::Update { .. }
            | Command::Delete { .. }
            | Command::Apply { .. }
            | Command::Stop { .. }
            | Command::Recycle { .. }
            | Command::FailOver { rescue: None, .. }
            | Command::FailBack { .. }
            | Command::Halt => return,
        };
        if let Some(who) = self.fleet.index(name) {
            self.watched[who].asked = Some(asked);
        }
    }

    /// It was allowed, or not.
    pub(crate) fn answer_watched(&mut self, allowed: bool) {
        for watched in &mut self.watched {
            let asked = watched.asked.take().filter(|_| allowed);
            watched.repaired &= asked != Some(Asked::Anew);
            watched.quarantined &= !matches!(asked, Some(Asked::Anew | Asked::Called));
        }
    }

    /// The supervisor has died: what it was told is forgotten, and so is what was not stored.
    pub(crate) fn stop_watching(&mut self) {
        self.forget_sightings();
        let clock = self.clock();
        for (who, name) in self.fleet.names.iter().enumerate() {
            let (watched, seen) = (&mut self.watched[who], &self.seen[who]);
            watched.repaired &= !seen.as_ref().is_some_and(|seen| watched.was_well(seen, seen, clock));
            let record = self.store.durable.records.get(name);
            // What runs was started by somebody.
            let runs = self.host.machines[who].life.is_some();
            watched.quarantined = !runs && record.is_some_and(|record| record.quarantined.is_some());
            (watched.asked, watched.ready, watched.sighted, watched.told) = (None, None, None, None);
        }
    }

    /// What core writes down of a climb.
    pub(crate) fn check_entries(&mut self, actions: &[Action]) -> Result<(), Misstep> {
        for action in actions {
            let Action::Persist(batch) = action else { continue };
            for entry in &batch.entries {
                if let (Some(name), Kind::Recovery(recovery)) = (&entry.instance, &entry.kind) {
                    self.check_entry(name, recovery)?;
                }
            }
        }
        Ok(())
    }

    fn check_entry(&mut self, name: &Name, recovery: &Recovery) -> Result<(), Misstep> {
        let core = self.core.as_ref().and_then(|core| core.instance(name));
        let (Some(instance), Some(who)) = (core, self.fleet.index(name)) else { return Ok(()) };
        let ladder = instance.policy().ladder;
        let (what, allowed) = match recovery {
            Recovery::Repairing => ("it is repaired", ladder.repair.is_some()),
            Recovery::ConfigTakenBack { from, to, .. } => {
                ("its configuration is taken back", ladder.roll_back && from != to)
            }
            Recovery::Quarantined { .. } => {
                self.watched[who].quarantined = true;
                ("it is quarantined", ladder.quarantine)
            }
            Recovery::ConfigChanged { .. }
            | Recovery::ConfigBroken { .. }
            | Recovery::ConfigGood { .. }
            | Recovery::ConfigRestored { .. }
            | Recovery::RestoreFailed { .. }
            | Recovery::Repaired { .. }
            | Recovery::RestartWanted { .. }
            | Recovery::Examined { .. }
            | Recovery::HandoffUnknown { .. } => return Ok(()),
        };
        if allowed && !ladder.held {
            return Ok(());
        }
        Err(Misstep::AgainstPolicy { name: name.clone(), what })
    }

    /// An instance has changed.
    pub(crate) fn check_trial(
        &mut self,
        who: usize,
        before: Option<&Instance>,
        now: Option<&Instance>,
    ) -> Result<(), Misstep> {
        let clock = self.clock();
        let watched = &mut self.watched[who];
        let Some(now) = now else {
            let (asked, proven) = (watched.asked, std::mem::take(&mut watched.proven));
            *watched = Watched { asked, proven, ..Watched::default() };
            self.host.machines[who].polls.forget();
            return Ok(());
        };
        let rung = |instance: &Instance| instance.record().ladder.rung();
        if let Some(before) = before {
            let well = watched.was_well(before, now, clock);
            watched.repaired &= !well;
            let down = rung(before) != Rung::Restart && rung(now) == Rung::Restart;
            if down && !well && watched.asked != Some(Asked::Anew) {
                return Err(Misstep::FootReached(now.name().clone()));
            }
        }
        watched.check_good(&self.configs[who], before, now, clock)?;
        watched.follow_ready(now, clock);
        let begins = before.is_none_or(|before| before.incarnation() < now.incarnation());
        match now.purpose() {
            Purpose::Serve if begins && *now.phase() == Phase::Spawning => watched.check_relapse(now)?,
            Purpose::Serve => self.check_serving(who, now)?,
            Purpose::Repair => self.check_repair(now)?,
        }
        Ok(())
    }

    /// What serves is no repair.
    fn check_serving(&self, who: usize, instance: &Instance) -> Result<(), Misstep> {
        let life = self.host.machines[who].life.as_ref();
        let repair = life.is_some_and(|life| {
            life.incarnation == instance.incarnation() && life.doom == Some(Doom::Repairs)
        });
        if repair && matches!(instance.phase(), Phase::Ready | Phase::Unhealthy) {
            return Err(Misstep::RepairServes(instance.name().clone()));
        }
        Ok(())
    }

    /// A repair serves nobody.
    fn check_repair(&self, repair: &Instance) -> Result<(), Misstep> {
        let core = self.core.iter().flat_map(|core| core.instances());
        // Who is being deleted keeps its standing until it is gone.
        let records = core.map(Instance::record).filter(|record| record.deleting.is_none());
        let mut standings = records.map(|record| &record.standing);
        let active = repair.goal() == Goal::Run
            && standings.any(|it| matches!(it, Standing::Away(by) if by.rescue == *repair.name()));
        if active || matches!(repair.phase(), Phase::Ready | Phase::Unhealthy) {
            return Err(Misstep::RepairServes(repair.name().clone()));
        }
        Ok(())
    }

    /// A launch leaves.
    pub(crate) fn check_climb(&mut self, who: usize, launch: &Launch) -> Result<(), Violation> {
        let watched = &mut self.watched[who];
        if watched.quarantined {
            return Err(Misstep::QuarantineBroken(launch.name.clone()).into());
        }
        if launch.purpose == Purpose::Repair && std::mem::replace(&mut watched.repaired, true) {
            return Err(Misstep::RepairedTwice(launch.name.clone()).into());
        }
        match &launch.restore {
            Some(restoring) => self.check_restore(&launch.name, restoring.to, restoring.unasked),
            None => Ok(()),
        }
    }

    /// What is put back has been kept; unasked, it is the last good one.
    pub(crate) fn check_restore(&self, name: &Name, to: ConfigId, unasked: bool) -> Result<(), Violation> {
        let core = self.core.as_ref().and_then(|core| core.instance(name));
        let (Some(instance), Some(who)) = (core, self.fleet.index(name)) else { return Ok(()) };
        let name = name.clone();
        if unasked && instance.record().trial.good() != Some(to) {
            return Err(Misstep::PutBack { name, to }.into());
        }
        // The wish may be that of an instance of the same name, since deleted.
        let wished = instance.record().trial.restoring().is_some_and(|restoring| restoring.to == to);
        let config = &self.configs[who];
        if wished && !config.can_be_put_back(to) && !config.was_purged(to) {
            return Err(Misstep::NotKept { name, to }.into());
        }
        Ok(())
    }

    /// Whether all that should have proven good has. `Err` says what has not.
    pub(crate) fn config_settled(&self, who: usize, instance: &Instance) -> Result<(), &'static str> {
        let life = instance.incarnation();
        let started = self.configs[who].started.get(&life).copied();
        let told = self.watched[who].told == Some(life) && *instance.phase() == Phase::Ready;
        let proven =
            started.is_some_and(|started| instance.record().trial.goods().any(|good| good == started));
        if told && !proven {
            return Err("its configuration has not proven good");
        }
        Ok(())
    }
}
