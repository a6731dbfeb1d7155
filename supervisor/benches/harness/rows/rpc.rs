//! How fast it answers: a call, and the command line as a whole.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use supervisor_proto::v1::GetInfoRequest;

use crate::{
    bench::Bench,
    host::{self, Host},
    stats::Samples,
    table::{Line, Verdict, time},
};

/// Enough for a percentile that is worth its name.
const CALLS: usize = 10_000;

const MOST_CALL: Duration = Duration::from_micros(100);
const MOST_STATUS: Duration = Duration::from_millis(8);

/// With one instance.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    client.run("main", host::child(bench, &[])).await?;
    let mut calls = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        client.system.get_info(GetInfoRequest {}).await.context("failed to call the supervisor")?;
        calls.push(begun.elapsed());
    }
    let calls = Samples::new(calls)?;
    let call = Line {
        what: "unary RPC on the socket (`GetInfo`), p50".into(),
        target: time(MOST_CALL),
        measured: time(calls.median()),
        verdict: Verdict::of(calls.median() <= MOST_CALL),
        runs: calls.count(),
        beside: format!("p99 {}", time(calls.percentile(99))),
    };
    let what = "`openclawctl status` of one instance, whole process";
    Ok(vec![call, status(bench, &host, &["main"], what, MOST_STATUS)?])
}

/// `openclawctl status`, from its start to its end.
pub(super) fn status(
    bench: &Bench,
    host: &Host,
    names: &[&str],
    what: &str,
    most: Duration,
) -> anyhow::Result<Line> {
    let program = bench.program("openclawctl")?;
    let mut samples = Vec::new();
    for _ in 0..bench.runs {
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(host.data_dir()).arg("status").args(names);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let status = command.status().context("failed to run openclawctl")?;
        samples.push(begun.elapsed());
        anyhow::ensure!(status.success(), "`openclawctl status` failed: {status}");
    }
    let samples = Samples::new(samples)?;
    Ok(Line {
        what: what.into(),
        target: time(most),
        measured: time(samples.median()),
        verdict: Verdict::of(samples.median() <= most),
        runs: samples.count(),
        beside: format!("p90 {}", time(samples.percentile(90))),
    })
}
