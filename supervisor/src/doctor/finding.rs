//! What a check finds, in the words that a person reads.

use std::path::{Path, PathBuf};

use supervisor_core::ids::Name;

use super::fix::Fix;
use crate::{
    problem::{Place, cut},
    typed::word,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Worth knowing.
    Note,
    /// It will hurt some day.
    Warning,
    /// It hurts now, or at the next start.
    Error,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mend {
    /// This is to be typed.
    Type(String),
    /// A sentence without its full stop, where no command does it.
    Do(String),
}

/// The longest sentence, in bytes: it may quote what an agent has written, which may be megabytes.
const MOST_SAID: usize = 1_000;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What kind of thing.
    pub(crate) id: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// Whom it concerns; nobody: the host.
    pub(crate) instances: Vec<Name>,
    /// A sentence without its full stop.
    pub(crate) what: String,
    /// The file it is in.
    pub(crate) file: Option<PathBuf>,
    /// Where in it.
    pub(crate) place: Option<Place>,
    /// A sentence without its full stop.
    pub(crate) why: &'static str,
    /// What to do about it.
    pub(crate) mend: Mend,
    /// What is safe to do at once.
    pub(crate) fixes: Vec<Fix>,
}

impl Finding {
    /// A finding about the host, until it is said otherwise.
    pub(super) fn new(
        id: &'static str,
        severity: Severity,
        what: impl Into<String>,
        why: &'static str,
        mend: Mend,
    ) -> Self {
        Self {
            id,
            severity,
            instances: Vec::new(),
            what: cut(&what.into(), MOST_SAID),
            file: None,
            place: None,
            why,
            mend: match mend {
                Mend::Type(command) => Mend::Type(command),
                Mend::Do(sentence) => Mend::Do(cut(&sentence, MOST_SAID)),
            },
            fixes: Vec::new(),
        }
    }

    /// It concerns `name`, too.
    pub(super) fn of(mut self, name: &Name) -> Self {
        if !self.instances.contains(name) {
            self.instances.push(name.clone());
        }
        self
    }

    /// It is in this file.
    pub(super) fn in_file(mut self, file: &Path, place: Option<Place>) -> Self {
        self.file = Some(file.to_owned());
        self.place = place;
        self
    }

    /// This mends it, and harms nobody.
    pub(super) fn fixed_by(mut self, fixes: Vec<Fix>) -> Self {
        self.fixes = fixes;
        self
    }
}

/// One thing that was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mended {
    /// The finding's id.
    pub(crate) id: &'static str,
    /// Whom it concerned.
    pub(crate) instances: Vec<Name>,
    /// What was done: a sentence without its full stop.
    pub(crate) what: String,
}

/// How many of something there are, in words: `1 file`, `3 files`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first few of `items`, and how many more there are.
pub(super) fn few(items: &[String]) -> String {
    const SHOWN: usize = 2;
    let (shown, rest) = items.split_at(items.len().min(SHOWN));
    match (shown, rest.len()) {
        ([one, two], 0) => format!("{one} and {two}"),
        (shown, 0) => shown.join(", "),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A command on some paths; on many, the one that does it for all of them.
pub(super) fn typed<'a>(command: &str, paths: impl IntoIterator<Item = &'a PathBuf>) -> Mend {
    const TYPED: usize = 3;
    let words: Vec<String> = paths.into_iter().map(word).collect();
    match words.len() <= TYPED {
        true => Mend::Type(format!("{command} {}", words.join(" "))),
        false => Mend::Type("openclawctl doctor --fix".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_things_are_told_by_their_first() {
        let of = |many: usize| few(&(1..=many).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!([of(1), of(2), of(3), of(9)], ["1", "1 and 2", "1, 2 and 1 more", "1, 2 and 7 more"]);
        assert_eq!(
            (count(1, "file", "files"), count(2, "file", "files")),
            ("1 file".into(), "2 files".into())
        );
    }
}
