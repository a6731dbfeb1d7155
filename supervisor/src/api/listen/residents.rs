//! The users that instances have of their own. A rescue calls as one of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, task, time::sleep};

use crate::{handle::Handle, registry, spec::UserName, user};

/// How soon a new one is known. Until then it calls as any stranger does.
const PAUSE: Duration = Duration::from_secs(1);

/// Their numbers, as of a moment ago. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Residents(watch::Receiver<BTreeSet<u32>>);

impl Residents {
    /// Follows the registry for as long as somebody asks.
    pub(super) fn following(handle: &Handle) -> Self {
        let (known, numbers) = watch::channel(BTreeSet::new());
        let mut views = handle.watch();
        tokio::spawn(async move {
            let mut before = Arc::default();
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                let users = view.instances.values().filter_map(|instance| registry::spec(instance).user);
                let names: Arc<BTreeSet<UserName>> = Arc::new(users.collect());
                if names != before {
                    before = Arc::clone(&names);
                    // Whom the host does not know does not call.
                    let look_up =
                        move || names.iter().filter_map(|name| user::uid(Some(name)).ok()).collect();
                    known.send_replace(task::spawn_blocking(look_up).await.unwrap_or_default());
                }
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
        Self(numbers)
    }

    pub(super) fn has(&self, uid: u32) -> bool {
        self.0.borrow().contains(&uid)
    }
}
