//! The event log against what was done: every life ends once, as it did; no block of ports is given twice.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_proto::v1::{Event, Severity};

use crate::ledger::{Kill, Ledger};

/// How far the time of a start in the log may be from the death that the monkey gave that process, so that the pid
/// is not another's: a start is recorded once the supervisor hears of it, which may have been stopped or dead.
const NEAR_NS: u64 = 120_000_000_000;

/// What the monkey does with a gateway.
const BY_SIGKILL: &str = "killed by SIGKILL";

/// What a gateway says that cannot have its port or its configuration.
const UNFIT: [&str; 2] = ["exited with status 1", "exited with status 78"];

/// What the supervisor says when nobody could learn more.
const NOBODY: &str = "died, and nobody was left to learn how";

/// One life of an instance, as the log has it.
#[derive(Debug, Default, Clone)]
struct Life {
    /// Each time it is said to have been started or adopted: its pid, and when.
    seen: Vec<(i32, u64)>,
    started: u32,
    /// Each time its exit is recorded: message and severity.
    exits: Vec<(String, Severity)>,
}

/// Names a life: the instance, which of that name, and its incarnation.
type Key = (String, u32, u64);

/// What the log came to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) lives: usize,
    pub(crate) exits: usize,
    pub(crate) failovers: usize,
    /// Exits with the status that the monkey knows of.
    pub(crate) confirmed: usize,
    /// Exits that nobody could learn the status of.
    pub(crate) unknown: u64,
    /// Gateways that had been told to end when the monkey killed them.
    pub(crate) overtaken: u64,
    /// Gateways killed before anybody had heard of them, their workers and the supervisor with them.
    pub(crate) unheard: u64,
    /// What is wrong, a sentence each.
    pub(crate) faults: Vec<String>,
}

/// Holds the log against the ledger. `running` is what runs now: instances with their incarnations.
pub(crate) fn examine(events: &[Event], ledger: &Ledger, running: &BTreeMap<String, u64>) -> Tally {
    let mut tally = Tally::default();
    let lives = lives(events, &mut tally);
    tally.lives = lives.len();
    tally.exits = lives.values().map(|life| life.exits.len()).sum();
    tally.failovers = events.iter().filter(|event| event.r#type == "failover.done").count();
    let newest = newest(&lives);
    for (key, life) in &lives {
        let alive = newest.get(&key.0) == Some(key) && running.get(&key.0) == Some(&key.2);
        each_once(key, life, alive, &mut tally);
    }
    for (name, incarnation) in running {
        if newest.get(name).is_none_or(|key| key.2 != *incarnation) {
            tally
                .faults
                .push(format!("`{name}` runs incarnation {incarnation}, whose start is not in the log"));
        }
    }
    let by_monkey = confirm(&lives, ledger, &mut tally);
    unexplained(&lives, &by_monkey, ledger, &mut tally);
    ports(events, &mut tally);
    tally
}

/// Reads the lives from the log.
fn lives(events: &[Event], tally: &mut Tally) -> BTreeMap<Key, Life> {
    let mut lives: BTreeMap<Key, Life> = BTreeMap::new();
    let mut births: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events {
        let birth = births.entry(event.instance.as_str()).or_default();
        if event.r#type == "instance.created" {
            *birth += 1;
        }
        let (begins, adopted) = (event.r#type == "instance.started", event.r#type == "instance.adopted");
        let exits = event.r#type == "instance.exited";
        if !(begins || adopted || exits) {
            continue;
        }
        let life = lives.entry((event.instance.clone(), *birth, event.incarnation)).or_default();
        if exits {
            life.exits.push((event.message.clone(), event.severity()));
            continue;
        }
        if !life.exits.is_empty() {
            let message = format!("`{}` {} began after its exit", event.instance, event.incarnation);
            tally.faults.push(message);
        }
        life.started += u32::from(begins);
        let pid =
            event.message.split("process ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        match pid {
            Some(pid) => life.seen.push((pid, unix_ns(event))),
            None => tally.faults.push(format!("no pid in `{}`", event.message)),
        }
    }
    lives
}

fn unix_ns(event: &Event) -> u64 {
    let time = event.time.unwrap_or_default();
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.nanos).unwrap_or(0)
}

/// The newest life of each instance.
fn newest(lives: &BTreeMap<Key, Life>) -> BTreeMap<String, Key> {
    lives.keys().map(|key| (key.0.clone(), key.clone())).collect()
}

