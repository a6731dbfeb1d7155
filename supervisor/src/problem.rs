//! What is wrong with a file that a person wrote, where, and how to mend it.
//!
//! Everything that is read from people (fleet files, settings, OpenClaw's configuration) is refused in this
//! one form, so that it reads the same wherever it comes out: in a terminal, in a gRPC answer, in an event.

use std::fmt;

use crate::openclaw::config::diff::without_secrets;

/// The longest part of a source line that is quoted, in characters. A fleet file may be one long line.
const MAX_QUOTED: usize = 160;

/// The longest field, complaint and mend, in bytes: each may quote what an agent has written, which may be megabytes, and
/// goes into events, answers and alerts.
const MAX_SAID: usize = 500;

/// A place in a text. Both numbers begin at 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl Place {
    /// The beginning of the text.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place of the byte at `offset`, or the end of the text if it is shorter.
    #[must_use]
    pub fn at(text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
        Self { line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the person called it.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// That line of the file, without secrets, and shortened if it is very long.
    pub source_line: String,
    /// The field, e.g. `instances.rescue.port`; empty for the file as a whole.
    pub path: String,
    /// What is wrong: a sentence without its full stop.
    pub message: String,
    /// What to do about it: a sentence without its full stop.
    pub mend: String,
}

impl Problem {
    /// A problem at `place` of `text`, which is the content of `file`.
    #[must_use]
    pub fn new(file: &str, text: &str, place: Place, path: &str, message: &str, mend: &str) -> Self {
        let line = without_secrets(text.lines().nth(place.line - 1).unwrap_or_default());
        let source_line: String = line.chars().take(MAX_QUOTED).collect();
        Self {
            file: file.to_owned(),
            place,
            source_line,
            path: cut(path, MAX_SAID),
            message: cut(message, MAX_SAID),
            mend: cut(mend, MAX_SAID),
        }
    }

    /// File, place, field and what is wrong, in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { file, place, path, message, .. } = self;
        match path.is_empty() {
            true => format!("{file}:{place}: {message}"),
            false => format!("{file}:{place}: `{path}`: {message}"),
        }
    }
}

impl fmt::Display for Problem {
    /// The sentence, the line with a mark under the place, and the mend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sentence())?;
        let number = self.place.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, " {number} | {}", self.source_line)?;
        let before: String = self.source_line.chars().take(self.place.column - 1).collect();
        // What is withheld has another length.
        let is_there = self.place.column <= self.source_line.chars().count() + 1;
        if is_there && !before.contains("[withheld") {
            writeln!(f, " {margin} | {}^", " ".repeat(self.place.column - 1))?;
        }
        write!(f, " {margin} = {}", self.mend)
    }
}

/// As much of it as `most` bytes hold, with a sign that there was more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The one of `known` that `word` is probably meant to be.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "ab\nä: x\n";
        assert_eq!(Place::at(text, 0), Place::START);
        assert_eq!(Place::at(text, 3), Place { line: 2, column: 1 });
        assert_eq!(Place::at(text, 7), Place { line: 2, column: 4 });
        assert_eq!(Place::at(text, 99), Place { line: 3, column: 1 });
    }

    #[test]
    fn a_problem_shows_the_line_and_marks_the_place() {
        let place = Place { line: 2, column: 9 };
        let problem =
            Problem::new("fleet.yaml", "version: 1\n  port: 70000\n", place, "port", "too large", "say less");
        assert_eq!(
            problem.to_string(),
            "fleet.yaml:2:9: `port`: too large\n 2 |   port: 70000\n   |         ^\n   = say less"
        );
    }

    #[test]
    fn what_a_file_makes_it_say_is_of_a_bounded_length() {
        let long = "ä".repeat(3_000_000);
        let problem = Problem::new("openclaw.json", &long, Place::START, &long, &long, &long);
        let said = problem.to_string();
        assert!(said.len() < 4_000 && said.contains("ä…`: ä"), "{}", said.len());
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        assert_eq!(nearest("prot", ["port", "pool"]), Some("port"));
        assert_eq!(nearest("restrat", ["restart", "rescue"]), Some("restart"));
        assert_eq!(nearest("colour", ["port", "pool"]), None);
    }
}
