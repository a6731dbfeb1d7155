//! With real directories, and no worker.

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path, sync::Arc};

use supervisor_core::{
    action::Write,
    event::{Adoption, Files, Found, Sighting},
    ids::{Incarnation, Revision},
    ports::Block,
    record::Record,
    time::Moment,
};
use tempfile::TempDir;
use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{self, Instant, sleep},
};

use super::*;
use crate::{
    lineage::Lineage,
    openclaw::{environment::Control, prepare::Host, snapshots::content_id},
    perform::{
        Contracts,
        roster::Roster,
        store::{self, AuditRetention, Retention},
        sweep::Sweeper,
    },
};

/// Far more than a task's queue holds.
const FLOOD: usize = 500;

struct Scene {
    performer: Performer,
    events: mpsc::Receiver<Event>,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let data_dir = directory.path().to_owned();
        let (connection, restored) = store::open(&data_dir, ("boot", 0)).unwrap();
        let (reports, _) = mpsc::channel(1);
        let retention = Retention {
            entries: 10,
            age: Duration::from_secs(60),
            audit: AuditRetention { entries: 10, age: Duration::from_secs(60) },
        };
        let store =
            Store::start(connection, Revision(0), retention, reports, crate::metrics::Metrics::default())
                .unwrap();
        let (sender, events) = mpsc::channel(1024);
        let control = Control { socket: data_dir.join("control.sock"), data_dir: data_dir.clone() };
        let surroundings = Surroundings {
            metrics: crate::metrics::Metrics::default(),
            events: sender,
            worker_program: data_dir.join("no-such-worker"),
            host: Arc::new(Host { control, environment: BTreeMap::new(), beside_daemon: data_dir }),
            groups: crate::perform::Groups::find(&restored.id, [].iter()),
            epoch: 1,
            boot_began: 0,
            configs: Configs::default(),
            contracts: Contracts::default(),
            roster: RefCell::new(Roster::default()),
            sweeper: Sweeper::start(Default::default()).unwrap(),
            deleting: Semaphore::new(1),
            walls: Default::default(),
            lineage: Lineage::new(&restored.id),
            listeners: Default::default(),
        };
        Self { performer: Performer::new(surroundings, store), events, directory }
    }

    /// Files of an instance that has run.
    fn furnish(&self, name: &Name) -> [std::path::PathBuf; 2] {
        let made = [
            self.directory.path().join("run").join(&**name),
            self.directory.path().join("instances").join(&**name),
        ];
        for directory in &made {
            fs::create_dir_all(directory.join("inside")).unwrap();
        }
        made
    }

    /// There is such an instance.
    fn knows(&self, name: &Name) {
        let block = Block::at(18_789).unwrap();
        let record = Record::new(name.clone(), r#"{"runtime":"builtin"}"#.into(), block, Moment(0));
        self.performer.surroundings.roster.borrow_mut().note(&Write::Put(record));
    }

    fn forget(&mut self, name: &Name, files: Files) {
        self.performer.begin(Action::Forget { name: name.clone(), files });
    }
}

async fn gone(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while path.exists() {
        assert!(Instant::now() < deadline, "{path:?} is still there");
        sleep(Duration::from_millis(5)).await;
    }
}

fn main_instance() -> Name {
    Name::new("main").unwrap()
}

async fn locally<T>(story: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(story).await
}

