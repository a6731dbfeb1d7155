//! A configuration as text, without its secrets.
//!
//! The texts that matter most here do not parse: they are why somebody looks. So this reads words, not a tree:
//! quoted or bare, in comments or not, complete or broken off. A value is withheld if its key names a secret
//! (OpenClaw's own list, `isSensitiveConfigPath`, and ours for variables), if it looks like one, or if it is
//! known to be one. In doubt it is withheld; what is lost is a word in a diff.

use std::{collections::HashMap, ops::Range};

use crate::openclaw::secret::{
    self, SHORTEST_KNOWN, is_bot_token, is_sensitive, is_sensitive_argument, is_sensitive_option,
    looks_secret,
};

/// Numbers the secrets, the same for the same.
pub(super) struct Withheld<'a> {
    known: &'a [&'a str],
    numbers: HashMap<String, usize>,
}

/// How far a bare word is looked through for what quotes would have held together, in bytes.
const LOOKED_AHEAD: usize = 512;

/// Objects in which every value is taken for a secret.
const CONTAINERS: [&str; 2] = ["headers", "cookies"];

/// Objects that are named like secrets and hold settings, with the secrets under keys of their own.
const SECTIONS: [&str; 3] = ["auth", "secrets", "credentials"];

/// Keys whose values name something, in a list of names and values.
const NAMES: [&str; 6] = ["name", "key", "header", "id", "variable", "field"];

/// What brackets are around the present place.
#[derive(Clone, Copy)]
struct Place {
    around: Around,
    /// Whether what is named in it is a secret, once it is known what that is.
    named: Option<bool>,
}

/// Which values are withheld there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// Keys decide.
    Plain,
    /// All values are withheld.
    Secret,
}

/// What a text is made of, as far as it matters here.
enum Token {
    /// Quoted; the range is what is inside the quotes.
    Quoted(Range<usize>),
    /// Not quoted.
    Bare(Range<usize>),
    Open,
    Close,
    /// `:` or `=`.
    Assign,
    Comma,
    Newline,
    /// A comment begins, which ends with the line, or not.
    Comment(Ending),
    /// One that goes beyond lines ends.
    CommentEnd,
}

/// What ends a comment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Line,
    Mark,
}

impl<'a> Withheld<'a> {
    pub(super) fn new(known: &'a [&'a str]) -> Self {
        Self { known, numbers: HashMap::new() }
    }

    /// The text without its secrets.
    pub(super) fn shown(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for secret in secrets(text, self.known) {
            out.push_str(&text[copied..secret.start]);
            out.push_str(&self.name(&text[secret.clone()]));
            copied = secret.end;
        }
        out.push_str(&text[copied..]);
        // Also across words, as in a URL.
        for known in self.known.iter().filter(|known| known.len() >= SHORTEST_KNOWN) {
            if out.contains(known) {
                out = out.replace(known, &self.name(known));
            }
        }
        out
    }

    fn name(&mut self, secret: &str) -> String {
        let next = self.numbers.len() + 1;
        let number = self.numbers.entry(secret.to_owned()).or_insert(next);
        format!("[withheld {number}]")
    }
}

/// Where the secrets are, in order.
fn secrets(text: &str, known: &[&str]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut places = vec![Place { around: Around::Plain, named: None }];
    // The last word, and whether it was assigned something.
    let mut key = String::new();
    let mut assigned = false;
    // The last word was an option whose value comes next, in a list of arguments.
    let mut awaited = "";
    // A comment stands between a key and its value.
    let mut between = None;
    for token in Tokens::of(text) {
        let inside = places.last().map_or(Around::Plain, |place| place.around);
        match token {
            Token::Open => {
                let is_secret = inside == Around::Secret || opens_secrets(&key);
                let around = if is_secret { Around::Secret } else { Around::Plain };
                places.push(Place { around, named: None });
                (key, assigned) = (String::new(), false);
            }
            Token::Close => {
                places.pop();
                (key, assigned) = (String::new(), false);
            }
            Token::Comma => (key, assigned) = (String::new(), false),
            Token::Comment(ending) => between = assigned.then_some(ending),
            Token::CommentEnd => between = None,
            Token::Newline => {
                between = between.filter(|ending| *ending == Ending::Mark);
                if !assigned {
                    key.clear();
                }
            }
            Token::Assign => assigned = true,
            Token::Quoted(range) | Token::Bare(range) => {
                let word = &text[range.clone()];
                let is_key = followed_by_assignment(text, range.end);
                let named =
                    is_sensitive(&key) && (assigned || !is_key) && !is_plain_word(text, &range, assigned);
                let option =
                    std::mem::replace(&mut awaited, if is_sensitive_option(word) { word } else { "" });
                let is_value = !option.is_empty() && is_sensitive_argument(option, word);
                let is_paired = assigned && !is_key && is_value_of_secret(&mut places, &key, word);
                let in_container = inside == Around::Secret && !is_key && !is_constant(word);
                if !is_key && !is_constant(word) && (named || in_container || is_value || is_paired)
                    || looks_secret(word)
                    || known.contains(&word)
                {
                    found.push(range);
                } else {
                    let parts = secret::parts(word).into_iter();
                    found.extend(parts.map(|part| range.start + part.start..range.start + part.end));
                }
                if between.is_some() {
                    continue;
                }
                if is_key || !assigned {
                    word.clone_into(&mut key);
                }
                assigned = false;
            }
        }
    }
    found
}

