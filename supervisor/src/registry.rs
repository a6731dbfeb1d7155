//! From stored specs to what core needs to know of them.

use supervisor_core::{
    event::{Dangling, Definition},
    ids::Name,
    instance::Instance,
    policy::Policy,
    ports::Block,
    record::Record,
    view::View,
};

use crate::{
    openclaw::{layout::Neighbour, prepare::Host, runtime},
    spec::{InstanceSpec, Kind, Runtime},
};

/// Why a stored spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It is not what any version wrote. Its text is not shown: it may hold secrets.
    #[error("failed to read the stored spec of `{name}`")]
    Spec {
        /// Whose.
        name: Name,
        /// Why.
        source: serde_json::Error,
    },
    /// Two instances hold the same ports, which no version ever gave out.
    #[error("the stored ports {block} of `{name}` overlap those of `{other}`")]
    Overlap {
        /// Whose.
        name: Name,
        /// Which.
        block: Block,
        /// The other.
        other: Name,
    },
}

/// Adds to each stored record the policy that follows from its spec.
pub fn restore(records: Vec<Record>, host: &Host) -> Result<Vec<(Record, Policy)>, RegistryError> {
    let mut held: Vec<(Block, &Name)> = records.iter().map(|record| (record.block, &record.name)).collect();
    held.sort_unstable();
    for pair in held.windows(2) {
        if let [(before, other), (block, name)] = *pair
            && block.overlaps(before)
        {
            return Err(RegistryError::Overlap { name: name.clone(), block, other: other.clone() });
        }
    }
    let with_policy = |record: Record| {
        let spec: InstanceSpec = serde_json::from_str(&record.spec)
            .map_err(|source| RegistryError::Spec { name: record.name.clone(), source })?;
        let policy = policy(&spec, host);
        Ok((record, policy))
    };
    records.into_iter().map(with_policy).collect()
}

/// What was asked for.
pub(crate) fn spec(instance: &Instance) -> InstanceSpec {
    // A stored spec that cannot be read keeps the supervisor from starting, so there is none.
    serde_json::from_str(&instance.record().spec).unwrap_or_default()
}

/// Whether an instance of these has a user of its own: it passes the data directory, and may call from there.
pub(crate) fn are_for_all(view: &View) -> bool {
    view.instances.values().any(|instance| spec(instance).user.is_some())
}

/// What the runtime of a spec comes to on this host. A program that is missing is refused when the instance is
/// started; until then the instance is treated as what was asked for.
#[must_use]
pub fn kind(spec: &InstanceSpec, host: &Host) -> Kind {
    match runtime::resolve(spec, host) {
        Ok(resolved) => resolved.kind,
        Err(_) => match spec.runtime.unwrap_or(Runtime::Auto) {
            Runtime::Auto if spec.version.is_some() => Kind::Openclaw,
            Runtime::Auto | Runtime::Builtin => Kind::Builtin,
            Runtime::Openclaw => Kind::Openclaw,
            Runtime::Command => Kind::Command,
        },
    }
}

/// How an instance with this spec is treated on this host.
#[must_use]
pub fn policy(spec: &InstanceSpec, host: &Host) -> Policy {
    spec.policy(kind(spec, host))
}

/// What core is told of an instance that is to have this spec.
pub fn definition(
    name: Name,
    spec: &InstanceSpec,
    dangling: Dangling,
    host: &Host,
) -> Result<Definition, serde_json::Error> {
    let policy = Box::new(policy(spec, host));
    Ok(Definition { name, spec: serde_json::to_string(spec)?.into(), policy, dangling })
}
/// All instances as they see each other.
pub(crate) fn neighbours(view: &View) -> Vec<Neighbour> {
    let neighbour =
        |instance: &Instance| Neighbour::of(instance.name(), instance.record().block, &spec(instance));
    view.instances.values().map(|instance| neighbour(instance)).collect()
}
