//! With real processes. What a test starts carries a token of its own in its arguments, so that whatever escapes
//! is seen.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal};

use super::*;
use crate::openclaw::environment::{GUEST, MARK};

/// Marks of one test, and a token that all its processes show.
struct Scene {
    store: String,
    token: String,
    children: Vec<Child>,
    lines: Vec<BufReader<std::process::ChildStdout>>,
}

impl Scene {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = std::process::id();
        Self {
            store: format!("store-{own}-{number}"),
            token: format!("86400.{own}{number:04}"),
            children: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn mark(&self, name: &str) -> String {
        format!("{}/{name}", self.store)
    }

    /// Runs a shell script in which `$S` sleeps, with the mark of `name`, in a session of its own, as a worker
    /// is. Returns when the script has printed as many lines as told.
    fn run(&mut self, name: &str, script: &str, lines: usize) -> u32 {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", script])
            .env(MARK, self.mark(name))
            .env("S", format!("sleep {}", self.token))
            .env("STORE", &self.store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..lines {
            assert_ne!(output.read_line(&mut String::new()).unwrap(), 0, "the script has ended");
        }
        let pid = child.id();
        self.children.push(child);
        self.lines.push(output);
        pid
    }

    /// Processes that show the token: pid and command. A zombie shows nothing.
    fn alive(&self) -> Vec<(i32, String)> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                String::from_utf8_lossy(&line).replace('\0', " "),
            ))
        });
        lines.filter(|(_, line)| line.contains(&self.token)).collect()
    }

    /// Waits until so many processes show the token.
    async fn until_alive(&self, count: usize) {
        while self.alive().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// None may show it now.
    #[track_caller]
    fn assert_clear(&self) {
        assert_eq!(self.alive(), []);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        for (pid, _) in self.alive() {
            let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
async fn what_is_left_in_the_session_of_a_person_whose_shell_has_ended_is_not_the_instances() {
    let mut scene = Scene::new();
    let job = format!("exec env -u {MARK} sh -c '{MARK}=$STORE/main {GUEST}=1 $S & $S & echo'");
    scene.run("main", &job, 1);
    scene.until_alive(2).await;
    let leader = scene.children.last_mut().unwrap();
    leader.wait().unwrap();
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    assert_eq!(scene.alive().len(), 1, "{:?}", scene.alive());
}

#[tokio::test]
async fn a_sweep_of_nothing_is_proven() {
    let scene = Scene::new();
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
}

#[tokio::test]
async fn nothing_of_an_instance_survives_however_it_has_hidden() {
    let mut scene = Scene::new();
    let script = "
        trap '' TERM HUP INT
        $S & echo
        setsid $S & echo
        setsid sh -c '(setsid $S & echo) & exit' &
        env -i setsid $S & echo
        (env -i sh -c \"$S & echo\" &)
        kill -STOP $$";
    scene.run("main", script, 5);
    scene.until_alive(5).await;
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    scene.assert_clear();
}

#[tokio::test]
async fn orphans_without_a_mark_are_found_by_the_session_of_a_marked_one() {
    let mut scene = Scene::new();
    // The leader of the session ends at once, as a worker that is killed.
    scene.run("main", "(env -i $S & $S & echo)", 1);
    assert!(scene.children[0].wait().unwrap().success());
    scene.until_alive(2).await;
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    scene.assert_clear();
}

#[tokio::test]
async fn a_program_that_forks_into_hiding_without_pause_is_outrun() {
    let mut scene = Scene::new();
    scene.run("main", "echo; while :; do env -i setsid $S & done", 1);
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    scene.assert_clear();
}

#[tokio::test]
async fn only_the_very_mark_is_meant() {
    let mut scene = Scene::new();
    for name in ["main", "main2", "mai", "main/x"] {
        scene.run(name, "$S & echo; wait", 1);
    }
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    scene.until_alive(3).await;
    assert_eq!(scene.alive().len(), 3, "{:?}", scene.alive());
}

#[tokio::test]
async fn an_instance_started_from_inside_another_is_left_alone() {
    let mut scene = Scene::new();
    scene.run("main", &format!("{MARK}=$STORE/rescue sh -c '$S & $S & echo; wait' & $S & echo; wait"), 2);
    let sweeper = Sweeper::start(Undying::default()).unwrap();
    sweeper.sweep(&scene.mark("main")).await;
    scene.until_alive(2).await;
    assert_eq!(scene.alive().len(), 2, "{:?}", scene.alive());
    sweeper.sweep(&scene.mark("rescue")).await;
    scene.assert_clear();
}

#[tokio::test]
async fn a_zombie_is_not_alive() {
    let mut scene = Scene::new();
    let pid = scene.run("main", "echo; exec $S", 1);
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn a_process_whose_main_thread_has_ended_is_alive() {
    let mut scene = Scene::new();
    let script = "
import ctypes, os, sys, threading, time
def stay():
    while open(f'/proc/{os.getpid()}/stat').read().rsplit(')')[1].split()[0] != 'Z': time.sleep(0.001)
    print(flush=True)
    time.sleep(float(sys.argv[1]))
threading.Thread(target=stay).start()
ctypes.CDLL(None).pthread_exit(None)";
    let pid = scene.run("main", &format!("exec python3 -c \"{script}\" {}", scene.token), 1);
    Sweeper::start(Undying::default()).unwrap().sweep(&scene.mark("main")).await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let threads = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(17).unwrap();
    assert_eq!(threads, "1", "{stat}");
}

#[tokio::test]
async fn many_sweeps_at_once_are_one_hunt() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..50).map(|number| format!("i{number}")).collect();
    for name in &names {
        scene.run(name, "$S & echo; wait", 1);
    }
    scene.run("bystander", "$S & echo; wait", 1);
    let sweeper = Sweeper::start(Undying::default()).unwrap();
    let marks: Vec<String> = names.iter().chain(&names).map(|name| scene.mark(name)).collect();
    join_all(marks.iter().map(|mark| sweeper.sweep(mark))).await;
    assert_eq!(scene.alive().len(), 1);
}

#[tokio::test]
async fn a_sweep_that_comes_during_another_is_served_too() {
    let mut scene = Scene::new();
    for name in ["main", "rescue"] {
        scene.run(name, "$S & echo; wait", 1);
    }
    let sweeper = Sweeper::start(Undying::default()).unwrap();
    let (main, rescue) = (scene.mark("main"), scene.mark("rescue"));
    let first = sweeper.sweep(&main);
    let second = async {
        tokio::task::yield_now().await;
        sweeper.sweep(&rescue).await;
        sweeper.sweep(&main).await;
    };
    tokio::join!(first, second);
    scene.assert_clear();
}

mod by_hand;
