//! What belongs to an instance, and the hunt for it.
//!
//! To an instance belong
//! - the processes that carry its mark,
//! - the children of what belongs to it,
//! - the members of a session whose leader belongs to it: a session is entered by birth alone,
//! - what was found to belong to it before.
//!
//! Whatever carries the mark of another instance belongs to that one alone. The supervisor itself and process 1
//! belong to nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    thread,
    time::Duration,
};

use nix::unistd::{Pid, getsid};
use rustix::{
    io,
    process::{Signal, getpid},
};

use super::{
    look::{Identity, Looker, Mark, Seen, State},
    signal,
};

/// Looks until processes are killed although new ones still appear. Stopping wins against every program but
/// one that forks as fast as it can; killing wins against that too.
const STOPS: u32 = 10;

/// How often it is looked whether what was told to stop stands still, and how long between.
const STILL_TRIES: u32 = 50;
const STILL_PAUSE: Duration = Duration::from_millis(1);

/// Looks that saw a blank process and nothing else of interest, until it is no longer believed to be the one that
/// is sought. With the pauses between them this is some seconds.
const DOUBTS: u32 = 12;

/// What is known of one instance's processes.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    /// Those that the last look found alive.
    found: BTreeSet<Identity>,
    /// Sessions whose members belong to the instance, and when the leader was started if it was ever seen.
    sessions: BTreeMap<i32, Option<u64>>,
    stage: Stage,
    doubts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Everything found is stopped; so many looks have been taken.
    Stopping(u32),
    /// Everything found is killed.
    Killing,
}

impl Stage {
    /// What a process is sent that is found now.
    fn signal(self) -> Signal {
        match self {
            Self::Stopping(_) => Signal::STOP,
            Self::Killing => Signal::KILL,
        }
    }
}

/// What makes a look less than certain.
#[derive(Debug)]
struct Doubt {
    /// Processes that ran when the look began, though they had been told to stop.
    moving: BTreeSet<Identity>,
    /// There are processes whose mark could not be seen.
    blank: bool,
}

/// What has come of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No process of the instance is alive.
    Proven,
    /// The hunt has come closer to its end.
    Changed,
    /// It has not; these are alive.
    Same(Vec<i32>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Stopping(0)
    }
}

/// Takes one look for all hunts, whose marks are given beside them, and the next step of each.
pub(super) fn advance(looker: &mut Looker, marks: &[&str], hunts: &mut [&mut Hunt]) -> io::Result<Vec<Step>> {
    // Before the look: a child that is born later than this has a parent that was not yet still.
    let moving = settle(looker, hunts)?;
    let marks = marks.iter().enumerate().map(|(index, mark)| (mark.as_bytes(), index)).collect();
    let signals: Vec<Signal> = hunts.iter().map(|hunt| hunt.stage.signal()).collect();
    let look = looker.all(&marks, &signals)?;
    let blank = look.iter().any(|seen| seen.mark == Mark::Blank && seen.state != State::Dead);
    let doubt = Doubt { moving, blank };
    let claimed = claim(&look, hunts);
    let mut steps = Vec::with_capacity(hunts.len());
    let mut dying = Vec::new();
    for (hunt, found) in hunts.iter_mut().zip(claimed) {
        steps.push(hunt.step(looker, &found, &doubt, &mut dying));
    }
    if !dying.is_empty() {
        signal::await_deaths(looker, &dying);
    }
    Ok(steps)
}

impl Hunt {
    fn step(
        &mut self,
        looker: &mut Looker,
        found: &[Seen],
        doubt: &Doubt,
        dying: &mut Vec<Identity>,
    ) -> Step {
        if found.is_empty() {
            self.doubts += u32::from(doubt.blank);
            let proven = !doubt.blank || self.doubts > DOUBTS;
            return if proven { Step::Proven } else { Step::Same(Vec::new()) };
        }
        let before = std::mem::take(&mut self.found);
        self.found = found.iter().map(|seen| seen.identity).collect();
        let new = self.found.difference(&before).next().is_some();
        let unsettled = new || !self.found.is_disjoint(&doubt.moving);
        match self.stage {
            Stage::Stopping(looks) if unsettled && looks < STOPS => {
                for seen in found.iter().filter(|seen| seen.state == State::Running) {
                    signal::send(looker, seen.identity, Signal::STOP);
                }
                self.stage = Stage::Stopping(looks + 1);
                Step::Changed
            }
            Stage::Stopping(_) | Stage::Killing => {
                for process in &self.found {
                    signal::send(looker, *process, Signal::KILL);
                }
                dying.extend(&self.found);
                let stage = std::mem::replace(&mut self.stage, Stage::Killing);
                let fewer = before.difference(&self.found).next().is_some();
                if new || fewer || stage != Stage::Killing {
                    Step::Changed
                } else {
                    Step::Same(self.found.iter().map(|process| process.pid).collect())
                }
            }
        }
    }
}

