//! What the kernel holds a gateway to: it and all it ever starts.
//!
//! The worker stays outside, so nothing of this is done to it: a plan is made before the fork, carried out by the
//! child between fork and exec, and what became of each step comes back through a pipe:
//!
//! ```text
//!   worker   plan ── fork ──────────────────────────── read ──► one `Wall` for each kind that was asked for
//!              │                                         ▲
//!   child      └──► cgroup, limits, oom_score_adj ─┐     │ an errno for each step
//!                   bounding set, user             ├─────┘
//!                   capabilities, no_new_privs     │
//!                   Landlock, seccomp filters ─────┘ exec
//! ```
//!
//! Each step needs what a later one takes away. A step that fails leaves its wall missing and the gateway goes on,
//! but for the user: a program that was to have less power than this one is not run with all of it. The report
//! says what was seen to happen, not what was meant to.

mod landlock;
mod limits;
mod manager;
pub(crate) mod modes;
mod privileges;
mod syscalls;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ::landlock::RulesetCreated;
use nix::errno::Errno;
use rustix::fs::fchown;
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{User, Wall, Walls};
use thiserror::Error;

use self::limits::Limited;
use self::modes::Keeper;
use self::privileges::Identity;
use self::syscalls::Filter;

/// Steps of the child.
const STEPS: usize = 10;

/// One thing that the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Cgroup,
    Limits,
    OomScore,
    BoundingSet,
    User,
    Capabilities,
    NoNewPrivileges,
    Landlock,
    Filter,
    Modes,
}

/// Why walls can be built by nobody.
#[derive(Debug, Error)]
pub(crate) enum UnfitWalls {
    /// A range holds no port, or what is none.
    #[error("{first} to {last} is no range of ports")]
    Ports {
        /// As it was given.
        first: u32,
        /// As it was given.
        last: u32,
    },
    /// The kernel has no such weight.
    #[error("{0} is not between -1000 and 1000, as oom_score_adj has to be")]
    OomScore(i32),
    /// The kernel takes it for "no change".
    #[error("{} is the number of no user and no group", u32::MAX)]
    Nobody,
}

/// Refuses what nobody could build. Its paths are checked by the caller.
pub(crate) fn check(walls: &Walls) -> Result<(), UnfitWalls> {
    let is_port = |port: u32| (1..=u32::from(u16::MAX)).contains(&port);
    if let Some(range) = walls.bind.iter().find(|range| {
        let fits = is_port(range.first) && is_port(range.last) && range.first <= range.last;
        !fits
    }) {
        return Err(UnfitWalls::Ports { first: range.first, last: range.last });
    }
    if let Some(score) = walls.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(UnfitWalls::OomScore(score));
    }
    let unchanged = |user: &User| [user.uid, user.gid].iter().chain(&user.groups).any(|id| *id == u32::MAX);
    match walls.user.as_ref().is_some_and(unchanged) {
        true => Err(UnfitWalls::Nobody),
        false => Ok(()),
    }
}

/// All absolute paths in `walls`, each with what it is.
pub(crate) fn paths(walls: &Walls) -> impl Iterator<Item = (&'static str, &str)> {
    let trees = walls.write.iter().chain(&walls.files).chain(&walls.read).map(|tree| ("tree", tree.as_str()));
    let cgroup = Some(walls.cgroup.as_str()).filter(|cgroup| !cgroup.is_empty());
    trees.chain(cgroup.map(|cgroup| ("cgroup", cgroup)))
}