#[tokio::test]
async fn an_instance_that_is_deleted_keeps_its_files_unless_they_are_to_go() {
    locally(async {
        let mut scene = Scene::new();
        let [run, files] = scene.furnish(&main_instance());
        scene.forget(&main_instance(), Files::Keep);
        gone(&run).await;
        assert!(files.exists());
        scene.forget(&main_instance(), Files::Purge);
        gone(&files).await;
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_loses_orders_but_not_the_one_to_forget() {
    locally(async {
        let mut scene = Scene::new();
        let name = main_instance();
        let [run, files] = scene.furnish(&name);
        // On one thread the task does nothing before this awaits.
        scene.performer.begin(Action::Adopt(name.clone()));
        for _ in 0..FLOOD {
            let incarnation = Incarnation(1);
            scene.performer.begin(Action::Acknowledge { name: name.clone(), incarnation });
        }
        scene.forget(&name, Files::Purge);
        gone(&run).await;
        gone(&files).await;
        let adopted = Adoption { found: Found::Nothing, exits: Vec::new() };
        assert_eq!(scene.events.recv().await, Some(Event::Adopted(name, adopted)));
    })
    .await;
}

#[tokio::test]
async fn a_new_instance_of_a_deleted_name_is_begun_after_the_old_files_are_gone() {
    locally(async {
        let mut scene = Scene::new();
        let name = main_instance();
        for _ in 0..20 {
            let [run, files] = scene.furnish(&name);
            scene.forget(&name, Files::Purge);
            scene.performer.begin(Action::Sweep { name: name.clone(), incarnation: Incarnation(5) });
            assert_eq!(scene.events.recv().await, Some(Event::Swept(name.clone(), Incarnation(5))));
            assert!(!run.exists() && !files.exists());
        }
    })
    .await;
}

#[tokio::test]
async fn late_orders_about_a_forgotten_instance_make_nothing() {
    locally(async {
        let mut scene = Scene::new();
        let name = main_instance();
        let [run, _] = scene.furnish(&name);
        scene.forget(&name, Files::Purge);
        gone(&run).await;
        while !scene.performer.tasks[&name].1.is_finished() {
            task::yield_now().await;
        }
        let incarnation = Incarnation(1);
        scene.performer.begin(Action::Acknowledge { name: name.clone(), incarnation });
        scene.performer.begin(Action::Release { name: name.clone() });
        scene.performer.begin(Action::Kill { name: name.clone(), incarnation });
        scene.performer.begin(Action::Inform { name: name.clone(), incidents: Vec::new() });
        assert_eq!(scene.performer.tasks.len(), 0);
        assert!(!run.exists());
    })
    .await;
}

#[tokio::test]
async fn a_new_instance_of_a_deleted_name_is_told_what_is_left_of_its_configuration() {
    locally(async {
        let mut scene = Scene::new();
        let name = main_instance();
        let [_, files] = scene.furnish(&name);
        scene.knows(&name);
        scene.forget(&name, Files::Purge);
        let gone = Sighting { content: None, problem: None, credentials: Vec::new(), used_by: None };
        let told = time::timeout(Duration::from_secs(60), scene.events.recv()).await;
        assert_eq!(told.expect("it is looked at again"), Some(Event::ConfigSeen(name, gone)));
        assert!(!files.exists());
    })
    .await;
}

#[tokio::test]
async fn what_a_launch_has_read_and_tells_late_is_not_taken_for_what_is_there() {
    locally(async {
        let mut scene = Scene::new();
        let name = main_instance();
        let [_, files] = scene.furnish(&name);
        scene.knows(&name);
        fs::create_dir_all(files.join("state")).unwrap();
        fs::write(files.join("state/openclaw.json"), "{}").unwrap();
        let surroundings = Rc::clone(&scene.performer.surroundings);
        let sighting = |content: &[u8], used_by| Sighting {
            content: Some(content_id(content)),
            problem: None,
            credentials: Vec::new(),
            used_by,
        };
        config::tell(&surroundings, name.clone(), sighting(b"{}", None)).await;
        config::tell(&surroundings, name.clone(), sighting(b"{ }", Some(Incarnation(1)))).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let told = time::timeout(Duration::from_secs(60), scene.events.recv()).await;
            match told.expect("it is looked at again") {
                Some(Event::ConfigSeen(_, sighting)) => seen.push(sighting.content),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [b"{}".as_slice(), b"{ }", b"{}"].map(|content| Some(content_id(content))));
    })
    .await;
}

#[tokio::test]
async fn tasks_of_deleted_instances_do_not_add_up() {
    locally(async {
        let mut scene = Scene::new();
        for n in 0..50 {
            let name = Name::new(&format!("gateway-{n}")).unwrap();
            let [run, _] = scene.furnish(&name);
            scene.forget(&name, Files::Purge);
            gone(&run).await;
            while !scene.performer.tasks[&name].1.is_finished() {
                task::yield_now().await;
            }
            assert!(scene.performer.tasks.len() <= 1);
        }
    })
    .await;
}

#[tokio::test]
async fn at_the_end_what_has_been_begun_is_done() {
    locally(async {
        let mut scene = Scene::new();
        let names: Vec<Name> = (0..20).map(|n| Name::new(&format!("gateway-{n}")).unwrap()).collect();
        let made: Vec<_> = names.iter().map(|name| scene.furnish(name)).collect();
        names.iter().for_each(|name| scene.forget(name, Files::Purge));
        drop(scene.events);
        scene.performer.finish().await;
        assert!(made.iter().flatten().all(|path| !path.exists()));
    })
    .await;
}
