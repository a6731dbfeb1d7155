//! What holds after every event. Checked by `debug_assert!`, by every test and by the simulator.

use alloc::{format, string::String};

use crate::{
    Supervisor,
    failover::Standing,
    instance::{Goal, Instance, Launching, Phase},
    record::Wish,
};

/// Says what does not hold.
pub fn check(supervisor: &Supervisor) -> Result<(), String> {
    blocks(supervisor)?;
    for instance in supervisor.instances.values() {
        numbers(instance)?;
        processes(instance)?;
        wishes(supervisor, instance)?;
        place(supervisor, instance)?;
        deadline(supervisor, instance)?;
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

/// Whoever stands in is known and does rescue this primary.
fn place(supervisor: &Supervisor, instance: &Instance) -> Result<(), String> {
    let Some(stand_in) = instance.record.standing.stand_in() else { return Ok(()) };
    let mut rescues = supervisor.rescues_of(instance.name());
    let known = rescues.find(|rescue| *rescue.name() == stand_in.rescue);
    let halting = supervisor.halting.is_some();
    hold(instance, "who stands in is one of its rescues", halting || known.is_some())?;
    let active = matches!(instance.record.standing, Standing::Away(_));
    let alive = known.is_none_or(|rescue| rescue.is_running());
    hold(instance, "who stands in is alive", halting || !active || alive)
}

fn deadline(supervisor: &Supervisor, instance: &Instance) -> Result<(), String> {
    let failback = supervisor.failback_due(instance.name());
    let wanted = instance.deadline().into_iter().chain(failback).min();
    hold(instance, "the deadline is in the list", instance.timer == wanted)
}
