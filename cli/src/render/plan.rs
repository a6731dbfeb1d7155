//! The plan of an apply, as a diff.

use std::collections::BTreeMap;

use anstyle::Style;
use supervisor_proto::v1::{
    FleetChange,
    fleet_change::{Field, Kind},
};

use super::style::{self, paint, printable};

/// The changes one by one, then their sum.
pub(crate) fn text(changes: &[FleetChange]) -> String {
    let mut out = String::new();
    for change in changes {
        if let Some((sign, look, remark)) = appearance(change) {
            one(change, sign, look, remark, &mut out);
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&sum(changes));
    out.push('\n');
    out
}

/// A change's sign, its style and what is to be said of it; `None` if it is not shown.
fn appearance(change: &FleetChange) -> Option<(char, Style, &'static str)> {
    match change.kind() {
        Kind::Unspecified | Kind::Unchanged => None,
        Kind::Create => Some(('+', style::GOOD, "")),
        Kind::Update if change.needs_restart => Some(('~', style::WARNING, "  takes effect with a restart")),
        Kind::Update | Kind::Pool => Some(('~', style::WARNING, "")),
        Kind::Delete => Some(('-', style::BAD, "  its data is kept")),
        Kind::NotInFile => Some((' ', style::FAINT, "  not in the file, left alone; --prune removes it")),
    }
}

fn one(change: &FleetChange, sign: char, look: Style, remark: &str, out: &mut String) {
    let name = if change.kind() == Kind::Pool { "pool" } else { &change.instance };
    let title = paint(look, &format!("{sign} {}", printable(name)));
    out.push_str(&format!("{title}{}\n", paint(style::FAINT, remark)));
    for field in &change.fields {
        out.push_str(&format!("    {}\n", difference(field)));
    }
}

fn difference(field: &Field) -> String {
    let path = printable(&field.path);
    let (old, new) = (value(&field.old), value(&field.new));
    match (old.is_empty(), new.is_empty()) {
        (true, _) => format!("{path}:{}", paint(style::GOOD, &new)),
        (false, true) => format!("{path}:{} (unset)", paint(style::BAD, &old)),
        (false, false) => format!("{path}:{} ->{}", paint(style::BAD, &old), paint(style::GOOD, &new)),
    }
}

/// A value behind a blank, or on lines of its own below its path.
fn value(yaml: &str) -> String {
    let lines: Vec<String> = yaml.trim_end().lines().map(printable).collect();
    match lines.as_slice() {
        [] => String::new(),
        [only] => format!(" {only}"),
        many => many.iter().map(|line| format!("\n      {line}")).collect(),
    }
}

/// E.g. "1 to create, 1 to change, 2 unchanged".
fn sum(changes: &[FleetChange]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes {
        *counts.entry(word(change.kind())).or_default() += 1;
    }
    let order = ["to create", "to change", "to remove", "unchanged", "not in the file"];
    let parts: Vec<String> =
        order.iter().filter_map(|word| counts.get(word).map(|count| format!("{count} {word}"))).collect();
    let acts = changes.iter().any(|change| appearance(change).is_some() && change.kind() != Kind::NotInFile);
    match (acts, parts.is_empty()) {
        (_, true) => "nothing to do".to_owned(),
        (false, false) => format!("nothing to do: {}", parts.join(", ")),
        (true, false) => parts.join(", "),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Create => "to create",
        Kind::Update | Kind::Pool => "to change",
        Kind::Delete => "to remove",
        Kind::Unchanged | Kind::Unspecified => "unchanged",
        Kind::NotInFile => "not in the file",
    }
}
