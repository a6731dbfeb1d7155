//! With real files and the real kernel.

use std::{fs, os::unix::fs::symlink, path::Path};

use supervisor_core::ports::Block;
use tempfile::TempDir;
use tokio::task::LocalSet;

use super::*;
use crate::openclaw::{
    config::{Wanted, check, credentials::Purse},
    layout::Directories,
};

/// Far more than a loaded host needs.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    directory: TempDir,
    watch: Watch,
    changed: mpsc::Receiver<Name>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl Scene {
    fn new() -> Self {
        Self::with(Watch::start)
    }

    fn with(begin: impl FnOnce(mpsc::Sender<Name>) -> Watch) -> Self {
        let (sender, changed) = mpsc::channel(64);
        Self { directory: TempDir::new().unwrap(), watch: begin(sender), changed }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Watches a file, and waits until it is watched.
    async fn add(&mut self, instance: &str, path: &Path) {
        self.watch.add(name(instance), path.to_owned());
        self.reported(instance, |_| true).await;
    }

    /// Waits for a report of the instance when `holds` is true of something. Earlier reports may be of less.
    async fn reported(&mut self, instance: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let found = self.changed.recv().await.expect("the watch has ended");
                if *found == *instance && holds(self) {
                    return;
                }
            }
        };
        time::timeout(PATIENCE, wait).await.expect("no report");
    }

    /// Writes to a file and waits for the report of it.
    async fn sees(&mut self, instance: &str, path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        self.reported(instance, |_| fs::read_to_string(path).is_ok_and(|found| found == content)).await;
    }
}

/// Runs on a runtime as the driver's is.
fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test()));
}

#[test]
fn an_edit_is_reported_whether_it_is_in_place_or_by_rename() {
    run(async || {
        let mut scene = Scene::new();
        let file = scene.path("openclaw.json");
        scene.add("main", &file).await;
        scene.sees("main", &file, "made").await;
        scene.sees("main", &file, "in place").await;
        fs::write(scene.path("new"), "by rename").unwrap();
        fs::rename(scene.path("new"), &file).unwrap();
        scene.reported("main", |_| fs::read_to_string(&file).unwrap() == "by rename").await;
        scene.sees("main", &file, "in place again").await;
        fs::remove_file(&file).unwrap();
        scene.reported("main", |_| !file.exists()).await;
    });
}

#[test]
fn a_broken_edit_is_known_with_its_line_when_it_is_reported() {
    run(async || {
        let mut scene = Scene::new();
        let (data, main) = (scene.directory.path().to_owned(), name("main"));
        let directories = Directories::at(&data, &main, None);
        directories.create(&data).unwrap();
        fs::write(&directories.config, "{}").unwrap();
        scene.add("main", &directories.config).await;
        let look = || {
            let block = Block::at(18_789).unwrap();
            let (previous_base, neighbours, data_dir) = (None, &[][..], &*data);
            let wanted =
                Wanted { name: &main, directories: &directories, block, previous_base, data_dir, neighbours };
            check::look(&wanted, None, &Purse { salt: "store", spec: &crate::spec::InstanceSpec::default() })
                .sighting
        };
        assert_eq!(look().problem, None);
        let begin = Instant::now();
        fs::write(&directories.config, "{\n  gateway: {,}\n}").unwrap();
        scene
            .reported("main", |_| {
                look().problem.is_some_and(|problem| problem.contains("openclaw.json:2:13"))
            })
            .await;
        println!("a broken edit was known after {:?}", begin.elapsed());
    });
}

#[test]
fn a_burst_of_writes_is_reported_and_comes_to_an_end() {
    run(async || {
        let mut scene = Scene::new();
        let (file, other) = (scene.path("openclaw.json"), scene.path("other.json"));
        scene.add("main", &file).await;
        scene.add("other", &other).await;
        for round in 0..200 {
            fs::write(&file, round.to_string()).unwrap();
        }
        scene.reported("main", |_| fs::read_to_string(&file).unwrap() == "199").await;
        // What was written before it is reported before it, so nothing of the burst is left.
        scene.sees("other", &other, "later").await;
        fs::write(&other, "last").unwrap();
        let found = time::timeout(PATIENCE, scene.changed.recv()).await.unwrap().unwrap();
        assert_eq!(&*found, "other");
    });
}

