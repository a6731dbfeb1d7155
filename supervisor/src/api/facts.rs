//! What the shell knows of an instance beyond core's view of it: its spec in the contract's words, its
//! directories, what its runtime came to.
//!
//! What takes time is worked out once for each life of an instance and kept, so that a list of a thousand
//! instances is a matter of copying; what is quickly found again is not kept a thousand times.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use supervisor_core::{
    failover::Incident,
    ids::{Incarnation, Name},
    instance::Instance,
    time::Moment,
    view::View,
};
use supervisor_proto::v1;

use super::{context::FindHold, convert_spec};
use crate::{
    openclaw::{
        config::{Discovery, declared_discovery},
        contract::Contract,
        environment::{Ingredients, MARK, environment, withheld},
        guest::{Guest, Held},
        incident,
        layout::Directories,
        prepare::Host,
        runtime::{self, Resolved},
    },
    registry,
    spec::{InstanceSpec, Profile},
    user::UserError,
};

/// Facts are kept for this many instances more than there are, before those of the deleted ones are dropped.
const SLACK: usize = 64;

/// What is known of one life of an instance.
#[derive(Debug)]
pub(super) struct Fact {
    /// What was asked for, in the contract's words.
    pub(super) message: v1::InstanceSpec,
    /// What the runtime came to.
    pub(super) runtime: v1::Runtime,
    /// What should be known about that choice; empty if nothing.
    pub(super) note: Box<str>,
    /// The profile that it uses in place.
    profile: Option<Box<Profile>>,
}

/// Of which life a fact is. An instance may be deleted and created anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    created: Moment,
    generation: u64,
    incarnation: Incarnation,
}

/// The facts of all instances.
#[derive(Debug)]
pub(super) struct Facts {
    host: Arc<Host>,
    known: Mutex<HashMap<Name, (Life, Arc<Fact>)>>,
}

/// What it takes to run a program as an instance's gateway is run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Its environment, without its mark, and where it is started.
    pub(super) surroundings: Surroundings,
    /// What is around it.
    pub(super) held: Held,
}

/// The environment of an instance's gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Variables that may be shown.
    pub(super) variables: BTreeMap<String, String>,
    /// The names of the others.
    pub(super) withheld: Vec<String>,
    /// Where it is started.
    pub(super) working_directory: PathBuf,
}

impl Facts {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host, known: Mutex::default() }
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What is known of `instance`, which `view` shows.
    pub(super) fn of(&self, view: &View, instance: &Instance) -> Arc<Fact> {
        let record = instance.record();
        let life = Life {
            created: record.created,
            generation: record.generation,
            incarnation: instance.incarnation(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fact)) = known.get(instance.name()).filter(|(of, _)| *of == life) {
            return Arc::clone(fact);
        }
        let fact = Arc::new(self.find_out(instance));
        known.insert(instance.name().clone(), (life, Arc::clone(&fact)));
        if known.len() > view.instances.len() + SLACK {
            known.retain(|name, _| view.instances.contains_key(name));
        }
        fact
    }

    fn find_out(&self, instance: &Instance) -> Fact {
        let spec = registry::spec(instance);
        let (runtime, note) = self.runtime(&spec);
        let profile = spec.profile.clone().map(Box::new);
        Fact { message: convert_spec::to_proto(&spec), runtime, note: note.into(), profile }
    }

    /// Where the files of `instance` are, of which `fact` is known.
    pub(super) fn directories(&self, instance: &Instance, fact: &Fact) -> Directories {
        Directories::at(&self.host.control.data_dir, instance.name(), fact.profile.as_deref())
    }

    /// Where they are, for who knows nothing else of it.
    pub(super) fn directories_of(&self, instance: &Instance) -> Directories {
        let spec = registry::spec(instance);
        Directories::of(&self.host.control.data_dir, instance.name(), &spec)
    }

    fn runtime(&self, spec: &InstanceSpec) -> (v1::Runtime, String) {
        match runtime::resolve(spec, &self.host) {
            Ok(resolved) => (convert_spec::kind_to_proto(resolved.kind), resolved.note.unwrap_or_default()),
            Err(missing) => {
                let asked = convert_spec::to_proto(spec).runtime();
                (asked, format!("{missing}; {}", missing.mend()))
            }
        }
    }

    /// The environment that a start of `instance` would give its gateway now. Reads its configuration.
    pub(super) fn surroundings(&self, view: &View, instance: &Instance) -> Surroundings {
        let spec = registry::spec(instance);
        let directories = self.directories_of(instance);
        let runtime = self.resolved(&spec);
        let incidents: Vec<_> = view
            .stands_in_for(instance)
            .map(|(primary, stand_in)| self.describe(primary, &stand_in.incident))
            .collect();
        let incident_file = incident::file(&directories.root);
        let mut variables = environment(&Ingredients {
            host: &self.host.environment,
            name: instance.name(),
            directories: &directories,
            block: instance.record().block,
            added: &spec.env,
            runtime: &runtime,
            mark: "",
            control: &self.host.control,
            // A start would refuse a configuration that cannot be read.
            discovery: declared_discovery(&directories).unwrap_or(Discovery::Quiet),
            incidents: &incidents,
            incident_file: &incident_file,
            contract: Contract::None,
            channels: instance.channels(),
        });
        // What a person runs in it outside the walls must not be taken for a process of the instance.
        variables.remove(MARK);
        let withheld = withheld(&variables);
        variables.retain(|name, _| !withheld.contains(name));
        Surroundings { variables, withheld, working_directory: directories.home }
    }

    /// What it takes to run a program as the gateway of `instance` would be run now. Reads its configuration, and looks at
    /// files.
    pub(super) fn entry(
        &self,
        view: &View,
        instance: &Instance,
        hold: &FindHold,
    ) -> Result<Entry, UserError> {
        let surroundings = self.surroundings(view, instance);
        let held = (hold.0)(
            &self.host,
            &Guest {
                name: instance.name().clone(),
                spec: registry::spec(instance),
                block: instance.record().block,
                neighbours: registry::neighbours(view),
                environment: surroundings.variables.clone(),
            },
        )?;
        Ok(Entry { surroundings, held })
    }

    /// What runs in an instance with this spec, as far as it is there.
    fn resolved(&self, spec: &InstanceSpec) -> Resolved {
        runtime::resolve(spec, &self.host).unwrap_or_else(|_| Resolved {
            kind: registry::kind(spec, &self.host),
            program: PathBuf::new(),
            args: Vec::new(),
            note: None,
            beside: None,
        })
    }

    /// An incident as far as the environment tells of it.
    fn describe(&self, primary: &Instance, incident: &Incident) -> incident::Incident {
        let directories = self.directories_of(primary);
        incident::Incident {
            number: incident.number,
            primary: incident.primary.clone(),
            since: UNIX_EPOCH + Duration::from_nanos(incident.since.0),
            reason: incident.cause.to_string(),
            last_exit: incident.last_exit.as_ref().map(ToString::to_string),
            log: Vec::new(),
            config: directories.config,
            config_revision: None,
            state_dir: directories.state,
            port: primary.record().block.base,
        }
    }
}
