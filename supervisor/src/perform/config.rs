//! An instance's configuration in the hands of the supervisor: looked at, kept, put back.
//!
//! Core is told of a content that a life was started with only once that content is kept: what has proven good can
//! be put back whatever happens. A start waits for that where there is something to go back to; the first start of
//! all does not, for nothing can be rolled back to nothing.

use std::{cell::RefCell, collections::HashMap, path::PathBuf, rc::Rc, sync::Arc, time::SystemTime};

use supervisor_core::{
    action::Launch,
    event::{Event, Sighting},
    fence::Channels,
    ids::{ConfigId, Credential, Name},
    ports::Block,
    trial::Restoring,
};
use tokio::{sync::mpsc, task};
use tracing::warn;

use super::{Surroundings, roster::Known, watch::Watch};
use crate::{
    openclaw::{
        config::{
            Wanted,
            check::{Look, look, read_plainly},
            credentials::{self, Purse},
        },
        layout::{Directories, Neighbour},
        prepare::Host,
        snapshots::{Limits, Snapshots, Why, content_id, restore},
    },
    registry,
    spec::{InstanceSpec, Kind},
};

/// What is known of all instances' configurations.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    /// What each was when it was last looked at.
    sighted: RefCell<HashMap<Name, Sighting>>,
    /// Tells whose has changed.
    watch: Option<Watch>,
    /// Takes whose is to be looked at.
    edited: Option<mpsc::Sender<Name>>,
}

impl Configs {
    /// `edited` is told whose has changed. To be called on the driver's runtime.
    pub(super) fn watched(edited: mpsc::Sender<Name>) -> Self {
        Self { watch: Some(Watch::start(edited.clone())), edited: Some(edited), ..Self::default() }
    }

    /// Whoever edits it is seen from now on.
    pub(super) fn follow(&self, name: &Name, config: PathBuf) {
        if let Some(watch) = &self.watch {
            watch.add(name.clone(), config);
        }
    }

    /// Has it looked at.
    async fn look_again(&self, name: Name) {
        if let Some(edited) = &self.edited {
            let _ = edited.send(name).await;
        }
    }

    /// It is deleted.
    pub(super) fn forget(&self, name: &Name) {
        self.sighted.borrow_mut().remove(name);
        if let Some(watch) = &self.watch {
            watch.remove(name);
        }
    }
}

/// All that is needed to look at one instance's configuration, aside.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) host: Arc<Host>,
    pub(super) name: Name,
    pub(super) spec: Arc<InstanceSpec>,
    pub(super) block: Block,
    /// The first port it had before, until its configuration has followed.
    pub(super) previous_base: Option<u16>,
    pub(super) neighbours: Arc<[Neighbour]>,
    /// Keys the fingerprints of credentials.
    pub(super) store_id: String,
    /// Snapshots that must stay.
    pub(super) needed: Vec<ConfigId>,
    /// The last good one.
    pub(super) good: Option<ConfigId>,
    /// What was seen last.
    pub(super) known: Option<Sighting>,
}

/// What a launch finds.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) sighting: Sighting,
    /// The content, if it is still to be kept.
    pub(super) unkept: Option<Vec<u8>>,
}

impl Place {
    /// The place of an instance that the roster knows.
    pub(super) fn of(surroundings: &Surroundings, name: &Name) -> Option<Self> {
        let mut roster = surroundings.roster.borrow_mut();
        let neighbours = roster.neighbours();
        let Known { block, previous_base, spec, needed, good } = roster.get(name)?.clone();
        Some(Self {
            host: Arc::clone(&surroundings.host),
            name: name.clone(),
            spec,
            block,
            previous_base,
            neighbours,
            store_id: surroundings.groups.store().to_owned(),
            needed,
            good,
            known: surroundings.configs.sighted.borrow().get(name).cloned(),
        })
    }

    /// Of which kind its runtime is.
    pub(super) fn kind(&self) -> Kind {
        registry::kind(&self.spec, &self.host)
    }

    /// Whether what runs there reads a configuration.
    pub(super) fn has_config(&self) -> bool {
        match self.kind() {
            Kind::Openclaw | Kind::Builtin => true,
            Kind::Command => false,
        }
    }