#[test]
fn other_files_of_the_directory_are_nobodys() {
    run(async || {
        let mut scene = Scene::new();
        let (one, two) = (scene.path("one.json"), scene.path("two.json"));
        scene.add("one", &one).await;
        scene.add("two", &two).await;
        for round in 0..50 {
            fs::write(scene.path("log"), round.to_string()).unwrap();
        }
        fs::write(&two, "x").unwrap();
        let found = time::timeout(PATIENCE, scene.changed.recv()).await.unwrap().unwrap();
        assert_eq!(&*found, "two", "they share a directory, and are told apart");
        scene.watch.remove(&name("two"));
        scene.sees("one", &one, "still watched").await;
    });
}

#[test]
fn a_directory_that_is_made_later_or_deleted_and_made_again_is_watched() {
    run(async || {
        let mut scene = Scene::new();
        let (state, file) =
            (scene.path("instances/main/state"), scene.path("instances/main/state/openclaw.json"));
        scene.add("main", &file).await;
        for round in ["first", "second"] {
            fs::create_dir_all(&state).unwrap();
            scene.sees("main", &file, round).await;
            scene.sees("main", &file, &format!("{round}, again")).await;
            fs::remove_dir_all(scene.path("instances")).unwrap();
            scene.reported("main", |_| !file.exists()).await;
        }
        fs::create_dir_all(&state).unwrap();
        scene.sees("main", &file, "third").await;
        fs::rename(&state, scene.path("instances/main/away")).unwrap();
        scene.reported("main", |_| !file.exists()).await;
        fs::create_dir(&state).unwrap();
        scene.sees("main", &file, "fourth").await;
    });
}

#[test]
fn a_link_is_watched_where_it_is_and_where_it_leads() {
    run(async || {
        let mut scene = Scene::new();
        for directory in ["state", "dotfiles", "elsewhere"] {
            fs::create_dir(scene.path(directory)).unwrap();
        }
        let (file, led, other) = (
            scene.path("state/openclaw.json"),
            scene.path("dotfiles/main.json"),
            scene.path("elsewhere/it.json"),
        );
        fs::write(&led, "{}").unwrap();
        symlink(&led, &file).unwrap();
        scene.add("main", &file).await;
        scene.sees("main", &led, "through the link").await;
        fs::write(&other, "another").unwrap();
        symlink(&other, scene.path("state/new")).unwrap();
        fs::rename(scene.path("state/new"), &file).unwrap();
        scene.reported("main", |_| fs::read_to_string(&file).unwrap() == "another").await;
        scene.sees("main", &other, "through the other link").await;
    });
}

#[test]
fn events_that_the_kernel_dropped_cost_no_report() {
    run(async || {
        let mut scene = Scene::new();
        let (one, two) = (scene.path("one.json"), scene.path("two.json"));
        scene.add("one", &one).await;
        scene.add("two", &two).await;
        let queue: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        // The watch shares this thread and hears nothing meanwhile.
        for round in 0..=queue / 2 {
            let file = scene.path(&round.to_string());
            fs::write(&file, "").unwrap();
            fs::remove_file(file).unwrap();
        }
        fs::write(&one, "unheard").unwrap();
        fs::write(&two, "unheard").unwrap();
        for instance in ["one", "two"] {
            scene.reported(instance, |_| true).await;
        }
    });
}

#[test]
fn without_watches_edits_are_found_by_looking() {
    run(async || {
        let mut scene = Scene::with(|changed| Watch::begin(changed, None));
        let file = scene.path("openclaw.json");
        scene.add("main", &file).await;
        scene.sees("main", &file, "made").await;
        scene.sees("main", &file, "edited").await;
    });
}

#[test]
fn what_no_watch_sees_a_full_look_finds() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let mut scene = Scene::new();
        let state = scene.path("a/b/state");
        fs::create_dir_all(&state).unwrap();
        let file = state.join("openclaw.json");
        fs::write(&file, "{}").unwrap();
        scene.add("main", &file).await;
        // The watched directory is untouched; its path leads elsewhere.
        fs::rename(scene.path("a"), scene.path("old")).unwrap();
        fs::create_dir_all(&state).unwrap();
        scene.sees("main", &file, "another").await;
    }));
}

#[test]
fn the_watch_ends_with_its_door() {
    run(async || {
        let mut scene = Scene::new();
        let file = scene.path("openclaw.json");
        scene.add("main", &file).await;
        drop(scene.watch);
        let end = time::timeout(PATIENCE, async { while scene.changed.recv().await.is_some() {} });
        end.await.expect("it is still there");
    });
}