/// Gives a pipe to the user behind `walls`, for programs that open `/dev/stdout` or `/dev/stderr`; most do not. Not for
/// what is somebody's own, as a terminal is.
pub(crate) fn lend(pipe: impl AsFd, walls: &Walls) {
    if let Some(user) = &walls.user {
        let _ = fchown(pipe, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    }
}

/// What became of each step: 0, an errno, or [`Outcomes::NOT_TAKEN`].
#[derive(Debug, Clone, Copy)]
struct Outcomes([i32; STEPS]);

impl Outcomes {
    /// The child did not come that far, or was not to take it.
    const NOT_TAKEN: i32 = -1;

    /// Nothing has been done.
    fn none() -> Self {
        Self([Self::NOT_TAKEN; STEPS])
    }

    fn note(&mut self, step: Step, outcome: rustix::io::Result<()>) {
        self.0[step as usize] = outcome.map_or_else(rustix::io::Errno::raw_os_error, |()| 0);
    }

    /// Why `step` has not been taken, if it has not.
    fn failure(&self, step: Step) -> Option<Errno> {
        match self.0[step as usize] {
            0 => None,
            Self::NOT_TAKEN => Some(Errno::ECANCELED),
            errno => Some(Errno::from_raw(errno)),
        }
    }

    fn to_bytes(self) -> [u8; STEPS * 4] {
        let mut bytes = [0; STEPS * 4];
        for (place, outcome) in bytes.chunks_exact_mut(4).zip(self.0) {
            place.copy_from_slice(&outcome.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; STEPS * 4]) -> Self {
        let mut outcomes = Self::none();
        for (outcome, bytes) in outcomes.0.iter_mut().zip(bytes.chunks_exact(4)) {
            *outcome = bytes.try_into().map_or(Self::NOT_TAKEN, i32::from_ne_bytes);
        }
        outcomes
    }
}

/// A wall that was asked for: what is known to be missing before it is built, and the steps it stands on.
#[derive(Debug)]
struct Claim {
    kind: Kind,
    state: State,
    reasons: Vec<String>,
    pillars: Vec<Pillar>,
}

/// A step that a wall stands on.
#[derive(Debug)]
struct Pillar {
    step: Step,
    /// What the step does, after "failed to".
    what: String,
    /// How the wall stands without it.
    without: State,
}

impl Claim {
    fn new(kind: Kind) -> Self {
        Self { kind, state: State::Enforced, reasons: Vec::new(), pillars: Vec::new() }
    }

    /// It cannot be built.
    fn unavailable(kind: Kind, why: impl Into<String>) -> Self {
        Self::new(kind).lacks(State::Unavailable, why)
    }

    fn lacks(mut self, state: State, why: impl Into<String>) -> Self {
        self.state = self.state.max(state);
        self.reasons.push(why.into());
        self
    }

    /// It stands on `step`, which does `what`; without that, no better than `without`.
    fn on(mut self, step: Step, without: State, what: impl Into<String>) -> Self {
        self.pillars.push(Pillar { step, what: what.into(), without });
        self
    }

    /// How it stands.
    fn judge(mut self, outcomes: &Outcomes) -> Wall {
        if self.state != State::Unavailable {
            for Pillar { step, what, without } in std::mem::take(&mut self.pillars) {
                if let Some(errno) = outcomes.failure(step) {
                    self = self.lacks(without, format!("failed to {what}: {}", errno.desc()));
                }
            }
        }
        Wall { kind: self.kind.into(), state: self.state.into(), reason: self.reasons.join("; ") }
    }
}

/// The child's part of a plan.
#[derive(Debug)]
pub(crate) struct Builder {
    limited: Limited,
    identity: Option<Identity>,
    privileges: privileges::Plan,
    ruleset: Option<RulesetCreated>,
    filter: Option<Filter>,
    modes: Option<modes::Plan>,
    outcomes: Outcomes,
    report: OwnedFd,
}

/// The worker's part of a plan.
#[derive(Debug)]
pub(crate) struct Survey {
    claims: Vec<Claim>,
    user: Option<u32>,
    modes: Option<modes::Pending>,
    report: OwnedFd,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    /// How the walls stand.
    pub(crate) walls: Vec<Wall>,
    /// The user that the child could not become.
    pub(crate) not_become: Option<u32>,
    /// Whom those behind the walls wait for, if they do.
    pub(crate) keeper: Option<Keeper>,
}

/// Plans `walls`, which [`check`] has passed.
pub(crate) fn plan(walls: &Walls) -> io::Result<(Builder, Survey)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut claims = Vec::new();
    let ruleset = landlock::plan(walls, &mut claims);
    let filter = syscalls::plan(walls, &mut claims);
    let (child_s, worker_s) = modes::plan(walls, &mut claims)?.unzip();
    manager::weigh(walls, &mut claims);
    let privileges = privileges::plan(walls, &mut claims);
    let limited = limits::plan(walls, &mut claims);
    let identity = walls.user.as_ref().map(Identity::of);
    if walls.user.is_some() {
        // Without it nothing is started, and nothing is reported.
        claims.push(Claim::new(Kind::User));
    }
    claims.sort_by_key(|claim| claim.kind);
    let outcomes = Outcomes::none();
    let builder =
        Builder { limited, identity, privileges, ruleset, filter, modes: child_s, outcomes, report: theirs };
    let user = walls.user.as_ref().map(|user| user.uid);
    Ok((builder, Survey { claims, user, modes: worker_s, report: ours }))
}

impl Builder {
    /// Builds the walls around this process, for good. To be called in the child. Fails if it may not go on.
    pub(crate) fn build(&mut self) -> io::Result<()> {
        let become_user = self.steps();
        // A pipe that is empty takes so few bytes at once. Should it not, no wall is taken for standing.
        let _ = write(&self.report, &self.outcomes.to_bytes());
        become_user.map_err(io::Error::from)
    }

    fn steps(&mut self) -> rustix::io::Result<()> {
        let outcomes = &mut self.outcomes;
        outcomes.note(Step::Cgroup, self.limited.join());
        outcomes.note(Step::Limits, self.limited.limit());
        outcomes.note(Step::OomScore, self.limited.weigh());
        // It takes a capability that is gone once the user has changed.
        outcomes.note(Step::BoundingSet, self.privileges.shrink_bounding_set());
        if let Some(identity) = &self.identity {
            let outcome = identity.take_on();
            outcomes.note(Step::User, outcome);
            outcome?;
        }
        outcomes.note(Step::Capabilities, self.privileges.shrink());
        outcomes.note(Step::NoNewPrivileges, self.privileges.renounce());
        if let Some(ruleset) = self.ruleset.take() {
            outcomes.note(Step::Landlock, landlock::enter(ruleset));
        }
        if let Some(filter) = &self.filter {
            let traced_apart = outcomes.failure(Step::Landlock).is_none();
            outcomes.note(Step::Filter, filter.install(traced_apart));
        }
        if let Some(modes) = &mut self.modes {
            outcomes.note(Step::Modes, modes.install());
        }
        Ok(())
    }
}

impl Survey {
    /// What the child has built. To be called once it has executed the program, or failed to.
    pub(crate) fn take(self) -> Surveyed {
        let mut bytes = [0; STEPS * 4];
        let outcomes = match read(&self.report, &mut bytes) {
            Ok(length) if length == bytes.len() => Outcomes::from_bytes(&bytes),
            Ok(_) | Err(_) => Outcomes::none(),
        };
        let not_become = self.user.filter(|_| outcomes.failure(Step::User).is_some());
        let walls = self.claims.into_iter().map(|claim| claim.judge(&outcomes)).collect();
        Surveyed { walls, not_become, keeper: self.modes.and_then(modes::Pending::take) }
    }
}

#[cfg(test)]
mod tests {
    use supervisor_proto::worker::PortRange;

    use super::*;

    #[test]
    fn what_nobody_could_build_is_refused() {
        let ports = |first, last| Walls { bind: vec![PortRange { first, last }], ..Walls::default() };
        let score = |score| Walls { oom_score_adj: Some(score), ..Walls::default() };
        let user = |uid, gid, group| Walls {
            user: Some(User { uid, gid, groups: vec![group] }),
            ..Walls::default()
        };
        for fit in [ports(1, 1), ports(1, 65535), score(-1000), score(1000), user(0, 1, 2)] {
            assert!(check(&fit).is_ok(), "{fit:?}");
        }
        let unfit = [
            ports(0, 10),
            ports(2, 1),
            ports(1, 65536),
            score(-1001),
            score(1001),
            user(u32::MAX, 1, 1),
            user(1, u32::MAX, 1),
            user(1, 1, u32::MAX),
        ];
        for unfit in unfit {
            assert!(check(&unfit).is_err(), "{unfit:?}");
        }
    }

    #[test]
    fn a_step_that_nobody_heard_of_is_none_to_stand_on() {
        let claim = || Claim::new(Kind::Files).on(Step::Landlock, State::Unavailable, "enter the ruleset");
        let mut outcomes = Outcomes::none();
        let wall = claim().judge(&outcomes);
        assert_eq!(
            (wall.state(), &*wall.reason),
            (State::Unavailable, "failed to enter the ruleset: Operation canceled")
        );
        outcomes.note(Step::Landlock, Err(rustix::io::Errno::TOOBIG));
        let told = Outcomes::from_bytes(&outcomes.to_bytes());
        assert_eq!(told.failure(Step::Landlock), Some(Errno::E2BIG));
        outcomes.note(Step::Landlock, Ok(()));
        assert_eq!(claim().judge(&outcomes).state(), State::Enforced);
    }

    #[test]
    fn a_wall_is_no_better_than_its_worst_step() {
        let outcomes = Outcomes::none();
        let wall = Claim::new(Kind::Limits)
            .lacks(State::Partial, "one")
            .on(Step::Limits, State::Partial, "limit")
            .on(Step::OomScore, State::Unavailable, "weigh")
            .judge(&outcomes);
        assert_eq!(wall.state(), State::Unavailable);
        assert_eq!(
            wall.reason,
            "one; failed to limit: Operation canceled; failed to weigh: Operation canceled"
        );
    }
}
