//! What an instance's task does with files and tools of the instance, beside its worker.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Event, Files},
    failover::Incident,
    ids::{ConfigId, Incarnation},
};
use supervisor_proto::worker::{Wall, wall::Kind};
use tokio::{task, time};
use tracing::warn;

use super::{
    super::{
        Contracts, Groups,
        config::Place,
        evidence::{self, Hung},
        launch,
    },
    Leftovers, Task,
};
use crate::{openclaw::contract::Contract, spec::InstanceSpec};

impl Task {
    /// What its runtime can do, as far as that is known after this time.
    pub(super) async fn contract(&self, place: &Place, patience: Duration) -> Contract {
        Contracts::of(&self.surroundings, place, &self.surroundings.mark(&self.name), patience).await
    }

    /// Writes down what a life is doing that is about to be killed.
    pub(super) async fn examine(&self, incarnation: Incarnation, why: String) {
        let Some(place) = Place::of(&self.surroundings, &self.name) else { return };
        let (worker, name) = (self.worker_pid, self.name.clone());
        let examined = task::spawn_blocking(move || {
            evidence::keep(&place.directories(), &Hung { name: &name, incarnation, worker, why: &why })
        });
        match time::timeout(evidence::LIMIT, examined).await {
            Ok(Ok(Ok(path))) => {
                let path = path.to_string_lossy().into_owned();
                self.tell(Event::Examined(self.name.clone(), incarnation, path)).await;
            }
            Ok(Ok(Err(error))) => {
                warn!(instance = %self.name, %error, "failed to write down what it was doing");
            }
            Ok(Err(_)) | Err(_) => {
                warn!(instance = %self.name, "what it was doing could not be learned in time");
            }
        }
    }

    /// Takes down how the walls around a life stand.
    pub(super) async fn note_walls(&self, life: Incarnation, reported: Vec<Wall>) {
        let Some(spec) = self.spec() else { return };
        let (name, asked) = (self.name.clone(), Arc::clone(&spec));
        let standing = move |groups: &Groups| (groups.standing(&name, &asked, &reported), reported);
        if let Some((group, reported)) = self.with_groups(standing).await {
            self.surroundings.walls.note(&self.name, life, &spec, reported, group);
        }
    }

    /// Bounds the group of a life that was found running, if it is in one.
    pub(super) async fn renew_group(&self, reported: &[Wall]) {
        let in_group = reported.iter().any(|wall| wall.kind() == Kind::Cgroup);
        if let Some(spec) = self.spec().filter(|_| in_group) {
            let name = self.name.clone();
            self.with_groups(move |groups| groups.renew(&name, &spec)).await;
        }
    }

    /// Kills whatever is in the instance's group or carries its mark; returns when nothing does.
    pub(super) async fn clear(&mut self) {
        let name = self.name.clone();
        self.with_groups(move |groups| groups.clear(&name)).await;
        self.surroundings.sweeper.sweep(&self.surroundings.mark(&self.name)).await;
        self.leftovers = Leftovers::None;
    }

    /// Does something with control groups, aside: the kernel may keep who writes there waiting. None, if the daemon is
    /// ending.
    async fn with_groups<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Groups) -> T + Send + 'static,
    ) -> Option<T> {
        let groups = self.surroundings.groups.clone();
        task::spawn_blocking(move || work(&groups)).await.ok()
    }

    fn spec(&self) -> Option<Arc<InstanceSpec>> {
        self.surroundings.roster.borrow().get(&self.name).map(|known| Arc::clone(&known.spec))
    }

    /// Whoever edits its configuration is seen from now on.
    pub(super) fn watch(&self) {
        if let Some(place) = Place::of(&self.surroundings, &self.name).filter(Place::has_config) {
            self.surroundings.configs.follow(&self.name, place.config());
        }
    }

    pub(super) async fn inform(&self, incidents: Vec<Incident>) {
        if let Err(error) = launch::inform(&self.surroundings, self.name.clone(), &incidents).await {
            warn!(instance = %self.name, error = &error as &dyn std::error::Error, "failed to write its incident file");
        }
    }

    pub(super) async fn restore(&self, to: ConfigId, why: String) {
        let Some(place) = Place::of(&self.surroundings, &self.name) else { return };
        if let Ok(event) = task::spawn_blocking(move || place.restore(to, &why)).await {
            self.tell(event).await;
        }
    }

    pub(super) async fn forget(&mut self, files: Files) {
        self.surroundings.configs.forget(&self.name);
        self.surroundings.walls.forget(&self.name);
        self.release().await;
        // What people run in it outlives a stop. The next one of its name must not find it inside.
        self.clear().await;
        if let Err(error) = launch::delete(&self.surroundings, &self.name, self.run_dir.clone(), files).await
        {
            warn!(instance = %self.name, %error, "failed to delete its files");
            self.tell(Event::FilesLeft(self.name.clone(), error.to_string())).await;
        }
        let name = self.name.clone();
        self.with_groups(move |groups| groups.remove(&name)).await;
        // Whoever has been created by its name meanwhile may have been told of a configuration that is gone.
        self.watch();
    }
}
