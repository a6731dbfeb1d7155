//! How the walls around the instances stand, as their workers report it. Core does not know of them: a wall that does
//! not stand is shown to operators, and changes nothing about when a gateway is run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use supervisor_core::ids::{Incarnation, Name};
use supervisor_proto::worker::{
    Wall,
    wall::{Kind, State},
};

use crate::spec::InstanceSpec;

/// Why nothing is reported of what was asked for.
const OLDER: &str = "its worker is older than the supervisor, and knows no walls; it is replaced when the instance is \
                     stopped and started";

/// The reports of all running instances. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standings(Arc<Mutex<Reports>>);

/// Around which life of each the walls stand how.
type Reports = HashMap<Name, (Incarnation, Arc<[Wall]>)>;

impl Standings {
    /// Takes down how the walls stand around a life that was asked for with `spec`. Its worker has joined it to its
    /// group; how that one stands is known from elsewhere.
    pub(crate) fn note(
        &self,
        name: &Name,
        life: Incarnation,
        spec: &InstanceSpec,
        reported: Vec<Wall>,
        group: Option<Wall>,
    ) {
        let mut walls = if reported.is_empty() { unknown(spec) } else { reported };
        walls.retain(|wall| wall.kind() != Kind::Cgroup);
        walls.extend(group);
        self.all().insert(name.clone(), (life, walls.into()));
    }

    /// How they stand around this life; nothing, if that is not known.
    pub(crate) fn of(&self, name: &Name, life: Incarnation) -> Arc<[Wall]> {
        let all = self.all();
        all.get(name).filter(|(of, _)| *of == life).map(|(_, walls)| Arc::clone(walls)).unwrap_or_default()
    }

    /// It is deleted.
    pub(crate) fn forget(&self, name: &Name) {
        self.all().remove(name);
    }

    fn all(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a worker that knows no walls has not built.
fn unknown(spec: &InstanceSpec) -> Vec<Wall> {
    let wall =
        |kind: Kind| Wall { kind: kind.into(), state: State::Unavailable.into(), reason: OLDER.to_owned() };
    asked(spec).into_iter().map(wall).collect()
}

/// The walls that a spec asks for.
fn asked(spec: &InstanceSpec) -> Vec<Kind> {
    let walls = &spec.walls;
    let all = [
        (walls.files(), Kind::Files),
        (walls.ports(), Kind::Ports),
        (walls.apart(), Kind::Apart),
        (walls.privileges(), Kind::Privileges),
        (walls.privileges(), Kind::Syscalls),
        (true, Kind::Limits),
        (spec.user.is_some(), Kind::User),
    ];
    all.into_iter().filter_map(|(asked, kind)| asked.then_some(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Walls;

    #[test]
    fn what_an_older_worker_does_not_report_is_told_as_not_there() {
        let (standings, name) = (Standings::default(), Name::new("main").unwrap());
        let spec = InstanceSpec {
            walls: Walls { files: Some(false), ports: Some(false), ..Walls::default() },
            ..InstanceSpec::default()
        };
        standings.note(&name, Incarnation(3), &spec, Vec::new(), None);
        let walls = standings.of(&name, Incarnation(3));
        let kinds: Vec<Kind> = walls.iter().map(Wall::kind).collect();
        assert_eq!(kinds, [Kind::Apart, Kind::Privileges, Kind::Syscalls, Kind::Limits]);
        assert!(walls.iter().all(|wall| wall.state() == State::Unavailable && wall.reason.contains("older")));
        assert!(standings.of(&name, Incarnation(4)).is_empty(), "another life may have other walls");
        standings.forget(&name);
        assert!(standings.of(&name, Incarnation(3)).is_empty());
    }

    #[test]
    fn what_a_worker_reports_is_kept_as_it_says_it() {
        let (standings, name) = (Standings::default(), Name::new("main").unwrap());
        let wall = Wall { kind: Kind::Files.into(), state: State::Enforced.into(), reason: String::new() };
        let group =
            |state: State| Wall { kind: Kind::Cgroup.into(), state: state.into(), reason: String::new() };
        let reported = vec![wall.clone(), group(State::Enforced)];
        let partial = group(State::Partial);
        standings.note(&name, Incarnation(1), &InstanceSpec::default(), reported, Some(partial.clone()));
        assert_eq!(
            *standings.of(&name, Incarnation(1)),
            [wall, partial],
            "but for the group, which it only joins"
        );
    }
}
