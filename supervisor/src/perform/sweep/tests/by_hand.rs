//! Run by hand: what a look and a sweep cost on a busy host.

use std::{collections::HashMap, io::Write, time::Instant};

use super::*;

/// Processes beside those that are swept, and instances swept at once.
const BYSTANDERS: usize = 4_000;
const INSTANCES: usize = 1_000;

/// Processor time of this thread, in microseconds.
fn spent() -> u64 {
    let figures = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    figures.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000
}

/// `cargo test --release -p openclaw-supervisor -- --ignored --nocapture what_a_sweep_costs`
#[tokio::test]
#[ignore = "measures; starts 5,000 processes"]
async fn what_a_sweep_costs() {
    let mut scene = Scene::new();
    let say = |line: String| writeln!(std::io::stderr(), "{line}").unwrap();
    scene.run("bystander", &format!("for i in $(seq {BYSTANDERS}); do $S & done; echo; wait"), 1);
    for name in 0..INSTANCES {
        scene.run(&format!("i{name}"), "exec $S", 0);
    }
    let mut looker = Looker::open().unwrap();
    let marks = HashMap::from([(&b"x/main"[..], 0)]);
    for _ in 0..5 {
        let (before, begin) = (spent(), Instant::now());
        let seen = looker.all(&marks, &[]).unwrap().len();
        let (cost, time) = ((spent() - before) / 1_000, begin.elapsed());
        say(format!("a look at {seen} processes: {cost} ms of processor time, {time:?} in all"));
    }
    let sweeper = Sweeper::start(Undying::default()).unwrap();
    let begin = Instant::now();
    sweeper.sweep("x/nobody").await;
    say(format!("a sweep of nothing: {:?}", begin.elapsed()));
    let begin = Instant::now();
    sweeper.sweep(&scene.mark("i0")).await;
    say(format!("a sweep of one: {:?}", begin.elapsed()));
    let marks: Vec<String> = (1..INSTANCES).map(|name| scene.mark(&format!("i{name}"))).collect();
    let begin = Instant::now();
    join_all(marks.iter().map(|mark| sweeper.sweep(mark))).await;
    say(format!("{} sweeps at once: {:?}", marks.len(), begin.elapsed()));
}
