//! A standing fleet of children: what it weighs, how it is asked, and whether the next supervisor knows it again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use supervisor_proto::v1::InstanceStatus;

use crate::{
    bench::Bench,
    host::{self, Client, Host, Kind},
    processes,
    rows::{idle::memory, rpc},
    stats::Samples,
    table::{Line, Verdict, mebibytes, time},
};

/// After the start, before anything is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// Enough for a percentile that is worth its name.
const LISTS: usize = 500;

const MOST_WORKER: f64 = 0.15 * 1024.0 * 1024.0;
const MOST_ADOPTION: Duration = Duration::from_secs(1);
const MOST_LIST: Duration = Duration::from_millis(5);
const MOST_STATUS: Duration = Duration::from_millis(20);

/// All that is asked of one fleet.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let count = bench.instances;
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    client.apply(host::fleet(bench, Kind::Child, count)).await?;
    let fleet = client.all_ready().await?;
    tokio::time::sleep(SETTLE).await;

    let supervisor = memory(host.pid()?, "children", count)?;
    let workers = workers(&fleet)?;
    let mut lists = Vec::new();
    for _ in 0..LISTS {
        let begun = Instant::now();
        let answer =
            client.instances.list_instances(supervisor_proto::v1::ListInstancesRequest::default()).await?;
        lists.push(begun.elapsed());
        drop(answer);
    }
    let lists = Samples::new(lists)?;
    let list = Line {
        what: format!("`ListInstances` of {count}"),
        target: time(MOST_LIST),
        measured: time(lists.median()),
        verdict: Verdict::of(lists.median() <= MOST_LIST),
        runs: lists.count(),
        beside: format!("p99 {}", time(lists.percentile(99))),
    };
    let what = format!("`openclawctl status` of {count}, whole process");
    let status = rpc::status(bench, &host, &[], &what, MOST_STATUS)?;

    let mut adoptions = Vec::new();
    for _ in 0..bench.fleet_runs {
        adoptions.push(adopt(&mut host, &fleet).await?);
        tokio::time::sleep(SETTLE).await;
    }
    let adoptions = Samples::new(adoptions)?;
    let adoption = Line {
        what: format!("adoption of {count} workers after `kill -9` of the supervisor"),
        target: format!("{}, no gateway restarted", time(MOST_ADOPTION)),
        measured: time(adoptions.median()),
        verdict: Verdict::of(adoptions.median() <= MOST_ADOPTION),
        runs: adoptions.count(),
        beside: "every pid the same".into(),
    };
    Ok(vec![supervisor, workers, adoption, list, status])
}

/// What a worker holds, without its gateway.
fn workers(fleet: &BTreeMap<String, InstanceStatus>) -> anyhow::Result<Line> {
    let mut sizes = fleet
        .values()
        .map(|status| processes::pss(status.worker_pid))
        .collect::<anyhow::Result<Vec<u64>>>()?;
    sizes.sort_unstable();
    let total: u64 = sizes.iter().sum();
    let count = u32::try_from(sizes.len())?;
    let mean = total as f64 / f64::from(count);
    Ok(Line {
        what: format!("worker's private memory (PSS), shim alone, {count} of them"),
        target: format!("{} each", mebibytes(MOST_WORKER)),
        measured: mebibytes(mean),
        verdict: Verdict::of(mean <= MOST_WORKER),
        runs: 1,
        beside: format!(
            "the largest {}, all {}",
            mebibytes(sizes.last().copied().unwrap_or(0) as f64),
            mebibytes(total as f64),
        ),
    })
}

/// From `kill -9` of the supervisor until the next one says of every instance what the last one said.
async fn adopt(host: &mut Host, fleet: &BTreeMap<String, InstanceStatus>) -> anyhow::Result<Duration> {
    let killed = host.kill()?;
    host.spawn()?;
    let mut client: Client = host.connect().await?;
    let adopted = client.all_ready().await?;
    let took = killed.elapsed();
    anyhow::ensure!(adopted.len() == fleet.len(), "{} of {} are known", adopted.len(), fleet.len());
    for (name, before) in fleet {
        let after = adopted.get(name).map_or((0, 0), |status| (status.pid, status.worker_pid));
        anyhow::ensure!(after == (before.pid, before.worker_pid), "{name} was restarted");
    }
    Ok(took)
}
