//! From a death to the successor.

use std::time::Duration;

use supervisor_proto::v1::{InstanceSpec, Phase};

use crate::{
    bench::{Bench, FIRST_PORT},
    floor,
    host::{self, Client, Host},
    peers::Peer,
    stats::Samples,
    table::{Line, Verdict, digits, time},
    watch::{self, Victim},
};

/// A gateway has run for a while before it dies: everything about its start is stored, and the processors idle.
const PAUSE: Duration = Duration::from_millis(50);

/// The floor's port; the instance has the first block.
const FLOOR_PORT: u16 = FIRST_PORT + 20;

pub(super) const NAME: &str = "main";

const MOST: Duration = Duration::from_millis(3);
const MOST_FLOORS: f64 = 2.5;
const MOST_BUILTIN: Duration = Duration::from_millis(10);

/// Runs `spec`, and measures one restart after the other, in turn with the floor.
async fn restarts(bench: &Bench, spec: InstanceSpec) -> anyhow::Result<(Samples, Samples)> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    let mut floor = floor::Loop::start(bench, FLOOR_PORT)?;
    client.run(NAME, spec).await?;
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        tokio::time::sleep(PAUSE).await;
        ours.push(restart(&mut client).await?);
        tokio::time::sleep(PAUSE).await;
        floors.push(floor.turn()?);
    }
    Ok((Samples::new(ours)?, Samples::new(floors)?))
}

/// The same without the floor, of an instance that runs already.
pub(super) async fn of(bench: &Bench, client: &mut Client) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..bench.runs {
        tokio::time::sleep(PAUSE).await;
        samples.push(restart(client).await?);
    }
    Ok(samples)
}

async fn restart(client: &mut Client) -> anyhow::Result<Duration> {
    let status = client.status(NAME).await?;
    let port = host::gateway_port(&status)?;
    let victim = Victim::new(status.pid)?;
    let killed = victim.kill()?;
    victim.wait()?;
    let listening = watch::at_once("the successor listens", || watch::is_listening(port))?;
    client.wait(NAME, "ready again", |now| now.phase() == Phase::Ready && now.pid != status.pid).await?;
    Ok(listening - killed)
}

/// The child, beside the floor and the peers.
pub(crate) async fn child(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let (ours, floor) = restarts(bench, host::child(bench, &[])).await?;
    let ratio = ours.median().as_secs_f64() / floor.median().as_secs_f64();
    let mut beside = vec![
        format!("p90 {}", time(ours.percentile(90))),
        format!("floor {}: {}x", time(floor.median()), digits(ratio)),
    ];
    for peer in Peer::installed() {
        let samples = peer.restart(bench).await?;
        beside.push(format!("{} {}", peer.name(), time(samples.median())));
    }
    Ok(vec![Line {
        what: "`kill -9` of a child to its successor listening".into(),
        target: format!("{}, {MOST_FLOORS}x the floor", time(MOST)),
        measured: time(ours.median()),
        verdict: Verdict::of(ours.median() <= MOST && ratio <= MOST_FLOORS),
        runs: ours.count(),
        beside: beside.join(", "),
    }])
}

/// The built-in gateway.
pub(crate) async fn builtin(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let (ours, floor) = restarts(bench, host::builtin()).await?;
    Ok(vec![Line {
        what: "the same with the built-in gateway".into(),
        target: time(MOST_BUILTIN),
        measured: time(ours.median()),
        verdict: Verdict::of(ours.median() <= MOST_BUILTIN),
        runs: ours.count(),
        beside: format!("p90 {}, floor of a child {}", time(ours.percentile(90)), time(floor.median())),
    }])
}
