//! The pages of `openclawctl explain`: what each word that this system uses means, why it comes up, what to type.
//!
//! They stand in the text files beside this, a page after another:
//!
//! ```text
//! = instance.exited
//! What it means.
//! why: Why it happens.
//! $ openclawctl logs NAME  # what that shows
//! ```
//!
//! Tests hold the words against the contract and the sources, and the commands against the tree of commands.

use clap_complete::CompletionCandidate;
use supervisor_proto::v1::{Reason, wall_status};

use crate::render::walls;

/// What kind of word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Phase,
    Event,
    Refusal,
    Finding,
    Wall,
}

/// The kinds, in the order in which they are listed, and their pages.
const TEXTS: [(Kind, &str); 5] = [
    (Kind::Phase, include_str!("explain/phases.txt")),
    (Kind::Event, include_str!("explain/events.txt")),
    (Kind::Refusal, include_str!("explain/reasons.txt")),
    (Kind::Finding, include_str!("explain/findings.txt")),
    (Kind::Wall, include_str!("explain/walls.txt")),
];

/// Words with more differences than this are not meant; with less of the whole than this they may be.
const NEAR: f64 = 0.75;
/// Words that are suggested at most.
const SUGGESTED: usize = 3;

impl Kind {
    /// E.g. "refusal".
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Event => "event",
            Self::Refusal => "refusal",
            Self::Finding => "finding",
            Self::Wall => "wall",
        }
    }

    /// The heading of their list.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Phase => "Phases of an instance",
            Self::Event => "Events, as `events -o wide` names them",
            Self::Refusal => "Refusals",
            Self::Finding => "Findings of the doctor",
            Self::Wall => "Walls around an instance",
        }
    }
}

/// One word and all that is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) kind: Kind,
    pub(crate) word: &'static str,
    /// What it means.
    pub(crate) what: &'static str,
    /// Why it comes up.
    pub(crate) why: &'static str,
    /// What to type, and what that is for.
    pub(crate) commands: Vec<(&'static str, &'static str)>,
}

/// All pages, in the order of their kinds.
pub(crate) fn pages() -> Vec<Page> {
    let page = |kind, text: &'static str| {
        let mut lines = text.lines();
        let mut page =
            Page { kind, word: lines.next().unwrap_or_default(), what: "", why: "", commands: Vec::new() };
        for line in lines {
            if let Some(why) = line.strip_prefix("why: ") {
                page.why = why;
            } else if let Some(command) = line.strip_prefix("$ ") {
                page.commands.push(command.split_once("  # ").unwrap_or((command, "")));
            } else if !line.is_empty() {
                page.what = line;
            }
        }
        page
    };
    let of = |(kind, text): (Kind, &'static str)| {
        let text = text.strip_prefix("= ").unwrap_or(text);
        text.split("\n= ").map(move |text| page(kind, text)).collect::<Vec<_>>()
    };
    TEXTS.into_iter().flat_map(of).collect()
}

/// The page of a word, however it is written: `UNKNOWN_INSTANCE`, `unknown-instance`, `REASON_UNKNOWN_INSTANCE`.
pub(crate) fn page(word: &str) -> Option<Page> {
    let wanted = plain(word);
    pages().into_iter().find(|page| plain(page.word) == wanted)
}

/// The words that are nearest to one that is unknown.
pub(crate) fn nearest(word: &str) -> Vec<&'static str> {
    let wanted = plain(word);
    let likeness = |page: &Page| {
        let known = plain(page.word);
        // The part behind the point is what people remember.
        let part = known.split_once('.').map_or(known.as_str(), |(_, part)| part);
        let whole = strsim::jaro_winkler(&wanted, &known).max(strsim::jaro_winkler(&wanted, part));
        if known.contains(&wanted) && wanted.len() >= 3 { whole.max(NEAR) } else { whole }
    };
    let mut near: Vec<(f64, &'static str)> = pages()
        .iter()
        .map(|page| (likeness(page), page.word))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(SUGGESTED).map(|(_, word)| word).collect()
}

/// A word as it is compared.
fn plain(word: &str) -> String {
    let word = word.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    let bare = ["reason_", "phase_", "kind_"].into_iter().find_map(|prefix| word.strip_prefix(prefix));
    let bare = bare.unwrap_or(&word);
    // What a wall is called elsewhere.
    let wall = wall_status::Kind::from_str_name(&format!("KIND_{}", bare.to_ascii_uppercase()));
    let called = |kind: &wall_status::Kind| walls::word(*kind).replace(' ', "_") == bare;
    match wall.or_else(|| WALLS.into_iter().find(called)) {
        Some(kind) => kind.as_str_name().trim_start_matches("KIND_").to_ascii_lowercase(),
        None => bare.to_owned(),
    }
}

const WALLS: [wall_status::Kind; 2] = [wall_status::Kind::Syscalls, wall_status::Kind::Cgroup];

/// The words that begin with `current`, for a shell.
pub(crate) fn candidates(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let begun = |word: &str| word.to_ascii_lowercase().starts_with(&current.to_ascii_lowercase());
    let candidate = |page: Page| CompletionCandidate::new(page.word).help(Some(page.what.into()));
    pages().into_iter().filter(|page| begun(page.word)).map(candidate).collect()
}

/// The word of a refusal of which more is to be said than its message and hint have room for.
pub(crate) fn worth_reading(reason: Reason) -> Option<&'static str> {
    let more = match reason {
        Reason::PoolExhausted
        | Reason::PortOverlap
        | Reason::PortOutsidePool
        | Reason::RescueCycle
        | Reason::NotARescue
        | Reason::NotPermitted
        | Reason::InsideInstance
        | Reason::Storage
        | Reason::PathOverlap
        | Reason::BadCertificates
        | Reason::NoDashboard
        | Reason::EtagMismatch
        | Reason::RevisionCompacted
        | Reason::TooManyInstances => true,
        Reason::Unspecified
        | Reason::UnknownInstance
        | Reason::InstanceExists
        | Reason::InvalidName
        | Reason::InvalidSpec
        | Reason::InvalidFleet
        | Reason::RequestIdReused
        | Reason::PortInUse
        | Reason::RescueOfItself
        | Reason::UnknownPrimary
        | Reason::RescueDown
        | Reason::NotFailedOver
        | Reason::AlreadyFailedOver
        | Reason::PrimaryNotReady
        | Reason::InstanceRunning
        | Reason::InstanceDown
        | Reason::InstanceDeleting
        | Reason::OutcomeFailed
        | Reason::ReaderTooSlow
        | Reason::ShuttingDown
        | Reason::InvalidPageToken
        | Reason::InvalidFilter
        | Reason::InvalidCursor
        | Reason::Overloaded
        | Reason::RequestTooSlow
        | Reason::UnknownSnapshot
        | Reason::AmbiguousSnapshot
        | Reason::NoGoodConfig
        | Reason::NoConfig
        | Reason::BadConfig
        | Reason::UnknownIncident
        | Reason::UnknownCertificate
        | Reason::UnknownSink => false,
    };
    more.then(|| reason.as_str_name().trim_start_matches("REASON_"))
}

#[cfg(test)]
mod tests;
