//! How the wall of a control group stands: read from the group, and said with what stands in for what is missing.

use std::{collections::BTreeMap, fs};

use nix::unistd::geteuid;
use supervisor_core::ids::Name;
use supervisor_proto::worker::{
    Wall,
    wall::{Kind, State},
};

use super::{
    Groups,
    bounds::{self, Bound, Controller},
};
use crate::spec::{InstanceSpec, Span};

impl Groups {
    /// How it stands around a running instance, whose worker has reported these walls. None, if it has no group and
    /// its spec asks for nothing that takes one.
    pub(crate) fn standing(&self, name: &Name, spec: &InstanceSpec, reported: &[Wall]) -> Option<Wall> {
        let joined = reported.iter().find(|wall| wall.kind() == Kind::Cgroup);
        match (&self.0.ground, joined) {
            // As it was bound by the supervisor before, which had a ground.
            (Err(_), Some(joined)) => Some(joined.clone()),
            (Err(why), None) => {
                let without = without(spec, &asked(spec));
                (!without.is_empty()).then(|| wall(State::Unavailable, format!("{without}: {why}")))
            }
            // Its worker is from before there were walls, and all that is to be said is said of them.
            (Ok(_), None) if reported.is_empty() => None,
            (Ok(_), None) => {
                let why = "it was started before it could have a group; restart it";
                Some(wall(State::Unavailable, why.to_owned()))
            }
            (Ok(_), Some(joined)) if joined.state() != State::Enforced => Some(joined.clone()),
            (Ok(_), Some(_)) => Some(self.read(name, spec, reported)),
        }
    }

    /// The same of one that is in its group.
    fn read(&self, name: &Name, spec: &InstanceSpec, reported: &[Wall]) -> Wall {
        let Some((ground, group)) = self.of(name) else { return wall(State::Enforced, String::new()) };
        let holds = |bound: &Bound| {
            let text = fs::read_to_string(group.join(bound.file)).unwrap_or_default();
            text.trim() == bound.value
        };
        let missing =
            bounds::of(spec).into_iter().filter(|bound| !holds(bound)).filter_map(|bound| bound.promised);
        let mut gaps: BTreeMap<String, Vec<Controller>> = BTreeMap::new();
        for controller in missing {
            gaps.entry(ground.lacks(controller)).or_default().push(controller);
        }
        let told = |(why, missing): (String, Vec<Controller>)| format!("{}: {why}", without(spec, &missing));
        let mut reasons: Vec<String> = gaps.into_iter().map(told).collect();
        let stands =
            |kind: Kind| reported.iter().any(|wall| wall.kind() == kind && wall.state() == State::Enforced);
        if !stands(Kind::Files) && !stands(Kind::User) {
            reasons.push("it can leave its group, as its files are not walled".to_owned());
        }
        match reasons.is_empty() {
            true => wall(State::Enforced, String::new()),
            false => wall(State::Partial, reasons.join("; ")),
        }
    }
}

fn wall(state: State, reason: String) -> Wall {
    Wall { kind: Kind::Cgroup.into(), state: state.into(), reason }
}

/// The controllers that a spec asks for by name.
fn asked(spec: &InstanceSpec) -> Vec<Controller> {
    let all = [
        (spec.memory.hard_limit.is_some(), Controller::Memory),
        (spec.limits.cpu_permille.is_some(), Controller::Cpu),
        // Others' are counted by user.
        (spec.limits.processes.is_some() && is_roots(spec), Controller::Processes),
    ];
    all.into_iter().filter_map(|(asked, controller)| asked.then_some(controller)).collect()
}

/// Whether its processes are root's, whom no limit counts.
fn is_roots(spec: &InstanceSpec) -> bool {
    spec.user.is_none() && geteuid().is_root()
}

/// How things are without these controllers, as a clause.
fn without(spec: &InstanceSpec, controllers: &[Controller]) -> String {
    let clauses = controllers.iter().map(|controller| match controller {
        Controller::Memory => {
            format!("`memory.hard_limit` is only looked at every {}", Span(spec.memory.interval()))
        }
        Controller::Cpu => "`limits.cpu_permille` is not kept".to_owned(),
        Controller::Processes if is_roots(spec) => "its processes are not limited".to_owned(),
        Controller::Processes => "its processes are limited with its user's others".to_owned(),
    });
    clauses.collect::<Vec<_>>().join(", ")
}
