//! Limits, the weight before the OOM killer, and the cgroup.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nix::errno::Errno as Named;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result, write};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use supervisor_proto::worker::wall::{Kind, State};
use supervisor_proto::worker::{Limits, Walls};

use super::{Claim, Step};

/// The file of a cgroup that takes its new members (cgroups(7)).
const MEMBERS: &str = "cgroup.procs";

/// What a process writes there to join by itself.
const MYSELF: &[u8] = b"0";

/// What the child has to do.
#[derive(Debug)]
pub(super) struct Limited {
    members: Option<File>,
    limits: Vec<(Resource, Rlimit)>,
    /// In the words of the file that takes it.
    oom_score_adj: Option<String>,
}

/// Plans what `walls` asks for of these.
pub(super) fn plan(walls: &Walls, claims: &mut Vec<Claim>) -> Limited {
    let limits = walls.limits.as_ref().map(limits).unwrap_or_default();
    let oom_score_adj = walls.oom_score_adj.map(|score| score.to_string());
    // With nothing else in it, a wall that fails is none.
    let without = match (limits.is_empty(), &oom_score_adj) {
        (false, Some(_)) => State::Partial,
        (true, _) | (_, None) => State::Unavailable,
    };
    if !limits.is_empty() || oom_score_adj.is_some() {
        let mut claim = Claim::new(Kind::Limits).on(Step::Limits, without, "set the limits");
        if let Some(score) = &oom_score_adj {
            claim = claim.on(Step::OomScore, without, format!("set oom_score_adj to {score}"));
        }
        claims.push(claim);
    }
    Limited { members: members(&walls.cgroup, claims), limits, oom_score_adj }
}

/// Soft and hard alike, and no higher than the worker's own hard limits: raising those is not the gateway's.
fn limits(asked: &Limits) -> Vec<(Resource, Rlimit)> {
    let Limits { files, processes, core_bytes } = *asked;
    let asked = [(Resource::Nofile, files), (Resource::Nproc, processes), (Resource::Core, core_bytes)];
    let limit = |(resource, asked): (Resource, Option<u64>)| {
        let asked = asked?;
        let limit = Some(getrlimit(resource).maximum.map_or(asked, |most| asked.min(most)));
        Some((resource, Rlimit { current: limit, maximum: limit }))
    };
    asked.into_iter().filter_map(limit).collect()
}

fn members(cgroup: &str, claims: &mut Vec<Claim>) -> Option<File> {
    if cgroup.is_empty() {
        return None;
    }
    let explain = |error: &io::Error| match error.raw_os_error() {
        Some(errno) => Named::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    };
    let path = Path::new(cgroup).join(MEMBERS);
    match OpenOptions::new().write(true).open(&path) {
        Ok(members) => {
            let join = format!("join `{cgroup}`");
            claims.push(Claim::new(Kind::Cgroup).on(Step::Cgroup, State::Unavailable, join));
            Some(members)
        }
        Err(error) => {
            let why = format!("failed to open `{}`: {}", path.display(), explain(&error));
            claims.push(Claim::unavailable(Kind::Cgroup, why));
            None
        }
    }
}

impl Limited {
    /// Joins the cgroup.
    pub(super) fn join(&self) -> Result<()> {
        self.members.as_ref().map_or(Ok(()), |members| write(members, MYSELF).map(drop))
    }

    /// Sets the limits, and tells of the first that could not be.
    pub(super) fn limit(&self) -> Result<()> {
        let outcomes = self.limits.iter().map(|(resource, limit)| setrlimit(*resource, *limit));
        outcomes.fold(Ok(()), Result::and)
    }

    /// Sets the weight before the OOM killer.
    pub(super) fn weigh(&self) -> Result<()> {
        let Some(score) = &self.oom_score_adj else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty())?;
        match write(&file, score.as_bytes())? {
            written if written == score.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}
