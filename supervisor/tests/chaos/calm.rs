//! The calm after the storm: the monkey undoes what it did, and all that is wanted has to come back by itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use supervisor_proto::v1::{Instance, Phase, Role, Wish};
use tokio::time;

use crate::{
    api::Verb,
    fleet::{Kind, Member},
    monkey::Monkey,
};

/// The longest that the supervisor itself waits for anything is half a minute, and a refused start is looked at
/// again after ten seconds; twice that on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// An answer in quiet times.
const ANSWER: Duration = Duration::from_secs(10);

/// After this long, rescues are sent back by hand: a manual failover stays until then, and one of many in a row
/// for minutes.
const BY_HAND: Duration = Duration::from_secs(4);

/// Nothing changes for this long: it is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// How a calm went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Calm {
    /// From the last cure until the last instance ran that should.
    pub(crate) recovery: Duration,
}

/// Waits until something holds.
pub(crate) async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() > deadline => bail!("{what}: not within {patience:?}: {why}"),
            Err(_) => time::sleep(LOOK).await,
        }
    }
}

impl Monkey {
    /// Undoes everything and waits until all is well.
    pub(crate) async fn calm(&mut self) -> anyhow::Result<Calm> {
        self.undo().await?;
        let began = Instant::now();
        self.answer().await?;
        self.clear_extras().await?;
        self.settle_wants().await?;
        let recovery = self.converge(began).await?;
        self.quiet().await?;
        Ok(Calm { recovery })
    }

    async fn undo(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let far = Instant::now() + PATIENCE * 2;
            self.wounds.close(far, &mut self.place, &mut self.ledger)?;
            if self.wounds.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("wounds stay open: {:?}", self.wounds);
            }
            time::sleep(LOOK).await;
        }
    }

    async fn answer(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.place.tend()?;
            if self.place.is_abandoned() {
                self.place.start_supervisor()?;
            }
            match time::timeout(ANSWER, self.api.info()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if Instant::now() > deadline => {
                    bail!("the supervisor does not answer: {error:#}")
                }
                Err(_) if Instant::now() > deadline => bail!("the supervisor does not answer"),
                Ok(Err(_)) | Err(_) => time::sleep(LOOK).await,
            }
        }
    }

    /// Deletes what the monkey created on the way.
    async fn clear_extras(&mut self) -> anyhow::Result<()> {
        let (api, wants) = (self.api.clone(), &self.wants);
        until("the extra instances are gone", PATIENCE, async || {
            let Ok(all) = api.list().await else { return Ok(Err("no list".into())) };
            let extras: Vec<&Instance> = all.iter().filter(|one| !wants.contains_key(&one.name)).collect();
            for extra in &extras {
                api.verb(&extra.name, Verb::Down { force: false }, ANSWER).await;
                api.verb(&extra.name, Verb::Delete, ANSWER).await;
            }
            Ok(if extras.is_empty() { Ok(()) } else { Err(describe(extras.iter().copied())) })
        })
        .await
    }

    /// Says again what got no answer, and starts anew whose configuration was mended.
    async fn settle_wants(&mut self) -> anyhow::Result<()> {
        let corrupted = std::mem::take(&mut self.corrupted);
        for (name, want) in &mut self.wants {
            if want.promised && !(want.up && corrupted.contains(name)) {
                continue;
            }
            let verb = if want.up { Verb::Up } else { Verb::Down { force: false } };
            let outcome = self.api.verb(name, verb, ANSWER).await;
            if outcome != crate::api::Outcome::Done {
                bail!("`{name}` could not be wished {verb:?} in calm: {outcome:?}");
            }
            want.promised = true;
        }
        Ok(())
    }

    /// Waits until every instance is as it is wanted.
    async fn converge(&mut self, began: Instant) -> anyhow::Result<Duration> {
        let api = self.api.clone();
        let (mut back, mut recovery) = (Instant::now(), Duration::ZERO);
        until("all that is wanted is ready, and nothing else runs", PATIENCE, async || {
            let Ok(all) = api.list().await else { return Ok(Err("no list".into())) };
            let all: BTreeMap<&str, &Instance> = all.iter().map(|one| (one.name.as_str(), one)).collect();
            let mut late = Vec::new();
            for member in &self.fleet {
                let one = all.get(member.name.as_str()).copied();
                let one = one.with_context(|| format!("`{}` is gone from the registry", member.name))?;
                let up = self.wants.get(&member.name).is_some_and(|want| want.up);
                check_wish(one, up)?;
                if !serves_as_wanted(member, one, up, &all) {
                    recovery = began.elapsed();
                    late.push(one);
                } else if up && role(one) == Role::Rescued {
                    // One that is down by wish stays rescued: it cannot have its place back.
                    late.push(one);
                }
            }
            if began.elapsed() > BY_HAND && back.elapsed() > BY_HAND / 4 {
                for one in all.values().filter(|one| role(one) == Role::Rescued) {
                    api.verb(&one.name, Verb::FailBack, ANSWER).await;
                }
                back = Instant::now();
            }
            Ok(if late.is_empty() { Ok(recovery) } else { Err(describe(late.into_iter())) })
        })
        .await
    }

    /// Waits until nothing changes any more.
    async fn quiet(&mut self) -> anyhow::Result<()> {
        let api = self.api.clone();
        let (mut seen, mut since) = (0, Instant::now());
        until("it is quiet", PATIENCE, async || {
            let revision = api.info().await?.revision;
            if revision != seen {
                (seen, since) = (revision, Instant::now());
            }
            Ok(if since.elapsed() >= QUIET { Ok(()) } else { Err(format!("revision {revision}")) })
        })
        .await
    }
}

/// What was promised holds.
fn check_wish(one: &Instance, up: bool) -> anyhow::Result<()> {
    let wish = one.status.as_ref().map(|status| status.wish());
    let promised = if up { Wish::Up } else { Wish::Down };
    if wish != Some(promised) {
        bail!("`{}` was promised to be {promised:?}, and is wished {wish:?}", one.name);
    }
    Ok(())
}

fn role(one: &Instance) -> Role {
    one.status.as_ref().and_then(|status| status.failover.as_ref()).map_or(Role::Unspecified, |of| of.role())
}

fn phase(one: &Instance) -> Phase {
    one.status.as_ref().map_or(Phase::Unspecified, |status| status.phase())
}

/// Whether it runs or rests as it is wanted. A cold rescue rests as long as its primary is in its place.
fn serves_as_wanted(member: &Member, one: &Instance, up: bool, all: &BTreeMap<&str, &Instance>) -> bool {
    let rests = phase(one) == Phase::Stopped && one.status.as_ref().is_some_and(|status| status.pid == 0);
    let called = match &member.kind {
        Kind::Single | Kind::Primary | Kind::Flooder => true,
        Kind::Rescue { of, .. } => {
            !member.is_cold() || all.get(of.as_str()).is_some_and(|primary| role(primary) == Role::Rescued)
        }
    };
    if up && called { phase(one) == Phase::Ready } else { rests }
}

/// Each instance with its phase and reason.
fn describe<'a>(all: impl Iterator<Item = &'a Instance>) -> String {
    let one = |one: &Instance| {
        let reason = one.status.as_ref().map(|status| status.reason.clone()).unwrap_or_default();
        format!("`{}` is {:?}, {:?}: {reason}", one.name, phase(one), role(one))
    };
    all.map(one).collect::<Vec<_>>().join("; ")
}
