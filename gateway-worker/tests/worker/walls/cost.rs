//! What walls cost at a start.

use std::time::{Duration, Instant};

use super::*;

/// Starts of each kind.
const STARTS: usize = 200;

/// The built-in gateway by one worker, open and walled in turn, from the order until it says that it is ready.
#[test]
#[ignore = "a measurement: `cargo test --release -p gateway-worker --test worker -- --ignored --nocapture cost`"]
fn what_walls_cost_at_a_start() {
    let home = Home::of(Who::Me);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = home.place.home().join("openclaw.json");
    let text = format!(
        r#"{{"gateway":{{"mode":"local","port":{port},"bind":"loopback","auth":{{"mode":"token","token":"t"}}}}}}"#
    );
    fs::write(&config, text).unwrap();
    let (_worker, mut link, _) = home.start(home.place.shell("exit 0"));
    link.exited();
    let variable = |name: &str, value: &Path| EnvironmentVariable {
        name: name.into(),
        value: value.to_str().unwrap().into(),
    };
    let launch = |walls: Option<Walls>| Launch {
        program: env!("CARGO_BIN_EXE_builtin-gateway").into(),
        args: vec!["gateway".into(), "run".into()],
        environment: vec![
            variable("OPENCLAW_STATE_DIR", &home.place.home()),
            variable("OPENCLAW_CONFIG_PATH", &config),
        ],
        walls,
        notify: true,
        ..home.place.shell("")
    };
    let mut walls = home.walls();
    walls.read.push(env!("CARGO_BIN_EXE_builtin-gateway").into());
    walls.bind = vec![PortRange { first: u32::from(port), last: u32::from(port) + 19 }];
    walls.limits = Some(Limits { files: Some(65_536), processes: Some(4096), core_bytes: Some(0) });
    let mut times: [Vec<(Duration, Duration)>; 2] = Default::default();
    for nth in 0..2 * STARTS {
        let incarnation = 2 + nth as u64;
        let walled = nth % 2 == 1;
        let launch = launch(walled.then(|| walls.clone()));
        let began = Instant::now();
        link.order(Demand::Run(Run { incarnation, launch: Some(launch) }));
        let started = link.started();
        let spawned = began.elapsed();
        assert!(started.walls.iter().all(|wall| wall.state() == State::Enforced), "{:?}", started.walls);
        while !matches!(link.next(), Some(Body::Notified(_))) {}
        times[usize::from(walled)].push((spawned, began.elapsed()));
        link.kill(incarnation);
        link.exited();
    }
    for (kind, times) in ["open", "walled"].iter().zip(&mut times) {
        let mut column = |of: fn(&(Duration, Duration)) -> Duration| {
            times.sort_by_key(of);
            (of(&times[STARTS / 2]), of(&times[STARTS * 9 / 10]))
        };
        println!(
            "{kind}: executed {:?} (p50, p90), ready {:?}",
            column(|time| time.0),
            column(|time| time.1)
        );
    }
}
