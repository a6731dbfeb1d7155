//! Two configurations compared, for people and for agents that may not see their secrets.
//!
//! Secrets are withheld on both sides before anything is compared, each as `[withheld 1]`, `[withheld 2]` and so on:
//! equal ones have equal numbers, so that a changed token shows, and nothing of it does.

mod withhold;

use std::{fmt::Write, time::Duration};

use similar::{ChangeTag, TextDiff};

use self::withhold::Withheld;

/// Lines around each change.
const CONTEXT: usize = 3;

/// The longest answer, in bytes. A person reads less, and an agent pays for it.
const MAX_DIFF: usize = 64 << 10;

/// The longest line, in bytes.
const MAX_LINE: usize = 1024;

/// Comparing configurations of some kilobytes takes microseconds; hostile ones get a coarser answer in time.
const PATIENCE: Duration = Duration::from_millis(500);

/// One of two configurations.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What it is called, e.g. `snapshot 5f1d08a2c9e3`.
    pub label: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// A line of a file that a person wrote, for an answer that quotes it.
#[must_use]
pub fn without_secrets(line: &str) -> String {
    Withheld::new(&[]).shown(line)
}

/// The unified diff of two configurations; empty if there is none. `known` secrets are withheld wherever they
/// stand.
#[must_use]
pub fn diff(old: &Side<'_>, new: &Side<'_>, known: &[&str]) -> String {
    let mut withheld = Withheld::new(known);
    let mut shown = |side: &Side<'_>| withheld.shown(&String::from_utf8_lossy(side.content));
    let (before, after) = (shown(old), shown(new));
    if before == after && old.content != new.content {
        return format!("--- {}\n+++ {}\nOnly what cannot be shown differs.\n", old.label, new.label);
    }
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(&before, &after);
    let mut unified = diff.unified_diff();
    let mut out = String::new();
    for hunk in unified.context_radius(CONTEXT).iter_hunks() {
        if out.is_empty() {
            let _ = writeln!(out, "--- {}\n+++ {}", old.label, new.label);
        }
        let _ = writeln!(out, "{}", hunk.header());
        for change in hunk.iter_changes() {
            if out.len() + MAX_LINE > MAX_DIFF {
                out.push_str("[the rest is left out: it is too long]\n");
                return out;
            }
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            let line = change.value().trim_end_matches(['\n', '\r']);
            let _ = match line.len() > MAX_LINE {
                true => writeln!(out, "{sign}{}…", &line[..line.floor_char_boundary(MAX_LINE)]),
                false => writeln!(out, "{sign}{line}"),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests;
