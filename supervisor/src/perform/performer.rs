//! Begins actions: finds who is to do each, and hands it over.

use std::{collections::HashMap, io, rc::Rc};

use supervisor_core::{
    action::{Action, Batch},
    event::Event,
    ids::Name,
};
use tokio::{sync::mpsc, task};
use tracing::error;

use super::{
    Surroundings, launch, probe, reap,
    store::Store,
    worker::{self, Order},
};

/// All the hands.
#[derive(Debug)]
pub(crate) struct Performer {
    surroundings: Rc<Surroundings>,
    store: Store,
    /// The task of each instance.
    tasks: HashMap<Name, mpsc::Sender<Order>>,
    /// How to ask each instance that has been asked.
    targets: HashMap<Name, launch::Target>,
}

impl Performer {
    /// Hands that have done nothing yet. To be called on the driver's runtime.
    pub(crate) fn new(surroundings: Surroundings, store: Store) -> io::Result<Self> {
        reap::start()?;
        Ok(Self {
            surroundings: Rc::new(surroundings),
            store,
            tasks: HashMap::new(),
            targets: HashMap::new(),
        })
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
            Action::Forget { name, files } => {
                self.order(&name, Order::Forget(files));
                self.tasks.remove(&name);
                self.targets.remove(&name);
            }
            Action::Probe { name, incarnation, kind, block, spec } => {
                let target = self.targets.entry(name.clone()).or_insert_with(launch::Target::new).clone();
                let surroundings = Rc::clone(&self.surroundings);
                task::spawn_local(async move {
                    // Without a target there is no answer, and core counts that as one.
                    let Some(target) = target.resolve(&surroundings, &name, block, &spec).await else {
                        return;
                    };
                    let report = probe::probe(&target, kind).await;
                    let _ = surroundings.events.send(Event::Probed(name, incarnation, report)).await;
                });
            }
        }
    }

    fn persist(&self, batch: Batch) {
        let mut roster = self.surroundings.roster.borrow_mut();
        batch.writes.iter().for_each(|write| roster.note(write));
        self.store.persist(batch);
    }

    fn order(&mut self, name: &Name, order: Order) {
        let surroundings = &self.surroundings;
        let task = self
            .tasks
            .entry(name.clone())
            .or_insert_with(|| worker::start(name.clone(), Rc::clone(surroundings)));
        if let Err(refused) = task.try_send(order) {
            // Core asks again when its deadline has passed.
            error!(instance = %name, "an order was lost: {refused}");
        }
    }
}