/// Whether this is what belongs to the name of a secret, as in `{ "name": "API_KEY", "value": "…" }`. Where the name
/// comes later it may be one.
fn is_value_of_secret(places: &mut [Place], key: &str, word: &str) -> bool {
    let Some(place) = places.last_mut() else { return false };
    if NAMES.contains(&key) {
        place.named = Some(is_sensitive(word));
    }
    key == "value" && place.named != Some(false)
}

/// A bare word that follows a sensitive word without an assignment is part of a sentence.
fn is_plain_word(text: &str, range: &Range<usize>, assigned: bool) -> bool {
    !assigned && !text[..range.start].ends_with(['"', '\''])
}

fn is_constant(word: &str) -> bool {
    matches!(word, "" | "true" | "false" | "null")
}

/// Whether the next that follows, past a closing quote and spaces, assigns.
fn followed_by_assignment(text: &str, end: usize) -> bool {
    let rest = text[end..].strip_prefix(['"', '\'']).unwrap_or(&text[end..]);
    rest.trim_start().starts_with(':')
}

/// Whether the values of an object or list with this key are secrets, whatever their own keys.
fn opens_secrets(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    !SECTIONS.contains(&lower.as_str()) && (CONTAINERS.contains(&lower.as_str()) || is_sensitive(key))
}

/// The text, cut into tokens. Never fails: what is not known is skipped.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The end of what began with `quote` at `begin`: the same quote, or, if it is missing, the line's end.
    fn end_of_quoted(&self, begin: usize, quote: u8) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = begin;
        while let Some(byte) = bytes.get(at) {
            match *byte {
                b'\\' => at += 2,
                b'\n' => return at,
                byte if byte == quote => return at,
                _ => at += 1,
            }
        }
        // A backslash may have been the last.
        bytes.len()
    }

    fn end_of_bare(&self, begin: usize) -> usize {
        let rest = &self.text[begin..];
        let ends = |c: char| c.is_whitespace() || "{}[],:=\"'".contains(c);
        let end = rest.find(ends).unwrap_or(rest.len());
        // A colon is inside only of a token or an address that lost its quotes.
        let is_number = rest[..end].bytes().all(|byte| byte.is_ascii_digit());
        let goes_on = rest[end..].starts_with("://") || is_number && rest[end..].starts_with(':');
        if !goes_on {
            return begin + end;
        }
        let near = &rest[..rest.floor_char_boundary(LOOKED_AHEAD)];
        let longer = near.find(|c: char| !":=".contains(c) && ends(c)).unwrap_or(near.len());
        let whole = !is_number || is_bot_token(&near[..longer]);
        begin + if whole { longer.max(end) } else { end }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let c = self.text[self.at..].chars().next()?;
            let begin = self.at;
            self.at += c.len_utf8();
            return Some(match c {
                '"' | '\'' => {
                    let end = self.end_of_quoted(self.at, c as u8);
                    // Between the two bytes of an escape there may be no boundary.
                    let end = self.text.floor_char_boundary(end);
                    self.at = if self.text[end..].starts_with(c) { end + 1 } else { end };
                    Token::Quoted(begin + 1..end)
                }
                '{' | '[' => Token::Open,
                '}' | ']' => Token::Close,
                ':' | '=' => Token::Assign,
                ',' => Token::Comma,
                '\n' => Token::Newline,
                c if c.is_whitespace() => continue,
                // What is in comments is read like the rest.
                '/' | '*' => match (c, self.text[self.at..].chars().next()) {
                    ('/', Some('/')) => Token::Comment(Ending::Line),
                    ('/', Some('*')) => Token::Comment(Ending::Mark),
                    ('*', Some('/')) => Token::CommentEnd,
                    _ => continue,
                },
                _ => {
                    self.at = self.end_of_bare(begin);
                    Token::Bare(begin..self.at)
                }
            });
        }
    }
}
