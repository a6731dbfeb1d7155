//! What must hold in calm: nothing is lost, nothing is left, nothing has grown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, ensure};
use supervisor_proto::v1::{Instance, Phase};

use crate::{
    calm::until,
    exits::{self, Tally},
    fleet::Kind,
    monkey::Monkey,
    processes::{self, Part},
    witness::Witness,
};

/// Probes, calls and workers that are let go come and go within seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the supervisor's memory may grow by: its allocator keeps what the largest burst needed, twice (two threads
/// work), SQLite fills two page caches of 2.5 MB, and the deaths of fifty instances at once are a burst.
const SUPERVISOR_GROWTH: u64 = 16 << 20;

/// What a worker's memory may grow by: it holds up to 256 unacknowledged exits and the reports of one connection
/// that does not read, 256 KiB.
const WORKER_GROWTH: u64 = 512 << 10;

/// What the first calm was like, before anything was broken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Baseline {
    /// Of the supervisor, without one for each worker.
    descriptors: usize,
    supervisor_memory: u64,
    /// The most of any worker.
    worker_descriptors: usize,
    worker_memory: u64,
}

/// What an audit saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) descriptors: usize,
    pub(crate) supervisor_memory: u64,
    pub(crate) worker_descriptors: usize,
    pub(crate) worker_memory: u64,
    pub(crate) processes: usize,
}

impl Monkey {
    /// Measures what later audits compare with.
    pub(crate) async fn baseline(&self) -> anyhow::Result<(Baseline, Figures)> {
        let workers = self.check_processes().await?;
        let figures = self.figures(&workers)?;
        let baseline = Baseline {
            descriptors: figures.descriptors.saturating_sub(workers.len()),
            supervisor_memory: figures.supervisor_memory,
            worker_descriptors: figures.worker_descriptors,
            worker_memory: figures.worker_memory,
        };
        Ok((baseline, figures))
    }

    /// Looks at everything.
    pub(crate) async fn audit(
        &self,
        baseline: &Baseline,
        witness: &Witness,
    ) -> anyhow::Result<(Figures, Tally)> {
        let workers = self.check_processes().await?;
        let figures = self.check_growth(&workers, baseline).await?;
        self.check_ports().await?;
        let tally = self.check_log(witness).await?;
        self.check_complaints()?;
        Ok((figures, tally))
    }

    async fn instances(&self) -> anyhow::Result<Vec<Instance>> {
        self.api.list().await
    }

    /// Exactly the processes that are wanted run: one worker and one gateway for each running instance, and what
    /// that gateway itself started. Gives the workers.
    async fn check_processes(&self) -> anyhow::Result<Vec<i32>> {
        until("only what is wanted is alive", PATIENCE, async || {
            let mut strays = Vec::new();
            let mut workers = Vec::new();
            let mut living = processes::of_store(&self.store);
            for one in self.instances().await? {
                let status = one.status.clone().unwrap_or_default();
                let members = living.remove(&one.name).unwrap_or_default();
                let pids = |part: Part| -> BTreeSet<i32> {
                    members.iter().filter(|m| m.part == part).map(|m| m.identity.pid).collect()
                };
                let wanted = self.fleet.iter().find(|member| member.name == one.name);
                let wanted = wanted.map_or(0, |member| member.processes());
                let as_said = if status.phase() == Phase::Ready {
                    pids(Part::Worker) == BTreeSet::from([status.worker_pid])
                        && pids(Part::Gateway) == BTreeSet::from([status.pid])
                        && members.len() == wanted
                } else {
                    members.is_empty()
                };
                if !as_said {
                    strays.push(format!("`{}` ({:?}): {members:?}", one.name, status.phase()));
                }
                workers.extend(pids(Part::Worker));
            }
            strays.extend(living.iter().map(|(name, members)| format!("`{name}`, unknown: {members:?}")));
            Ok(if strays.is_empty() { Ok(workers) } else { Err(strays.join("; ")) })
        })
        .await
    }

    fn figures(&self, workers: &[i32]) -> anyhow::Result<Figures> {
        let supervisor = self.place.supervisor().context("the supervisor is dead")?.pid;
        let most = |of: fn(i32) -> Option<u64>| workers.iter().filter_map(|pid| of(*pid)).max().unwrap_or(0);
        let worker_descriptors = workers.iter().filter_map(|pid| processes::descriptors(*pid)).max();
        Ok(Figures {
            descriptors: processes::descriptors(supervisor).context("failed to count descriptors")?,
            supervisor_memory: processes::memory(supervisor).context("failed to read its memory")?,
            worker_descriptors: worker_descriptors.unwrap_or(0),
            worker_memory: most(processes::memory),
            processes: processes::of_store(&self.store).values().map(Vec::len).sum(),
        })
    }

