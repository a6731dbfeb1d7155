//! A fleet from nothing: no supervisor runs, no instance is known, and then all listen.

use std::time::{Duration, Instant};

use crate::{
    bench::Bench,
    floor,
    host::{self, Host, Kind},
    peers::Peer,
    stats::Samples,
    table::{Line, Verdict, digits, time},
    watch,
};

/// Of 1,000.
const MOST: Duration = Duration::from_secs(3);

/// The fleet that the large one is compared with is smaller by this.
const SMALLER: u16 = 10;

/// An instance of the large fleet may take this much longer than one of the small fleet and still be called linear.
const LINEAR: f64 = 1.25;

/// From the start of the supervisor, through the fleet file, to all gateways listening.
async fn start(bench: &Bench, count: u16) -> anyhow::Result<Duration> {
    let fleet = host::fleet(bench, Kind::Child, count);
    let mut host = Host::prepare(bench)?;
    let begun = Instant::now();
    host.spawn()?;
    let mut client = host.connect().await?;
    let ports = client.apply(fleet).await?;
    anyhow::ensure!(ports.len() == usize::from(count), "{} of {count} instances are known", ports.len());
    Ok(watch::each("the fleet listens", &ports, watch::is_listening).await? - begun)
}

/// The child, beside the floor and the peers.
pub(crate) async fn children(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let count = bench.instances;
    let peers = Peer::installed();
    let (mut ours, mut small, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); peers.len()];
    for _ in 0..bench.fleet_runs {
        ours.push(start(bench, count).await?);
        small.push(start(bench, count.div_ceil(SMALLER)).await?);
        floors.push(floor::start_many(bench, count).await?);
        for (peer, samples) in peers.iter().zip(&mut theirs) {
            samples.push(peer.start_many(bench, count).await?);
        }
    }
    let (ours, small, floor) = (Samples::new(ours)?, Samples::new(small)?, Samples::new(floors)?);
    let mut beside = vec![format!("floor {}", time(floor.median()))];
    let mut ahead = true;
    for (peer, samples) in peers.iter().zip(theirs) {
        let median = Samples::new(samples)?.median();
        ahead &= *peer != Peer::S6 || ours.median() < median;
        beside.push(format!("{} {}", peer.name(), time(median)));
    }
    let growth = ours.median().as_secs_f64() / small.median().as_secs_f64() / f64::from(SMALLER);
    let first = Line {
        what: format!("{count} children from nothing to all listening"),
        target: format!("{}, ahead of s6", time(MOST)),
        measured: time(ours.median()),
        verdict: Verdict::of(ours.median() <= MOST && ahead),
        runs: ours.count(),
        beside: beside.join(", "),
    };
    let second = Line {
        what: format!("the time for one, of {} and of {count}", count.div_ceil(SMALLER)),
        target: format!("linear: at most {LINEAR}x"),
        measured: format!("{}x", digits(growth)),
        verdict: Verdict::of(growth <= LINEAR),
        runs: small.count(),
        beside: format!("{} start in {}", count.div_ceil(SMALLER), time(small.median())),
    };
    Ok(vec![first, second])
}
