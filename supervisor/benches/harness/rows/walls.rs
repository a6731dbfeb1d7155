//! What walls cost a gateway at its start.

use std::time::{Duration, Instant};

use supervisor_proto::v1::{InstanceSpec, WallPolicy};

use crate::{
    bench::Bench,
    host::{self, Client, Host},
    stats::Samples,
    table::{Line, Verdict, time},
};

/// Of what a start takes without walls.
const MOST_MORE: f64 = 0.20;

/// Starts are short, and the difference of two is small.
const TURNS: usize = 8;

/// The built-in gateway open and walled, in turn, from the call to the answer that it is ready.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    let none = WallPolicy {
        files: Some(false),
        ports: Some(false),
        apart: Some(false),
        privileges: Some(false),
        ..Default::default()
    };
    let open = InstanceSpec { walls: Some(none), ..host::builtin() };
    client.create("open", open).await?;
    client.create("walled", host::builtin()).await?;
    let (mut open, mut walled) = (Vec::new(), Vec::new());
    for _ in 0..TURNS * bench.runs {
        open.push(start(&mut client, "open").await?);
        walled.push(start(&mut client, "walled").await?);
    }
    let (open, walled) = (Samples::new(open)?, Samples::new(walled)?);
    let more = walled.median().as_secs_f64() / open.median().as_secs_f64() - 1.0;
    Ok(vec![Line {
        what: "start of a built-in gateway behind its walls, to ready".into(),
        target: format!("{:.0} % over an open one", MOST_MORE * 100.0),
        measured: format!("{}: {:+.0} %", time(walled.median()), more * 100.0),
        verdict: Verdict::of(more <= MOST_MORE),
        runs: walled.count(),
        beside: format!(
            "p90 {}, open {}, p90 {}",
            time(walled.percentile(90)),
            time(open.median()),
            time(open.percentile(90))
        ),
    }])
}

async fn start(client: &mut Client, name: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    client.up(name).await?;
    let taken = begun.elapsed();
    client.down(name).await?;
    Ok(taken)
}
