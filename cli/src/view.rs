//! Reading answers: what the contract leaves optional, made plain.

use std::sync::LazyLock;

use prost_types::Timestamp;
use supervisor_proto::v1::{
    FailoverStatus, Incident, Instance, InstanceStatus, Phase, Role, Runtime, incident::Outcome,
};

static NO_STATUS: LazyLock<InstanceStatus> = LazyLock::new(InstanceStatus::default);
static NO_FAILOVER: LazyLock<FailoverStatus> = LazyLock::new(FailoverStatus::default);

/// What is seen of an instance.
pub(crate) fn status(instance: &Instance) -> &InstanceStatus {
    instance.status.as_ref().unwrap_or(&NO_STATUS)
}

/// Who stands in for whom.
pub(crate) fn failover(instance: &Instance) -> &FailoverStatus {
    status(instance).failover.as_ref().unwrap_or(&NO_FAILOVER)
}

/// Who stands in for this primary, if somebody does.
pub(crate) fn stand_in(primary: &Instance) -> Option<&str> {
    let failover = failover(primary);
    let somebody = !failover.active.is_empty() && failover.active != primary.name;
    (failover.role() == Role::Rescued && somebody).then_some(failover.active.as_str())
}

/// Whether an instance in this phase does not do what it should, and is not on its way there.
pub(crate) fn is_unwell(phase: Phase) -> bool {
    match phase {
        Phase::Unhealthy | Phase::Backoff | Phase::Failed | Phase::Repairing => true,
        Phase::Unspecified
        | Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Ready
        | Phase::Stopping => false,
    }
}

/// Since when it is as its phase says: one that is tried again and again has not been well since before the last try.
pub(crate) fn since(instance: &Instance) -> Option<&Timestamp> {
    let status = status(instance);
    let waits = matches!(status.phase(), Phase::Backoff | Phase::Failed);
    status.trouble_time.as_ref().filter(|_| waits).or(status.phase_time.as_ref())
}

/// Whether an incident goes on. How some ended was not recorded.
pub(crate) fn is_open(incident: &Incident) -> bool {
    matches!(incident.outcome(), Outcome::Open | Outcome::GivenUp)
}

/// Whether the running process was started from an older spec than the present one.
pub(crate) fn runs_old_spec(instance: &Instance) -> bool {
    let status = status(instance);
    status.pid != 0 && status.observed_generation != 0 && status.observed_generation < status.generation
}

/// A runtime in one word.
pub(crate) fn runtime_word(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Unspecified | Runtime::Auto => "auto",
        Runtime::Openclaw => "openclaw",
        Runtime::Builtin => "builtin",
        Runtime::Command => "command",
    }
}
