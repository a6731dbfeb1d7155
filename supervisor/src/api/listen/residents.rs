//! Who lives in the instances: the users that they have of their own, as which a rescue calls, and their workers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use supervisor_core::{ids::Name, view::View};
use tokio::{sync::watch, task, time::sleep};

use crate::{handle::Handle, registry, spec::UserName, user};

/// How soon a new one is known. Until then it calls as any other does.
const PAUSE: Duration = Duration::from_secs(1);

/// They, as of a moment ago. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Residents(watch::Receiver<Known>);

#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<UserName>,
    users: BTreeSet<u32>,
    workers: HashMap<i32, Name>,
}

impl Residents {
    /// Follows the registry for as long as somebody asks.
    pub(super) fn following(handle: &Handle) -> Self {
        let (known, residents) = watch::channel(Known::default());
        let mut views = handle.watch();
        tokio::spawn(async move {
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                let names: BTreeSet<UserName> =
                    view.instances.values().filter_map(|instance| registry::spec(instance).user).collect();
                let is_same = known.borrow().names == names;
                let users = match is_same {
                    true => known.borrow().users.clone(),
                    false => users(names.clone()).await,
                };
                known.send_replace(Known { names, users, workers: workers(&view) });
                sleep(PAUSE).await;
                let changed = tokio::select! {
                    () = known.closed() => return,
                    changed = views.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        });
        Self(residents)
    }

    /// Whether it is the user of an instance.
    pub(super) fn has(&self, uid: u32) -> bool {
        self.0.borrow().users.contains(&uid)
    }

    /// Whose worker a process is.
    pub(super) fn of_worker(&self, pid: i32) -> Option<Name> {
        self.0.borrow().workers.get(&pid).cloned()
    }
}

/// Their numbers. Whom the host does not know does not call.
async fn users(names: BTreeSet<UserName>) -> BTreeSet<u32> {
    let look_up = move || names.iter().filter_map(|name| user::uid(Some(name)).ok()).collect();
    task::spawn_blocking(look_up).await.unwrap_or_default()
}

fn workers(view: &View) -> HashMap<i32, Name> {
    let workers =
        view.instances.values().filter_map(|one| Some((one.process()?.worker_pid, one.name().clone())));
    workers.collect()
}
