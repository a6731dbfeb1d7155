//! A fleet of built-in gateways: how soon all are ready, and what it costs when nothing happens.

use std::time::{Duration, Instant};

use crate::{
    bench::Bench,
    host::{self, Host, Kind},
    processes,
    stats::Samples,
    table::{Line, Verdict, digits, mebibytes, time},
    watch,
};

/// After the start, before the fleet is idle.
const SETTLE: Duration = Duration::from_secs(5);

const MOST: Duration = Duration::from_secs(8);
/// Of a core.
const MOST_PERCENT: f64 = 2.0;
const MOST_MEMORY: f64 = 30.0 * 1024.0 * 1024.0;

/// The last fleet is the one that is watched.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut samples = Vec::new();
    for _ in 1..bench.fleet_runs {
        samples.push(start(bench).await?.1);
    }
    let (host, last) = start(bench).await?;
    samples.push(last);
    let samples = Samples::new(samples)?;
    let count = bench.instances;
    let ready = Line {
        what: format!("{count} built-in instances all ready"),
        target: time(MOST),
        measured: time(samples.median()),
        verdict: Verdict::of(samples.median() <= MOST),
        runs: samples.count(),
        beside: "seen by `/readyz` of each and by `ListInstances`".into(),
    };

    tokio::time::sleep(SETTLE).await;
    let pid = host.pid()?;
    let before = processes::cpu_time(pid)?;
    tokio::time::sleep(bench.idle).await;
    let used = processes::cpu_time(pid)?.saturating_sub(before);
    let percent = used.as_secs_f64() / bench.idle.as_secs_f64() * 100.0;
    let cpu = Line {
        what: format!("supervisor's CPU with {count} idle instances, default probes"),
        target: format!("{} % of a core", digits(MOST_PERCENT)),
        measured: format!("{} %", digits(percent)),
        verdict: Verdict::of(percent <= MOST_PERCENT),
        runs: 1,
        beside: format!("{} in {}", time(used), time(bench.idle)),
    };
    Ok(vec![ready, cpu, memory(pid, "built-in gateways, probed", count)?])
}

/// What the supervisor holds.
pub(super) fn memory(pid: i32, of_what: &str, count: u16) -> anyhow::Result<Line> {
    let bytes = processes::rss(pid)? as f64;
    Ok(Line {
        what: format!("supervisor's memory with {count} {of_what}"),
        target: mebibytes(MOST_MEMORY),
        measured: mebibytes(bytes),
        verdict: Verdict::of(bytes <= MOST_MEMORY),
        runs: 1,
        beside: format!("resident; in proportion {}", mebibytes(processes::pss(pid)? as f64)),
    })
}

/// From the start of the supervisor to all ready.
async fn start(bench: &Bench) -> anyhow::Result<(Host, Duration)> {
    let fleet = host::fleet(bench, Kind::Builtin, bench.instances);
    let mut host = Host::prepare(bench)?;
    let begun = Instant::now();
    host.spawn()?;
    let mut client = host.connect().await?;
    let ports = client.apply(fleet).await?;
    watch::each("the fleet is ready", &ports, watch::is_ready).await?;
    client.all_ready().await?;
    Ok((host, begun.elapsed()))
}
