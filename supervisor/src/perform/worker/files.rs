//! What an instance's task does with files and tools of the instance, beside its worker.

use std::{sync::Arc, time::Duration};

use supervisor_core::{
    event::{Event, Files},
    failover::Incident,
    ids::{ConfigId, Incarnation},
};
use supervisor_proto::worker::Wall;
use tokio::{task, time};
use tracing::warn;

use super::{
    super::{
        Contracts,
        config::Place,
        evidence::{self, Hung},
        launch,
    },
    Task,
};
use crate::openclaw::contract::Contract;

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
    pub(super) fn note_walls(&self, life: Incarnation, reported: Vec<Wall>) {
        let spec = self.surroundings.roster.borrow().get(&self.name).map(|known| Arc::clone(&known.spec));
        if let Some(spec) = spec {
            self.surroundings.walls.note(&self.name, life, &spec, reported);
        }
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
        if let Err(error) = launch::delete(&self.surroundings, &self.name, self.run_dir.clone(), files).await
        {
            warn!(instance = %self.name, %error, "failed to delete its files");
        }
        // Whoever has been created by its name meanwhile may have been told of a configuration that is gone.
        self.watch();
    }
}
