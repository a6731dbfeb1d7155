//! What the services share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supervisor_core::{
    action::Done,
    denied::Denied,
    event::{Asker, Command, Dangling, Definition},
    ids::Name,
    instance::Instance,
    time::Moment,
    view::View,
};
use supervisor_proto::v1;
use tokio::{sync::watch, task, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{
    convert::{Extent, Scene},
    facts::Facts,
    listen::Doors,
    origin::FindOrigin,
    requests::Requests,
    status::{Fault, Refusal},
};
use crate::{
    alerts::Alerts,
    audit::Audit,
    bindings::Bindings,
    custody::Exposed,
    events::Journal,
    figures::{Figures, Wanted},
    handle::Handle,
    logging::Logging,
    logs::Notices,
    metrics::Metrics,
    openclaw::{
        config::declared_port,
        guest::{Guest, Held},
        layout::{Clash, Directories, Layout, check_apart, led_by_people, led_home},
        prepare::Host,
        walls::grants::{Other, overreach},
    },
    recycle::Recycler,
    registry,
    settings::Settings,
    spec::{InstanceSpec, Violation},
    undying::Undying,
    user::UserError,
    walls::Standings,
    web::Dashboard,
};

/// Looking at the processes of this many instances takes a few milliseconds, and a caller waits for that. The
/// figures of more are shown as they were seen last.
const LOOK_AT_ONCE: usize = 32;

/// What the API is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// The door to the driver.
    pub(crate) handle: Handle,
    /// What happened.
    pub(crate) journal: Journal,
    /// What the supervisor knows of itself and of its host.
    pub(crate) host: Arc<Host>,
    /// The settings in force.
    pub(crate) settings: Settings,
    /// What the processes of instances use, and which of them too much.
    pub(crate) recycler: Recycler,
    /// How the walls around instances stand.
    pub(crate) walls: Standings,
    /// Finds out who listens on ports.
    pub(crate) listeners: FindListeners,
    /// Says what holds and marks what is run in instances.
    pub(crate) hold: FindHold,
    /// Finds out where callers come from.
    pub(crate) origins: FindOrigin,
    /// The supervisor's own files that others could read until it began.
    pub(crate) exposed: Exposed,
    /// What cannot be killed.
    pub(crate) undying: Undying,
    /// Who has which role.
    pub(crate) bindings: Bindings,
    /// The record of who called.
    pub(crate) audit: Audit,
    /// What is measured.
    pub(crate) metrics: Metrics,
    /// When the supervisor was started.
    pub(crate) started: Moment,
    /// The number of its life on its data directory.
    pub(crate) epoch: u64,
    /// Where the dashboard is served, and who has opened it.
    pub(crate) web: Option<Dashboard>,
    /// Who is told when something goes wrong.
    pub(crate) alerts: Alerts,
    /// What the supervisor says about itself.
    pub(crate) logging: Logging,
    /// The driver's pulse.
    pub(crate) beats: watch::Receiver<()>,
    /// Ends it.
    pub(crate) shutdown: CancellationToken,
}

/// Finds out who listens on which of the given ports; ports on which nobody does are missing. May block.
#[derive(Clone)]
pub(crate) struct FindListeners(pub(crate) Arc<ListenersOf>);

/// Says what is around a person's command in an instance. May block.
#[derive(Clone)]
pub(crate) struct FindHold(pub(crate) Arc<HoldOf>);

/// From a guest to what is around it.
pub(crate) type HoldOf = dyn Fn(&Host, &Guest) -> Result<Held, UserError> + Send + Sync;

impl fmt::Debug for FindHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FindHold")
    }
}

/// From ports to those who listen on them.
pub(crate) type ListenersOf = dyn Fn(&[u16]) -> Vec<Listener> + Send + Sync;

impl fmt::Debug for FindListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FindListeners")
    }
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The port.
    pub(crate) port: u16,
    /// The process; `None` if it cannot be seen from here.
    pub(crate) pid: Option<i32>,
    /// Its command, or what else is known of it.
    pub(crate) command: String,
}