/// Waits until everything that was told to stop stands still. Returns what does not.
fn settle(looker: &mut Looker, hunts: &[&mut Hunt]) -> io::Result<BTreeSet<Identity>> {
    let stopping = hunts.iter().filter(|hunt| hunt.stage != Stage::Killing);
    let mut moving: BTreeSet<Identity> = stopping.flat_map(|hunt| hunt.found.iter().copied()).collect();
    for attempt in 0..STILL_TRIES {
        if attempt > 0 {
            thread::park_timeout(STILL_PAUSE);
        }
        for process in moving.clone() {
            if looker.state(process)? != State::Running {
                moving.remove(&process);
            }
        }
        if moving.is_empty() {
            break;
        }
    }
    Ok(moving)
}

/// The living processes of each hunt.
fn claim(look: &[Seen], hunts: &mut [&mut Hunt]) -> Vec<Vec<Seen>> {
    let mut claims = Claims::new(look);
    for (index, hunt) in hunts.iter_mut().enumerate() {
        hunt.sessions.retain(|&session, leader| claims.still_ours(session, *leader));
        for process in &hunt.found {
            claims.claim_known(*process, index);
        }
        for session in hunt.sessions.keys() {
            claims.claim_session(*session, index);
        }
    }
    for (at, seen) in look.iter().enumerate() {
        if let Mark::Sought(index) | Mark::Guest(index) = seen.mark {
            claims.claim(at, index);
        }
    }
    claims.spread(hunts);
    let mut found = vec![Vec::new(); hunts.len()];
    for (seen, owner) in look.iter().zip(&claims.owner) {
        if let Some(owner) = owner
            && seen.state != State::Dead
        {
            found[*owner].push(*seen);
        }
    }
    found
}

/// Which hunt each process of a look belongs to, as far as that is known yet.
struct Claims<'a> {
    look: &'a [Seen],
    owner: Vec<Option<usize>>,
    /// Claimed, and its children and session not yet.
    fresh: Vec<usize>,
    by_pid: HashMap<i32, usize>,
    children: HashMap<i32, Vec<usize>>,
    members: HashMap<i32, Vec<usize>>,
}

impl<'a> Claims<'a> {
    fn new(look: &'a [Seen]) -> Self {
        let mut by_pid = HashMap::with_capacity(look.len());
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        let mut members: HashMap<i32, Vec<usize>> = HashMap::new();
        for (at, seen) in look.iter().enumerate() {
            by_pid.insert(seen.identity.pid, at);
            children.entry(seen.parent).or_default().push(at);
            members.entry(seen.session).or_default().push(at);
        }
        Self { look, owner: vec![None; look.len()], fresh: Vec::new(), by_pid, children, members }
    }

    fn claim(&mut self, at: usize, hunt: usize) {
        let Seen { identity, mark, .. } = self.look[at];
        let eligible = match mark {
            Mark::None | Mark::Blank => true,
            Mark::Sought(index) | Mark::Guest(index) => index == hunt,
            Mark::Other => false,
        };
        let exempt = identity.pid == 1 || identity.pid == getpid().as_raw_pid();
        if eligible && !exempt && self.owner[at].is_none() {
            self.owner[at] = Some(hunt);
            self.fresh.push(at);
        }
    }

    fn claim_known(&mut self, process: Identity, hunt: usize) {
        if let Some(&at) = self.by_pid.get(&process.pid)
            && self.look[at].identity == process
        {
            self.claim(at, hunt);
        }
    }

    fn claim_session(&mut self, session: i32, hunt: usize) {
        for at in self.members.get(&session).cloned().unwrap_or_default() {
            self.claim(at, hunt);
        }
    }

    /// Whether a session that was claimed before is the same one. While it has members, the kernel gives its
    /// number to no process.
    fn still_ours(&self, session: i32, leader: Option<u64>) -> bool {
        let leader_now = self.by_pid.get(&session).map(|&at| self.look[at].identity.started);
        self.members.contains_key(&session) && leader_now.is_none_or(|now| Some(now) == leader)
    }

    /// From what is claimed to its children and sessions, until there is nothing more.
    fn spread(&mut self, hunts: &mut [&mut Hunt]) {
        // nix, not rustix: the session is 0 in a pid namespace that its leader is not in, and rustix panics on that.
        let own_session = getsid(None).map_or(0, Pid::as_raw);
        while let Some(at) = self.fresh.pop() {
            let Some(hunt) = self.owner[at] else { continue };
            let Seen { identity, session, mark, .. } = self.look[at];
            for child in self.children.get(&identity.pid).cloned().unwrap_or_default() {
                self.claim(child, hunt);
            }
            let leader = self.by_pid.get(&session).map(|&leader| &self.look[leader]);
            let ours = match leader {
                Some(leader) if leader.identity == identity => true,
                Some(Seen { state: State::Running | State::Still, .. }) => false,
                // Only what was born in it can be in it; its leader was the worker, or a process of the worker, unless
                // somebody has run a command there from a shell that has ended.
                Some(Seen { state: State::Dead, .. }) | None => mark == Mark::Sought(hunt),
            };
            let started = leader.map(|leader| leader.identity.started);
            if ours && session > 0 && session != own_session && !hunts[hunt].sessions.contains_key(&session) {
                hunts[hunt].sessions.insert(session, started);
                self.claim_session(session, hunt);
            }
        }
    }
}

#[cfg(test)]
mod tests;
