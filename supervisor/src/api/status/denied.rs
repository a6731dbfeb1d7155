//! What core refuses, as callers are told of it.

use supervisor_core::denied::Denied;
use supervisor_proto::v1::Reason;

use super::Label;

pub(super) fn reason(denied: &Denied) -> Reason {
    match denied {
        Denied::UnknownInstance(_) => Reason::UnknownInstance,
        Denied::InstanceExists(_) => Reason::InstanceExists,
        Denied::StaleGeneration(_) => Reason::EtagMismatch,
        Denied::PoolExhausted { .. } => Reason::PoolExhausted,
        Denied::PortOverlap { .. } => Reason::PortOverlap,
        Denied::PortOutsidePool { .. } => Reason::PortOutsidePool,
        Denied::PortInUse(_) => Reason::PortInUse,
        Denied::RescueOfItself(_) => Reason::RescueOfItself,
        Denied::RescueCycle(_) => Reason::RescueCycle,
        Denied::UnknownPrimary { .. } => Reason::UnknownPrimary,
        Denied::NotARescue { .. } | Denied::NoRescue(_) => Reason::NotARescue,
        Denied::RescueDown(_) => Reason::RescueDown,
        Denied::NotFailedOver(_) => Reason::NotFailedOver,
        Denied::AlreadyFailedOver { .. } => Reason::AlreadyFailedOver,
        Denied::PrimaryNotReady(_) => Reason::PrimaryNotReady,
        Denied::InstanceRunning(_) => Reason::InstanceRunning,
        Denied::InstanceDown(_) | Denied::NotRecycled(_) => Reason::InstanceDown,
        Denied::InstanceDeleting(_) => Reason::InstanceDeleting,
        Denied::TooManyInstances(_) => Reason::TooManyInstances,
        Denied::ShuttingDown => Reason::ShuttingDown,
    }
}

/// What to do next; empty where core's sentence says it.
pub(super) fn next(denied: &Denied) -> String {
    match denied {
        Denied::UnknownInstance(name) => {
            format!("`openclawctl up {name}` creates it; `openclawctl status` lists all")
        }
        Denied::InstanceExists(_) => "choose another name, or update it".into(),
        Denied::StaleGeneration(_) | Denied::PoolExhausted { .. } => String::new(),
        Denied::PortOverlap { .. } => "choose another `port`, or leave it out".into(),
        Denied::PortOutsidePool { .. } => "choose a `port` inside, or widen the pool".into(),
        Denied::PortInUse(name) => format!("`openclawctl down {name}` first"),
        Denied::RescueOfItself(_) => "name another instance in `rescues`".into(),
        Denied::RescueCycle(_) => "let one of them rescue nobody".into(),
        Denied::UnknownPrimary { primary, .. } => format!("create `{primary}` first"),
        Denied::NotARescue { primary, .. } => format!("add `{primary}` to its `rescues`"),
        Denied::NoRescue(name) => format!("give an instance `rescues: [{name}]`"),
        Denied::RescueDown(_) => "`openclawctl up` its rescue first".into(),
        Denied::NotFailedOver(_) => "there is nothing to give back".into(),
        Denied::AlreadyFailedOver { .. } => "`openclawctl failback` ends that".into(),
        Denied::PrimaryNotReady(name) | Denied::NotRecycled(name) => {
            format!("`openclawctl status {name}` says why")
        }
        Denied::InstanceRunning(name) => format!("`openclawctl down {name}` first"),
        Denied::InstanceDown(name) => format!("`openclawctl up {name}` starts it"),
        Denied::InstanceDeleting(_) => "wait until it is gone".into(),
        Denied::TooManyInstances(_) => "delete one, or raise `max_instances` in the settings".into(),
        Denied::ShuttingDown => "try again when it is back".into(),
    }
}

pub(super) fn labels(denied: &Denied) -> Vec<Label> {
    match denied {
        Denied::UnknownInstance(name)
        | Denied::InstanceExists(name)
        | Denied::StaleGeneration(name)
        | Denied::PortInUse(name)
        | Denied::RescueOfItself(name)
        | Denied::NoRescue(name)
        | Denied::RescueDown(name)
        | Denied::NotFailedOver(name)
        | Denied::PrimaryNotReady(name)
        | Denied::InstanceRunning(name)
        | Denied::InstanceDown(name)
        | Denied::NotRecycled(name)
        | Denied::InstanceDeleting(name) => vec![("instance", name.to_string())],
        Denied::PoolExhausted { first, last } => {
            vec![("poolFirst", first.to_string()), ("poolLast", last.to_string())]
        }
        Denied::PortOverlap { name, wanted, holder, held } => vec![
            ("instance", name.to_string()),
            ("wanted", wanted.to_string()),
            ("holder", holder.to_string()),
            ("held", held.to_string()),
        ],
        Denied::PortOutsidePool { name, wanted, first, last } => vec![
            ("instance", name.to_string()),
            ("wanted", wanted.to_string()),
            ("poolFirst", first.to_string()),
            ("poolLast", last.to_string()),
        ],
        Denied::RescueCycle(circle) => vec![("circle", circle.clone())],
        Denied::UnknownPrimary { rescue, primary } | Denied::NotARescue { rescue, primary } => {
            vec![("instance", rescue.to_string()), ("primary", primary.to_string())]
        }
        Denied::AlreadyFailedOver { primary, rescue } => {
            vec![("instance", primary.to_string()), ("rescue", rescue.to_string())]
        }
        Denied::TooManyInstances(most) => vec![("maxInstances", most.to_string())],
        Denied::ShuttingDown => Vec::new(),
    }
}