    /// No descriptor is leaked, and no memory.
    async fn check_growth(&self, workers: &[i32], baseline: &Baseline) -> anyhow::Result<Figures> {
        until("descriptors and memory are as they were", PATIENCE, async || {
            let figures = self.figures(workers)?;
            let within = [
                (
                    "the supervisor's descriptors",
                    figures.descriptors as u64,
                    (baseline.descriptors + workers.len()) as u64,
                ),
                (
                    "a worker's descriptors",
                    figures.worker_descriptors as u64,
                    baseline.worker_descriptors as u64,
                ),
                (
                    "the supervisor's memory",
                    figures.supervisor_memory,
                    baseline.supervisor_memory + SUPERVISOR_GROWTH,
                ),
                ("a worker's memory", figures.worker_memory, baseline.worker_memory + WORKER_GROWTH),
            ];
            let over = within.iter().find(|(_, now, most)| now > most);
            Ok(match over {
                None => Ok(figures),
                Some((what, now, most)) => Err(format!("{what}: {now}, at most {most}")),
            })
        })
        .await
    }

    /// No block overlaps another, and nobody listens in a block but its instance.
    async fn check_ports(&self) -> anyhow::Result<()> {
        until("each port is its owner's", PATIENCE, async || {
            let mut blocks = self.api.ports().await?;
            blocks.sort_by_key(|block| block.base);
            for pair in blocks.windows(2) {
                ensure!(pair[0].last < pair[1].base, "two instances have one block: {pair:?}");
            }
            let foreign: Vec<String> = blocks
                .iter()
                .flat_map(|block| {
                    block.ports.iter().filter(|port| port.foreign).map(move |port| (block, port))
                })
                .map(|(block, port)| {
                    format!("process {} is on {} of `{}`", port.pid, port.port, block.instance)
                })
                .collect();
            Ok(if foreign.is_empty() { Ok(()) } else { Err(foreign.join("; ")) })
        })
        .await
    }

    /// The log is whole, and says what happened.
    async fn check_log(&self, witness: &Witness) -> anyhow::Result<Tally> {
        let all = self.api.events(0).await?;
        let newest = all.last().map_or(0, |event| event.revision);
        until("the witness has seen all events", PATIENCE, async || {
            let last = witness.last();
            Ok(if last >= newest { Ok(()) } else { Err(format!("{last} of {newest}")) })
        })
        .await?;
        let running: BTreeMap<String, u64> = self
            .instances()
            .await?
            .into_iter()
            .filter_map(|one| Some((one.name, one.status?)))
            .filter(|(_, status)| status.pid != 0)
            .map(|(name, status)| (name, status.incarnation))
            .collect();
        let seen = witness.seen();
        ensure!(seen.faults.is_empty(), "the stream of events: {}", seen.faults.join("; "));
        let witnessed: Vec<_> = seen.events.iter().filter(|event| event.revision <= newest).collect();
        if let Some((listed, seen)) = all.iter().zip(&witnessed).find(|(listed, seen)| *listed != **seen) {
            anyhow::bail!("the log and the stream differ: {listed:?} and {seen:?}");
        }
        let counts = (all.len(), witnessed.len());
        ensure!(counts.0 == counts.1, "the log and the stream differ in length: {counts:?}");
        let tally = exits::examine(&all, &self.ledger, &running);
        ensure!(tally.faults.is_empty(), "the event log: {}", tally.faults.join("\n"));
        Ok(tally)
    }

    /// Nobody has panicked.
    fn check_complaints(&self) -> anyhow::Result<()> {
        let mut logs = vec![self.place.log()];
        for member in &self.fleet {
            logs.push(self.place.run_dir(&member.name).join("worker.log"));
            if member.kind != Kind::Flooder {
                logs.push(self.place.data_dir.join("instances").join(&member.name).join("logs/gateway.log"));
            }
        }
        for log in logs {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if let Some(line) = text.lines().find(|line| line.contains("panicked")) {
                anyhow::bail!("{}: {line}", log.display());
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "supervisor {} descriptors, {} KiB; worker at most {} descriptors, {} KiB; {} processes",
            self.descriptors,
            self.supervisor_memory / 1024,
            self.worker_descriptors,
            self.worker_memory / 1024,
            self.processes,
        )
    }
}
