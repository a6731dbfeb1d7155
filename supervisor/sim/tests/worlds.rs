//! As many worlds as fit a few seconds. `supervisor-sim --seeds A..B` runs more, and faster.

use std::time::{Duration, Instant};

use supervisor_sim::{Trace, run};

/// For how long worlds are run.
const SPAN: Duration = Duration::from_secs(6);

/// Each of them is run, however long that takes.
const LEAST: u64 = 20;

#[test]
fn the_worlds_of_the_first_seeds_end_well() {
    let began = Instant::now();
    let seeds = (0..).take_while(|seed| *seed < LEAST || began.elapsed() < SPAN);
    for seed in seeds {
        if run(seed, Trace::Off).is_err() {
            let failure = run(seed, Trace::On).expect_err("a world goes the same way twice");
            panic!("{failure}");
        }
    }
}

#[test]
fn a_seed_always_gives_the_same_world() {
    for seed in 0..LEAST {
        let [once, twice] =
            [run(seed, Trace::Off), run(seed, Trace::On)].map(|run| run.expect("it ends well"));
        assert_eq!(once, twice);
    }
}
