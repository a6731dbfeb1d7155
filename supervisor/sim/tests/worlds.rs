//! As many worlds as fit ten seconds. `supervisor-sim run --seeds A..B` runs more, and faster.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use supervisor_sim::{Scribe, Setup, Trace, run};

/// For how long worlds are run.
const SPAN: Duration = Duration::from_secs(10);

/// Each of them is run, however long that takes.
const LEAST: u64 = 20;

#[test]
fn the_worlds_of_the_first_seeds_end_well() {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let worlds = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= LEAST && began.elapsed() >= SPAN {
                return;
            }
            if let Some(violation) = run(&Setup::draw(seed), Scribe::Idle).violation {
                panic!("seed {seed}: {violation}");
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(worlds))));
}

#[test]
fn a_seed_always_gives_the_same_world() {
    for seed in 0..LEAST {
        let setup = Setup::draw(seed);
        let (once, twice) = (run(&setup, Scribe::Idle), run(&setup, Scribe::full()));
        assert_eq!((once.tally, once.lasted), (twice.tally, twice.lasted), "seed {seed}");
        // With everything kept that struck, it is the same world still.
        let kept = Some(once.struck.iter().copied().collect());
        let again = run(&Setup { kept, ..setup }, Scribe::Idle);
        assert_eq!(once.tally, again.tally, "seed {seed}");
    }
}

#[test]
fn a_trace_is_read_as_it_was_written_and_goes_the_same_way() {
    let header = supervisor_sim::Header { title: "any".into(), setup: Setup::draw(3) };
    let (trace, _) = Trace::of(header);
    let path = std::env::temp_dir().join(format!("supervisor-sim-{}.jsonl", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("a file can be made");
    trace.write(&mut file).expect("it can be written");
    let read = Trace::read(&path);
    std::fs::remove_file(&path).expect("it can be removed");
    assert_eq!(read.expect("it can be read"), trace);
    assert_eq!(trace.replay().1, None);
}