/// The state of the API.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) handle: Handle,
    pub(super) journal: Journal,
    pub(super) facts: Facts,
    pub(super) figures: Figures,
    pub(super) recycler: Recycler,
    pub(super) walls: Standings,
    pub(super) requests: Requests,
    pub(super) notices: Notices,
    pub(super) listeners: FindListeners,
    pub(super) hold: FindHold,
    pub(super) exposed: Exposed,
    pub(super) undying: Undying,
    pub(super) bindings: Bindings,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    pub(super) doors: Doors,
    pub(super) started: Moment,
    pub(super) epoch: u64,
    pub(super) web: Option<Dashboard>,
    pub(super) alerts: Alerts,
    pub(super) logging: Logging,
    pub(super) shutdown: CancellationToken,
    settings: Mutex<Settings>,
}

impl Api {
    pub(super) fn new(context: Context, doors: Doors) -> Arc<Self> {
        let Context {
            handle,
            journal,
            host,
            settings,
            recycler,
            walls,
            listeners,
            hold,
            origins: _,
            exposed,
            undying,
            bindings,
            audit,
            metrics,
            started,
            epoch,
            web,
            alerts,
            logging,
            beats: _,
            shutdown,
        } = context;
        Arc::new(Self {
            handle,
            journal,
            facts: Facts::new(host),
            figures: recycler.figures().clone(),
            recycler,
            walls,
            requests: Requests::default(),
            notices: Notices::start(),
            listeners,
            hold,
            exposed,
            undying,
            bindings,
            audit,
            metrics,
            doors,
            started,
            epoch,
            web,
            alerts,
            logging,
            shutdown,
            settings: Mutex::new(settings),
        })
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        self.facts.host()
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the driver a command. The view shows what it did before this returns.
    pub(super) async fn submit(&self, command: Command) -> Result<Done, Refusal> {
        Ok(self.handle.submit(command).await?)
    }

    /// The same for who may call from inside an instance.
    pub(super) async fn submit_by(&self, by: Asker, command: Command) -> Result<Done, Refusal> {
        Ok(self.handle.submit_by(by, command).await?)
    }

    pub(super) fn scene<'a>(&'a self, view: &'a View, extent: Extent) -> Scene<'a> {
        Scene::new(view, &self.facts, (&self.figures, &self.recycler, &self.walls), extent)
    }

    /// The instance as it is now.
    pub(super) fn shown(&self, name: &Name) -> Option<v1::Instance> {
        let view = self.handle.view();
        let scene = self.scene(&view, Extent::Few);
        view.instances.get(name).map(|instance| scene.instance(instance))
    }

    /// Has somebody look at the processes of `instances` if that was long ago.
    pub(super) async fn look(&self, instances: impl Iterator<Item = &Instance>) {
        let wanted: Vec<Wanted> = instances.filter_map(Wanted::of).collect();
        if wanted.len() <= LOOK_AT_ONCE {
            self.figures.look(wanted).await;
        } else {
            let view = self.handle.view();
            self.figures.retain(|name| view.instances.contains_key(name));
            self.figures.look_later(wanted);
        }
    }

    /// What core is told of an instance that is to have `spec`.
    pub(super) fn definition(
        &self,
        name: Name,
        spec: &InstanceSpec,
        dangling: Dangling,
    ) -> Result<Definition, Refusal> {
        // Writing a spec as JSON does not fail.
        registry::definition(name, spec, dangling, self.host()).map_err(|error| Refusal::storage(&error))
    }

    /// The same of a new one. A profile that has a port already keeps it, if its spec names none.
    pub(super) async fn new_definition(
        &self,
        name: Name,
        spec: &InstanceSpec,
    ) -> Result<Definition, Refusal> {
        let mut definition = self.definition(name, spec, Dangling::Refused)?;
        if spec.profile.is_some() && spec.port.is_none() {
            let data_dir = &self.host().control.data_dir;
            let directories = Directories::of(data_dir, &definition.name, spec);
            // One that cannot be read is refused with its reason when the instance is started.
            let declared =
                task::spawn_blocking(move || declared_port(directories.own_config()).ok().flatten()).await;
            definition.policy.port = declared.map_err(|_| Refusal::ShuttingDown)?;
        }
        Ok(definition)
    }

    /// Refuses a spec whose directories meet those of another instance.
    pub(super) async fn keep_apart(
        &self,
        view: &View,
        name: &Name,
        spec: &InstanceSpec,
    ) -> Result<(), Refusal> {
        let grants = |spec: &InstanceSpec| spec.walls.grants().next().is_some();
        if spec.profile.is_none() && !grants(spec) {
            return Ok(());
        }
        let data_dir = self.host().control.data_dir.clone();
        let (name, spec) = (name.clone(), spec.clone());
        let others: Vec<(Name, InstanceSpec)> = view
            .instances
            .values()
            .filter(|other| *other.name() != name)
            .map(|other| (other.name().clone(), registry::spec(other)))
            .collect();
        let check = move || {
            let place = |name: &Name, spec: &InstanceSpec| Directories::of(&data_dir, name, spec);
            let mine = place(&name, &spec);
            let theirs: Vec<(&Name, Directories)> =
                others.iter().map(|(name, spec)| (name, place(name, spec))).collect();
            let me = (&mine, spec.walls.write.as_slice());
            let writers =
                others.iter().zip(&theirs).map(|((_, spec), (_, at))| (at, spec.walls.write.as_slice()));
            let granted = led_by_people(&data_dir, &spec, writers.chain([me]));
            let led = led_home(&mine).into_iter().chain(granted);
            let led: Vec<Fault> = led
                .map(|(field, led)| {
                    Fault::from(Violation { path: field, message: led.to_string(), mend: led.mend() })
                })
                .collect();
            if !led.is_empty() {
                return Err(Refusal::InvalidFields(led));
            }
            let profiles = theirs.iter().filter(|(_, directories)| directories.layout == Layout::Profile);
            check_apart(&data_dir, (&name, &mine), profiles.map(|(name, directories)| (*name, directories)))?;
            let all: Vec<Other<'_>> = others
                .iter()
                .zip(&theirs)
                .map(|((name, spec), (_, directories))| Other {
                    name,
                    directories,
                    writes: &spec.walls.write,
                })
                .collect();
            let refused = |clash: Option<Clash>| clash.map_or(Ok(()), Err);
            refused(overreach(&data_dir, (&name, &mine), &spec, &all))?;
            // What others have been granted must not open a new profile to them.
            let me = Other { name: &name, directories: &mine, writes: &spec.walls.write };
            others.iter().zip(&theirs).filter(|((_, spec), _)| grants(spec)).try_for_each(
                |((other, spec), (_, at))| refused(overreach(&data_dir, (other, at), spec, &[me])),
            )?;
            Ok(())
        };
        task::spawn_blocking(check).await.map_err(|_| Refusal::ShuttingDown)?
    }
}

/// The instance called `name`.
pub(super) fn known<'a>(view: &'a View, name: &Name) -> Result<&'a Instance, Refusal> {
    let found = view.instances.get(name).ok_or_else(|| Denied::UnknownInstance(name.clone()))?;
    Ok(found)
}

/// When the caller will have lost patience, and a little before that: an answer takes a moment to travel.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    const TRAVEL: Duration = Duration::from_millis(50);
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let patience = timeout(text)?;
    Some(Instant::now() + patience.saturating_sub(TRAVEL.min(patience / 10)))
}

/// As gRPC writes it: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_patience_is_read_as_grpc_writes_it() {
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(timeout("2M"), Some(Duration::from_secs(120)));
        assert_eq!(timeout("30S"), Some(Duration::from_secs(30)));
        assert_eq!(timeout("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "5", "5x", "123456789S", "é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