fn each_once(key: &Key, life: &Life, alive: bool, tally: &mut Tally) {
    let (name, _, incarnation) = key;
    let mut fault = |what: String| tally.faults.push(format!("`{name}` incarnation {incarnation}: {what}"));
    let pids: BTreeSet<i32> = life.seen.iter().map(|(pid, _)| *pid).collect();
    if pids.len() > 1 {
        fault(format!("was several processes, {pids:?}"));
    }
    if life.started > 1 {
        fault(format!("was started {} times", life.started));
    }
    match (alive, life.exits.len()) {
        (true, 0) | (false, 1) => {}
        (true, _) => fault(format!("runs, and its exit is recorded: {:?}", life.exits)),
        (false, 0) => fault("runs no more, and its exit is not recorded".into()),
        (false, _) => fault(format!("has several exits: {:?}", life.exits)),
    }
}

/// Finds the exit of each gateway that the monkey killed.
fn confirm(lives: &BTreeMap<Key, Life>, ledger: &Ledger, tally: &mut Tally) -> BTreeSet<Key> {
    let mut by_pid: BTreeMap<(&str, i32), Vec<(&Key, u64)>> = BTreeMap::new();
    for (key, life) in lives {
        for (pid, at) in &life.seen {
            by_pid.entry((key.0.as_str(), *pid)).or_default().push((key, *at));
        }
    }
    let nearest = |kill: &Kill| {
        let all = by_pid.get(&(kill.instance.as_str(), kill.pid))?;
        let (key, at) = all.iter().min_by_key(|(_, at)| at.abs_diff(kill.at))?;
        // Adoptions repeat what runs, so a life that is long over is not meant.
        (at.abs_diff(kill.at) < NEAR_NS).then_some(*key)
    };
    let (mut confirmed, mut unheard) = (BTreeSet::new(), BTreeMap::<&str, u64>::new());
    for kill in &ledger.kills {
        let Some(key) = nearest(kill) else {
            *unheard.entry(kill.instance.as_str()).or_default() += 1;
            continue;
        };
        confirmed.insert(key.clone());
        let Some((message, severity)) = lives.get(key).and_then(|life| life.exits.first()) else { continue };
        if message.starts_with(BY_SIGKILL) {
            tally.confirmed += 1;
        } else if *severity == Severity::Info {
            tally.overtaken += 1;
        } else if !message.starts_with(NOBODY) {
            let what = format!("`{}` {} (process {}) was killed by SIGKILL", key.0, key.2, kill.pid);
            tally.faults.push(format!("{what}, and is said to have `{message}`"));
        }
    }
    for (name, killed) in unheard {
        // Recorded by its exit alone: the supervisor died between the two.
        let unborn = lives.iter().filter(|(key, life)| key.0 == name && life.seen.is_empty()).count() as u64;
        let excuses = ledger.excuses(name);
        tally.unheard += killed.saturating_sub(unborn);
        if killed > unborn + excuses {
            let what = format!("{killed} lives of `{name}` were ended that nobody has heard of");
            tally.faults.push(format!("{what}, with {excuses} excuses"));
        }
    }
    confirmed
}

/// Deaths that nobody is to blame for.
fn unexplained(lives: &BTreeMap<Key, Life>, by_monkey: &BTreeSet<Key>, ledger: &Ledger, tally: &mut Tally) {
    let mut unknown: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, life) in lives {
        for (message, severity) in &life.exits {
            let spoilt = ledger.spoilt.contains(&key.0) || ledger.disk_was_full;
            if message.starts_with(NOBODY) {
                *unknown.entry(key.0.as_str()).or_default() += 1;
            } else if *severity == Severity::Info || by_monkey.contains(key) || life.seen.is_empty() {
                // Ordered, or confirmed above, or dead before anybody learnt its pid.
            } else if !(spoilt && UNFIT.iter().any(|unfit| message.starts_with(unfit))) {
                tally.faults.push(format!("`{}` {} {message} for no reason", key.0, key.2));
            }
        }
    }
    for (name, times) in unknown {
        tally.unknown += times;
        let excuses = ledger.excuses(name);
        if times > excuses {
            tally.faults.push(format!("{times} exits of `{name}` are unknown, with {excuses} excuses"));
        }
    }
}

/// Replays who was given which block.
fn ports(events: &[Event], tally: &mut Tally) {
    let mut held: BTreeMap<&str, (u16, u16)> = BTreeMap::new();
    for event in events {
        let name = event.instance.as_str();
        let block = |word: &str| {
            let (first, last) = event.message.split(word).nth(1)?.split(' ').next()?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let given = match event.r#type.as_str() {
            "instance.created" => block("ports "),
            "instance.moved" => block("to "),
            "instance.deleted" => {
                held.remove(name);
                continue;
            }
            _ => continue,
        };
        let Some((first, last)) = given else {
            tally.faults.push(format!("no ports in `{}`", event.message));
            continue;
        };
        held.remove(name);
        if let Some((other, block)) = held.iter().find(|(_, block)| block.0 <= last && first <= block.1) {
            tally
                .faults
                .push(format!("`{name}` was given ports {first}-{last} while `{other}` had {block:?}"));
        }
        held.insert(name, (first, last));
    }
}
