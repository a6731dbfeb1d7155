//! From main's death to its rescue.
//!
//! A main that is back before its rescue is ready keeps its place, so here it comes back by hand.

use std::time::Duration;

use supervisor_proto::v1::{
    self, InstanceSpec, Phase, RescuePolicy, Role,
    rescue_policy::{Failback, OnPrimaryDeath, Standby},
};

use crate::{
    bench::Bench,
    host::{self, Client, Host, Watch, role},
    stats::Samples,
    table::{Line, Verdict, time},
    watch::{self, Victim},
};

/// Between a failback and the next death.
const PAUSE: Duration = Duration::from_millis(50);

/// Longer than a row takes.
const NOT_BY_ITSELF: i64 = 3_600;

const MOST_COLD: Duration = Duration::from_millis(20);
const MOST_WARM: Duration = Duration::from_millis(5);

/// Both kinds of standby.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let cold = failovers(bench, Standby::Cold).await?;
    let warm = failovers(bench, Standby::Warm).await?;
    let line = |what: &str, most, samples: &Samples, how: &str| Line {
        what: what.into(),
        target: time(most),
        measured: time(samples.median()),
        verdict: Verdict::of(samples.median() <= most),
        runs: samples.count(),
        beside: format!("p90 {}, {how}", time(samples.percentile(90))),
    };
    Ok(vec![
        line("main's death to a cold built-in rescue ready", MOST_COLD, &cold, "seen by its `/readyz`"),
        line("main's death to a warm rescue active", MOST_WARM, &warm, "seen by a watching client"),
    ])
}

fn main_spec() -> InstanceSpec {
    let mut spec = host::builtin();
    if let Some(restart) = &mut spec.restart {
        let delay = prost_types::Duration { seconds: NOT_BY_ITSELF, nanos: 0 };
        restart.initial_delay = Some(delay);
        restart.max_delay = Some(delay);
    }
    spec
}

fn rescue_spec(standby: Standby) -> InstanceSpec {
    let rescue = RescuePolicy {
        standby: standby.into(),
        on_primary_death: OnPrimaryDeath::EnsureRunning.into(),
        failback: Failback::Manual.into(),
        failback_after: None,
    };
    InstanceSpec { rescues: vec!["main".into()], rescue: Some(rescue), ..host::builtin() }
}

async fn failovers(bench: &Bench, standby: Standby) -> anyhow::Result<Samples> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    client.run("main", main_spec()).await?;
    client.run("rescue", rescue_spec(standby)).await?;
    let mut watch = client.watch().await?;
    let mut samples = Vec::new();
    for _ in 0..bench.runs {
        stand_by(&mut watch, standby).await?;
        tokio::time::sleep(PAUSE).await;
        samples.push(failover(&mut client, &mut watch, standby).await?);
        fail_back(&mut client, &mut watch).await?;
    }
    Samples::new(samples)
}

/// Waits until main is in its place and the rescue waits for its death.
async fn stand_by(watch: &mut Watch, standby: Standby) -> anyhow::Result<()> {
    let waits = match standby {
        Standby::Cold => Phase::Stopped,
        Standby::Warm | Standby::Unspecified => Phase::Ready,
    };
    watch
        .until("main", "in its place", |now| role(now) == Role::Primary && now.phase() == Phase::Ready)
        .await?;
    watch.until("rescue", "on standby", |now| role(now) == Role::Standby && now.phase() == waits).await?;
    Ok(())
}

/// Kills main, and waits for its rescue.
async fn failover(client: &mut Client, watch: &mut Watch, standby: Standby) -> anyhow::Result<Duration> {
    let victim = Victim::new(client.status("main").await?.pid)?;
    let port = host::gateway_port(&client.status("rescue").await?)?;
    let killed = victim.kill()?;
    let saved = match standby {
        Standby::Cold => watch::at_once("the rescue is ready", || watch::is_ready(port))?,
        Standby::Warm | Standby::Unspecified => {
            watch.until("rescue", "active", |now| role(now) == Role::Active).await?
        }
    };
    watch.until("rescue", "active", |now| role(now) == Role::Active && now.phase() == Phase::Ready).await?;
    Ok(saved - killed)
}

async fn fail_back(client: &mut Client, watch: &mut Watch) -> anyhow::Result<()> {
    client.up("main").await?;
    watch.until("main", "ready", |now| now.phase() == Phase::Ready).await?;
    let request = v1::FailBackRequest { primary: "main".into(), wait: true, ..Default::default() };
    client.instances.fail_back(request).await?;
    Ok(())
}
