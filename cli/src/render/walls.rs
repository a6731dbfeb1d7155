//! How the walls around instances stand, in words.

use std::collections::BTreeMap;

use supervisor_proto::v1::{
    Instance, WallPolicy, WallStatus,
    wall_status::{Kind, State},
};

use super::style::{self, clause, paint};
use crate::view;

/// What a wall is around.
pub(crate) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Files => "files",
        Kind::Ports => "ports",
        Kind::Apart => "apart",
        Kind::Privileges => "privileges",
        Kind::Syscalls => "system calls",
        Kind::Limits => "limits",
        Kind::User => "user",
        Kind::Cgroup => "control group",
        Kind::Unspecified => "others",
    }
}

/// Those of an instance, a line for each: `files enforced`, `limits partial: …`, `apart left out, as its spec says`.
pub(super) fn lines(instance: &Instance) -> Vec<String> {
    let walls = &view::status(instance).walls;
    if walls.is_empty() {
        return Vec::new();
    }
    let left = instance.spec.as_ref().and_then(|spec| spec.walls.as_ref()).map(left_out).unwrap_or_default();
    let left = left.into_iter().map(|wall| format!("{wall} left out, as its spec says"));
    walls.iter().map(standing).chain(left).collect()
}

fn left_out(asked: &WallPolicy) -> Vec<&'static str> {
    let all = [
        (asked.files, Kind::Files),
        (asked.ports, Kind::Ports),
        (asked.apart, Kind::Apart),
        (asked.privileges, Kind::Privileges),
    ];
    all.into_iter().filter(|(asked, _)| *asked == Some(false)).map(|(_, kind)| word(kind)).collect()
}

fn standing(wall: &WallStatus) -> String {
    let how = match wall.state() {
        State::Enforced => "enforced",
        State::Partial => "partial",
        State::Unavailable | State::Unspecified => "unavailable",
    };
    let reason = clause(&wall.reason);
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("{} {how}{colon}{reason}", word(wall.kind()))
}

/// Of many instances the walls that do not stand as they were asked for, each once, with whose they are.
pub(crate) fn gaps(instances: &[Instance]) -> Vec<String> {
    let mut gaps: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for instance in instances {
        for wall in view::status(instance).walls.iter().filter(|wall| wall.state() != State::Enforced) {
            gaps.entry(standing(wall)).or_default().push(&instance.name);
        }
    }
    let label = paint(style::FAINT, "walls:");
    let whose = |names: Vec<&str>| match names.len() {
        many if many == instances.len() && many > 1 => "all instances".to_owned(),
        0..=3 => style::printable(&names.join(", ")),
        many => format!("{many} instances"),
    };
    gaps.into_iter().map(|(gap, names)| format!("{label} {}: {gap}", whose(names))).collect()
}

#[cfg(test)]
mod tests {
    use supervisor_proto::v1::{InstanceSpec, InstanceStatus};

    use super::*;

    fn instance(name: &str, walls: &[(Kind, State, &str)], asked: WallPolicy) -> Instance {
        let wall = |(kind, state, reason): &(Kind, State, &str)| WallStatus {
            kind: (*kind).into(),
            state: (*state).into(),
            reason: (*reason).into(),
        };
        let walls = walls.iter().map(wall).collect();
        Instance {
            name: name.into(),
            spec: Some(InstanceSpec { walls: Some(asked), ..InstanceSpec::default() }),
            status: Some(InstanceStatus { walls, ..InstanceStatus::default() }),
            ..Instance::default()
        }
    }

    #[test]
    fn the_walls_of_one_are_told_by_how_they_stand() {
        let apart = WallPolicy { apart: Some(false), ..WallPolicy::default() };
        let main = instance(
            "main",
            &[
                (Kind::Files, State::Enforced, ""),
                (Kind::Syscalls, State::Enforced, ""),
                (Kind::Limits, State::Partial, "at most 1,024 files"),
                (Kind::Ports, State::Unavailable, "no Landlock"),
            ],
            apart,
        );
        assert_eq!(
            lines(&main),
            [
                "files enforced",
                "system calls enforced",
                "limits partial: at most 1,024 files",
                "ports unavailable: no Landlock",
                "apart left out, as its spec says",
            ]
        );
        assert!(lines(&instance("idle", &[], WallPolicy::default())).is_empty());
    }

    #[test]
    fn of_many_only_what_is_missing_is_told_and_each_once() {
        let missing = [(Kind::Ports, State::Unavailable, "no Landlock"), (Kind::Files, State::Enforced, "")];
        let whole = [(Kind::Ports, State::Enforced, "")];
        let of = |name: &str, walls: &[_]| instance(name, walls, WallPolicy::default());
        let told = |instances: &[Instance]| gaps(instances).join("\n");
        let some = [of("a", &missing), of("b", &missing), of("c", &whole)];
        assert!(told(&some).ends_with("a, b: ports unavailable: no Landlock"), "{}", told(&some));
        assert!(told(&some[..2]).contains("all instances: ports"));
        assert_eq!(told(&some[2..]), "");
    }
}
