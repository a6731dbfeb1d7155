//! What holds after every event. Checked by `debug_assert!`, by every test and by the simulator.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use crate::{
    Supervisor,
    action::Launch,
    failover::Standing,
    ids::{Credential, Name, Revision},
    instance::{Goal, Instance, Launching, Phase},
    record::Wish,
};

/// Says what does not hold.
pub fn check(supervisor: &Supervisor) -> Result<(), String> {
    blocks(supervisor)?;
    relations(supervisor)?;
    timers(supervisor)?;
    let mut held: BTreeMap<&Name, Vec<(Revision, &Launch)>> = BTreeMap::new();
    for (gate, launch) in supervisor.outbox.launches() {
        held.entry(&launch.name).or_default().push((gate, launch));
    }
    for instance in supervisor.instances.values() {
        numbers(instance)?;
        processes(instance)?;
        launches(supervisor, instance, held.get(instance.name()).map(Vec::as_slice).unwrap_or_default())?;
        wishes(supervisor, instance)?;
        place(supervisor, instance)?;
        deadline(supervisor, instance)?;
    }
    credentials(supervisor)
}

/// No two gateways that may be alive were started with the same credential.
fn credentials(supervisor: &Supervisor) -> Result<(), String> {
    let mut users: BTreeMap<Credential, &Name> = BTreeMap::new();
    for instance in supervisor.instances.values() {
        for credential in instance.started_with() {
            if let Some(other) = users.insert(credential, instance.name()) {
                hold(
                    instance,
                    &format!("nothing it was started with is used by `{other}`"),
                    other == instance.name(),
                )?;
            }
        }
    }
    Ok(())
}

fn hold(instance: &Instance, rule: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{}: {rule}: {instance:?}", instance.name())) }
}

/// Blocks never overlap, and each instance holds exactly its own.
fn blocks(supervisor: &Supervisor) -> Result<(), String> {
    let mut last = None;
    for (block, name) in supervisor.ports.held() {
        if last.is_some_and(|last| block.base <= last) {
            return Err(format!("{name}: ports {block} overlap the block before"));
        }
        if supervisor.instances.get(name).map(|instance| instance.record.block) != Some(block) {
            return Err(format!("{name}: ports {block} are held by nobody"));
        }
        last = Some(block.last());
    }
    if supervisor.ports.held().count() == supervisor.instances.len() {
        Ok(())
    } else {
        Err("an instance holds no ports".into())
    }
}

/// The list of who rescues whom says what the instances say.
fn relations(supervisor: &Supervisor) -> Result<(), String> {
    let listed: usize = supervisor.rescuers.values().map(Vec::len).sum();
    let mut declared = 0;
    for instance in supervisor.instances.values() {
        for (n, primary) in instance.policy.rescues.iter().enumerate() {
            let known = supervisor.rescuers.get(primary).is_some_and(|list| list.contains(instance.name()));
            hold(instance, "it is listed as a rescue", known)?;
            declared += usize::from(!instance.policy.rescues[..n].contains(primary));
        }
    }
    if listed == declared { Ok(()) } else { Err("somebody is listed as a rescue who is none".into()) }
}

/// The list of deadlines holds those of the instances and no others.
fn timers(supervisor: &Supervisor) -> Result<(), String> {
    for (deadline, name) in &supervisor.timers {
        if supervisor.instances.get(name).is_none_or(|instance| instance.timer != Some(*deadline)) {
            return Err(format!("{name}: {deadline:?} is nobody's"));
        }
    }
    let set = supervisor.instances.values().filter(|instance| instance.timer.is_some()).count();
    if set == supervisor.timers.len() { Ok(()) } else { Err("a deadline is not in the list".into()) }
}