    /// The configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.directories().config
    }

    pub(super) fn directories(&self) -> Directories {
        Directories::of(&self.host.control.data_dir, &self.name, &self.spec)
    }

    /// Looks at the configuration. One that is still what it was costs no more than reading it.
    fn look(&self) -> Look {
        let directories = self.directories();
        if let Some(known) = &self.known
            && known.problem.is_none()
            && let Ok(Some(content)) = read_plainly(directories.own_config())
            && known.content == Some(content_id(&content))
        {
            // A credential may stand in a file of its own.
            let named = credentials::of(&String::from_utf8_lossy(&content), &directories, &self.purse());
            let credentials = named.into_iter().map(|named| named.credential).collect();
            let sighting = Sighting { used_by: None, credentials, ..known.clone() };
            return Look { sighting, content: Some(content), credentials: Vec::new() };
        }
        let wanted = Wanted {
            name: &self.name,
            directories: &directories,
            block: self.block,
            previous_base: self.previous_base,
            data_dir: &self.host.control.data_dir,
            neighbours: &self.neighbours,
        };
        look(&wanted, self.good, &self.purse())
    }

    fn purse(&self) -> Purse<'_> {
        Purse { salt: &self.store_id, spec: &self.spec }
    }

    /// Keeps a content; says so in the daemon's log if it cannot.
    fn keep(&self, content: &[u8], why: &Why) -> bool {
        let snapshots = Snapshots::of(&self.directories());
        let kept = snapshots.keep(content, why, SystemTime::now()).and_then(|id| {
            let wanted: Vec<ConfigId> = self.needed.iter().copied().chain([id]).collect();
            let count = usize::try_from(self.spec.trial.kept()).unwrap_or(usize::MAX);
            snapshots.prune(&wanted, Limits { count, ..Limits::default() })
        });
        match kept {
            Ok(_) => true,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(instance = %self.name, error, "its configuration cannot be kept, so it will not be gone back to");
                false
            }
        }
    }

    /// What a life is started with. Looks, and keeps what has to be kept before the start. `Err`: what it finds names
    /// credentials that the launch may not use.
    pub(super) fn used(&self, launch: &Launch) -> Result<Option<Used>, Sighting> {
        let Look { sighting, content, .. } = self.look();
        let cleared = |named: &Credential| launch.credentials.contains(named);
        if launch.channels == Channels::On && !sighting.credentials.iter().all(cleared) {
            return Err(sighting);
        }
        let sighting = Sighting { used_by: Some(launch.incarnation), ..sighting };
        Ok(content.and_then(|content| self.kept_for(sighting, content)))
    }

    fn kept_for(&self, sighting: Sighting, content: Vec<u8>) -> Option<Used> {
        let same = self.known.as_ref().is_some_and(|known| known.content == sighting.content);
        if same {
            return Some(Used { sighting, unkept: None });
        }
        let first = Snapshots::of(&self.directories()).list().is_ok_and(|kept| kept.is_empty());
        if first {
            return Some(Used { sighting, unkept: Some(content) });
        }
        let kept = self.keep(&content, &Why::Started);
        kept.then_some(Used { sighting, unkept: None })
    }

    /// Puts an older content in place, and says what became of it.
    pub(super) fn restore(&self, to: ConfigId, why: &str) -> Event {
        let directories = self.directories();
        match restore(&directories, &Snapshots::of(&directories), to, why, SystemTime::now()) {
            Ok(_) => Event::Restored(self.name.clone(), to),
            Err(error) => {
                let mut message = error.to_string();
                if let Some(source) = std::error::Error::source(&error) {
                    message = format!("{message}: {source}");
                }
                Event::RestoreFailed(self.name.clone(), message)
            }
        }
    }

    /// The same before a launch, if one asks for it.
    pub(super) fn restore_first(&self, restoring: Option<&Restoring>) -> Option<Event> {
        restoring.map(|Restoring { to, why, .. }| self.restore(*to, why))
    }
}

/// Keeps what a life was started with, and then tells core of it.
pub(super) fn keep_then_tell(
    surroundings: Rc<Surroundings>,
    place: Place,
    content: Vec<u8>,
    sighting: Sighting,
) {
    task::spawn_local(async move {
        let name = place.name.clone();
        let kept = task::spawn_blocking(move || place.keep(&content, &Why::Started)).await;
        if kept.unwrap_or(false) {
            tell(&surroundings, name, sighting).await;
        }
    });
}

/// Tells core what a configuration is like that is kept.
pub(super) async fn tell(surroundings: &Surroundings, name: Name, sighting: Sighting) {
    let before = surroundings.configs.sighted.borrow_mut().insert(name.clone(), sighting.clone());
    // What a launch has read may be told after what was seen later.
    let overtaken =
        before.is_some_and(|before| sighting.used_by.is_some() && before.content != sighting.content);
    tell_unkept(surroundings, name.clone(), sighting).await;
    if overtaken {
        surroundings.configs.look_again(name).await;
    }
}

/// The same for one that is not: the next start has to keep it.
pub(super) async fn tell_unkept(surroundings: &Surroundings, name: Name, sighting: Sighting) {
    let _ = surroundings.events.send(Event::ConfigSeen(name, sighting)).await;
}

/// Looks at each configuration that is said to have changed, keeps what is new, and tells core.
pub(super) async fn follow(surroundings: Rc<Surroundings>, mut changed: mpsc::Receiver<Name>) {
    while let Some(name) = changed.recv().await {
        let Some(place) = Place::of(&surroundings, &name) else { continue };
        let known = place.known.clone();
        let seen = task::spawn_blocking(move || {
            let Look { sighting, content, .. } = place.look();
            let changed = known.is_none_or(|known| Sighting { used_by: None, ..known } != sighting);
            let kept = !changed || content.is_none_or(|content| place.keep(&content, &Why::Seen));
            changed.then_some((sighting, kept))
        });
        match seen.await {
            Ok(Some((sighting, true))) => tell(&surroundings, name, sighting).await,
            Ok(Some((sighting, false))) => tell_unkept(&surroundings, name, sighting).await,
            Ok(None) | Err(_) => {}
        }
    }
}
