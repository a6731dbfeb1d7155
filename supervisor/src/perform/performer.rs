//! Begins actions: finds who is to do each, and hands it over.

use std::{collections::HashMap, rc::Rc, time::Duration};

use supervisor_core::{
    action::{Action, Batch},
    event::Event,
    ids::Name,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{self, JoinHandle},
    time::{self, Instant},
};
use tracing::{error, warn};

use super::{
    Configs, Surroundings, config, launch, probe,
    store::Store,
    worker::{self, Order},
};

/// Edited configurations that may wait to be looked at. The watch waits while there are more.
const EDITS: usize = 64;

/// At the end, what has been begun has this long to be done.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// The task of one instance.
type Hand = (mpsc::Sender<Order>, JoinHandle<()>);

/// All the hands.
#[derive(Debug)]
pub(crate) struct Performer {
    surroundings: Rc<Surroundings>,
    store: Store,
    /// The task of each instance.
    tasks: HashMap<Name, Hand>,
    /// How to ask each instance that has been asked.
    targets: HashMap<Name, launch::Target>,
}

impl Performer {
    /// Hands that have done nothing yet.
    pub(crate) fn new(surroundings: Surroundings, store: Store) -> Self {
        let (edited, edits) = mpsc::channel(EDITS);
        let surroundings = Rc::new(Surroundings { configs: Configs::watched(edited), ..surroundings });
        task::spawn_local(config::follow(Rc::clone(&surroundings), edits));
        Self { surroundings, store, tasks: HashMap::new(), targets: HashMap::new() }
    }

    /// Begins one action. A reply is not an effect; the driver keeps those to itself.
    pub(crate) fn begin(&mut self, action: Action) {
        match action {
            Action::Reply(..) => {}
            Action::Persist(batch) => self.persist(batch),
            Action::Adopt(name) => self.order(&name, Order::Adopt),
            Action::Launch(launch) => {
                self.targets.remove(&launch.name);
                let name = launch.name.clone();
                self.order(&name, Order::Launch(Box::new(launch)));
            }
            Action::Stop { name, incarnation, grace } => self.order(&name, Order::Stop(incarnation, grace)),
            Action::Kill { name, incarnation } => self.order(&name, Order::Kill(incarnation)),
            Action::Acknowledge { name, incarnation } => self.order(&name, Order::Acknowledge(incarnation)),
            Action::Release { name } => self.order(&name, Order::Release),
            Action::Sweep { name, incarnation } => self.order(&name, Order::Sweep(incarnation)),
            Action::Inform { name, incidents } => self.order(&name, Order::Inform(incidents)),
            Action::Examine { name, incarnation, why } => {
                self.order(&name, Order::Examine(incarnation, why));
            }
            Action::AskHandoff { name, incarnation, pid } => {
                self.order(&name, Order::AskHandoff(incarnation, pid));
            }
            Action::Restore { name, to, why } => self.order(&name, Order::Restore(to, why)),
            Action::Forget { name, files } => {
                self.targets.remove(&name);
                self.order(&name, Order::Forget(files));
            }
            Action::Probe { name, incarnation, kind, block, spec } => {
                let target = self.targets.entry(name.clone()).or_insert_with(launch::Target::new).clone();
                let surroundings = Rc::clone(&self.surroundings);
                task::spawn_local(async move {
                    // Without a target there is no answer, and core counts that as one.
                    let Some(target) = target.resolve(&surroundings, &name, block, &spec).await else {
                        return;
                    };
                    let begun = Instant::now();
                    let report = probe::probe(&target, kind).await;
                    surroundings.metrics.probed(kind, begun.elapsed());
                    let report = probe::unless_squatted(
                        report,
                        &target,
                        kind,
                        (&surroundings.listeners, &surroundings.lineage),
                    )
                    .await;
                    let _ = surroundings.events.send(Event::Probed(name, incarnation, report)).await;
                });
            }
        }
    }

    fn persist(&self, batch: Batch) {
        let mut roster = self.surroundings.roster.borrow_mut();
        batch.writes.iter().for_each(|write| roster.note(write));
        batch.entries.iter().for_each(|entry| self.surroundings.metrics.note(entry));
        self.store.persist(batch);
    }

    fn order(&mut self, name: &Name, order: Order) {
        let needed = match &order {
            Order::Adopt | Order::Launch(_) | Order::Sweep(_) | Order::Forget(_) | Order::Restore(..) => true,
            // About what a task knows. Without one, it has been forgotten.
            Order::Stop(..)
            | Order::Kill(_)
            | Order::Acknowledge(_)
            | Order::Release
            | Order::Inform(_)
            | Order::AskHandoff(..)
            | Order::Examine(..) => false,
        };
        if self.tasks.get(name).is_none_or(|(orders, _)| orders.is_closed()) {
            // Tasks end when their instances are deleted; this is where they are let go.
            self.tasks.retain(|_, (orders, _)| !orders.is_closed());
            if !needed {
                return;
            }
            self.tasks.insert(name.clone(), worker::start(name.clone(), Rc::clone(&self.surroundings)));
        }
        let Some((orders, _)) = self.tasks.get(name) else { return };
        match orders.try_send(order) {
            Ok(()) => {}
            // Nobody would ask again. There is one for each instance.
            Err(TrySendError::Full(order @ Order::Forget(_))) => {
                let orders = orders.clone();
                task::spawn_local(async move {
                    let _ = orders.send(order).await;
                });
            }
            // Core asks again, or more harshly, when its deadline has passed.
            Err(refused) => error!(instance = %name, "an order was lost: {refused}"),
        }
    }

    /// Lets what has been begun be done, so that no worker is left that was to go and nothing is left unwritten.
    /// What takes longer is the next supervisor's.
    pub(crate) async fn finish(self) {
        let hands = self.tasks.into_values().map(|(_, hand)| hand).collect::<Vec<_>>();
        let all = async {
            for hand in hands {
                let _ = hand.await;
            }
        };
        if time::timeout(LAST_PATIENCE, all).await.is_err() {
            warn!("some instances were in the middle of something; the next supervisor goes on");
        }
        self.store.finish();
    }
}

#[cfg(test)]
mod tests;