/// A launch is held or has left exactly while its instance waits for it, and waits for a revision that is on its
/// way to the disk.
fn launches(
    supervisor: &Supervisor,
    instance: &Instance,
    held: &[(Revision, &Launch)],
) -> Result<(), String> {
    let (spawning, right) = match instance.launching {
        Launching::Held => (true, held.len() == 1),
        Launching::Ordered(_) => {
            (matches!(instance.phase, Phase::Spawning | Phase::Stopping { .. }), held.is_empty())
        }
        Launching::No => (instance.phase != Phase::Spawning, held.is_empty()),
    };
    hold(instance, "a launch under way exactly while spawning", spawning)?;
    hold(instance, "one held launch for each that waits", right)?;
    let fits = |(gate, launch): &(Revision, &Launch)| {
        launch.incarnation == instance.incarnation
            && supervisor.stored < *gate
            && *gate <= supervisor.persisted
            && instance.phase == Phase::Spawning
    };
    hold(instance, "a held launch is the current one, and will leave", held.iter().all(fits))
}

fn numbers(instance: &Instance) -> Result<(), String> {
    let record = &instance.record;
    hold(instance, "no incarnation beyond the reserved ones", instance.incarnation <= record.reserved)?;
    hold(
        instance,
        "nothing is launched whose number is not durable",
        !matches!(instance.launching, Launching::Ordered(_)) || instance.incarnation <= instance.durable,
    )?;
    hold(instance, "no exit of a life that never was", record.seen <= record.launched)
}

fn processes(instance: &Instance) -> Result<(), String> {
    let process = instance.process.is_some();
    let (must, may) = match instance.phase {
        Phase::Stopped | Phase::Adopting | Phase::Spawning | Phase::Backoff { .. } | Phase::Failed { .. } => {
            (false, false)
        }
        Phase::Starting | Phase::Ready | Phase::Unhealthy => (true, true),
        Phase::Stopping { .. } => (false, true),
    };
    hold(instance, "a process exactly in the phases that have one", (!must || process) && (may || !process))?;
    let ready = instance.health.ready_since().is_some();
    hold(instance, "ready exactly when Ready", ready == (instance.phase == Phase::Ready))
}

/// A stopped instance stays stopped.
fn wishes(supervisor: &Supervisor, instance: &Instance) -> Result<(), String> {
    let goal = supervisor.goal(instance);
    hold(instance, "the goal follows from wish, standby and failover", instance.goal == goal)?;
    let unwanted = instance.record.wish == Wish::Down && instance.record.deleting.is_none();
    hold(instance, "no goal against the wish", !unwanted || goal == Goal::Rest)?;
    let resting = match instance.phase {
        Phase::Stopped | Phase::Adopting | Phase::Stopping { .. } => true,
        Phase::Spawning
        | Phase::Starting
        | Phase::Ready
        | Phase::Unhealthy
        | Phase::Backoff { .. }
        | Phase::Failed { .. } => false,
    };
    hold(instance, "what should rest is at rest or on its way", goal == Goal::Run || resting)?;
    hold(
        instance,
        "what should run is not left stopped",
        goal == Goal::Rest || instance.phase != Phase::Stopped,
    )
}

/// Whoever stands in is known, does rescue this primary, and is wished up.
fn place(supervisor: &Supervisor, instance: &Instance) -> Result<(), String> {
    let Some(stand_in) = instance.record.standing.stand_in() else { return Ok(()) };
    if supervisor.halting.is_some() || instance.record.deleting.is_some() {
        return Ok(());
    }
    let mut rescues = supervisor.rescues_of(instance.name());
    let known = rescues.find(|rescue| *rescue.name() == stand_in.rescue);
    hold(instance, "who stands in is one of its rescues", known.is_some_and(Supervisor::can_stand_in))?;
    let active = matches!(instance.record.standing, Standing::Away(_));
    hold(instance, "who stands in is alive", !active || known.is_some_and(Instance::is_running))
}

fn deadline(supervisor: &Supervisor, instance: &Instance) -> Result<(), String> {
    let wanted = supervisor.deadline_of(instance);
    hold(instance, "the deadline is in the list", instance.timer == wanted)
}
