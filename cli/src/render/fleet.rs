//! The fleet on one page: what is not well first, below each row why it is so and what to type, then the sum.

use supervisor_proto::v1::{Instance, Phase, Role};

use super::{
    notes,
    status::{self, Breadth},
    style::{self, INDENT, Marks, paint, wrapped},
    walls,
};
use crate::view;

/// Instances that are explained below their rows; the table shows them all.
const EXPLAINED: usize = 20;
/// Lines that one sentence may take below its row; `status NAME` tells it wholly.
const MOST_LINES: usize = 3;
/// What is said below a row begins here.
const MARGIN: &str = "  ";
/// What to type where there is nothing yet.
const FIRST_STEPS: [&str; 3] = [
    "openclawctl up main       a first gateway",
    "openclawctl setup --help  one with OpenClaw's own onboarding",
    "openclawctl import        the gateways that are here already",
];

/// How the page is to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) breadth: Breadth,
    pub(crate) marks: Marks,
    /// Of the terminal, if there is one.
    pub(crate) width: Option<usize>,
}

/// The page.
pub(crate) fn page(instances: &[Instance], alarms: &[String], look: Look) -> String {
    let lines = |lines: Vec<String>| -> String {
        lines.iter().map(|line| wrapped(line, look.width, INDENT) + "\n").collect()
    };
    let mut blocks = vec![lines(notes::alarms(alarms)), table(instances, look)];
    let mut end = notes::runtimes(instances);
    end.extend(walls::gaps(instances));
    end.push(sum(instances));
    let mut end = lines(end);
    if instances.is_empty() {
        for (at, step) in FIRST_STEPS.iter().enumerate() {
            let label = if at == 0 { paint(style::HINT, "hint:") } else { " ".repeat(5) };
            end.push_str(&wrapped(&format!("{label} {step}"), look.width, 8));
            end.push('\n');
        }
    }
    blocks.push(end);
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
}

/// The rows, the most urgent first, and below them what they cannot tell.
fn table(instances: &[Instance], look: Look) -> String {
    let mut out = String::new();
    if instances.is_empty() {
        return out;
    }
    let mut sorted: Vec<&Instance> = instances.iter().collect();
    sorted.sort_by_cached_key(|instance| urgency(instance));
    let (rows, left_out) = status::lines(&sorted, look.breadth, look.marks, look.width);
    let (mut explained, mut unexplained) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        out.push_str(row);
        out.push('\n');
        let Some(instance) = at.checked_sub(1).and_then(|at| sorted.get(at)) else { continue };
        let below = below(instance, instances, look);
        match (below.is_empty(), explained < EXPLAINED) {
            (true, _) => {}
            (false, true) => {
                explained += 1;
                out.push_str(&below);
            }
            (false, false) => unexplained += 1,
        }
    }
    if unexplained > 0 {
        out.push_str(&format!("and {unexplained} more that need a look: openclawctl status NAME\n"));
    }
    if look.breadth == Breadth::Wide && !left_out.is_empty() {
        let told = format!("the window has no room for {}", left_out.join(", "));
        out.push_str(&paint(style::FAINT, &wrapped(&told, look.width, INDENT)));
        out.push('\n');
    }
    out
}

/// Whoever is less urgent needs no look.
const URGENT: u8 = 3;

/// What cannot run comes first, then what runs badly, what needs a look, and the others; each by name.
fn urgency(instance: &Instance) -> u8 {
    match view::status(instance).phase() {
        Phase::Failed => 0,
        Phase::Unhealthy => 1,
        Phase::Backoff | Phase::Repairing => 2,
        Phase::Unspecified
        | Phase::Stopped
        | Phase::Adopting
        | Phase::Spawning
        | Phase::Starting
        | Phase::Ready
        | Phase::Stopping => URGENT + u8::from(!needs_a_look(instance)),
    }
}

fn needs_a_look(instance: &Instance) -> bool {
    notes::remark(instance).is_some() || view::failover(instance).role() == Role::Rescued
}

/// Why it is as it is, who stands in for it, and what to type.
fn below(instance: &Instance, all: &[Instance], look: Look) -> String {
    let is_rescue = matches!(view::failover(instance).role(), Role::Active | Role::Promoting);
    if !is_rescue && urgency(instance) > URGENT {
        return String::new();
    }
    let remark = notes::remark(instance);
    let (why, hint) = remark.map_or((None, None), |(why, hint)| (Some(why), Some(hint)));
    let failovers = notes::failovers(std::slice::from_ref(instance));
    // A rescue is told of below its primary, if that is shown.
    let told_there =
        view::failover(instance).active_for.iter().all(|name| all.iter().any(|one| one.name == *name));
    let failovers = failovers.into_iter().filter(|_| !(is_rescue && told_there));
    let failovers = failovers.map(|line| paint(style::WARNING, &(line + &then(instance))));
    let hint = hint.map(|hint| format!("{} {hint}", paint(style::HINT, "hint:")));
    let mut sentences: Vec<String> = why.into_iter().chain(failovers).collect();
    // On the same line where there is room; alone on one, however long, so that it can be copied.
    match (hint, sentences.last_mut(), look.width) {
        (Some(hint), Some(last), Some(width)) if MARGIN.len() + wide(last) + 2 + wide(&hint) <= width => {
            last.push_str("  ");
            last.push_str(&hint);
            sentences.iter().map(|sentence| shortened(sentence, look.width)).collect()
        }
        (hint, _, _) => {
            let told: String = sentences.iter().map(|sentence| shortened(sentence, look.width)).collect();
            told + &hint.map(|hint| format!("{MARGIN}{hint}\n")).unwrap_or_default()
        }
    }
}

/// What the supervisor does about a primary that is well again and not in its place.
fn then(instance: &Instance) -> String {
    let status = view::status(instance);
    if status.phase() != Phase::Ready || view::stand_in(instance).is_none() {
        return String::new();
    }
    let reason = style::clause(&status.reason);
    if reason.is_empty() { reason } else { format!("; {} {reason}", style::printable(&instance.name)) }
}

fn wide(painted: &str) -> usize {
    anstream::adapter::strip_str(painted).to_string().chars().count()
}

/// A sentence below a row, on a few lines at most.
fn shortened(sentence: &str, width: Option<usize>) -> String {
    let told = wrapped(&format!("{MARGIN}{sentence}"), width, INDENT);
    let lines: Vec<&str> = told.lines().collect();
    match lines.as_slice() {
        [shown @ .., last] if lines.len() > MOST_LINES => {
            let mut kept = shown.iter().take(MOST_LINES).copied().collect::<Vec<_>>().join("\n");
            // Room for the sign behind it.
            while width.is_some_and(|width| wide(kept.lines().last().unwrap_or_default()) + 2 > width) {
                let Some((rest, _)) = kept.trim_end().rsplit_once(' ') else { break };
                kept = rest.trim_end().to_owned();
            }
            // A colour that began before the cut ends behind it.
            let end = if last.ends_with("\u{1b}[0m") { "\u{1b}[0m" } else { "" };
            format!("{kept} …{end}\n")
        }
        _ => told + "\n",
    }
}

/// E.g. "3 instances: 2 ready, 1 failed; 1 needs a look".
fn sum(instances: &[Instance]) -> String {
    let needy = instances.iter().filter(|instance| urgency(instance) <= URGENT).count();
    let settled = instances.iter().all(|instance| view::status(instance).settled);
    let end = match needy {
        0 if settled && !instances.is_empty() => "; all is as wished".to_owned(),
        0 => String::new(),
        1 => paint(style::WARNING, "; 1 needs a look"),
        many => paint(style::WARNING, &format!("; {many} need a look")),
    };
    notes::summary(instances) + &end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_takes_few_lines_and_says_that_there_is_more() {
        let sentence = "one two three four five six seven eight nine ten eleven twelve thirteen";
        let told = "  one two three four\n    five six seven\n    eight nine ten …\n";
        assert_eq!(shortened(sentence, Some(20)), told);
        for width in 12..40 {
            let told = shortened(sentence, Some(width));
            assert!(told.lines().all(|line| line.chars().count() <= width), "{width}: {told}");
        }
        assert_eq!(shortened("one two", Some(20)), "  one two\n");
        assert_eq!(shortened(sentence, None), format!("  {sentence}\n"));
        let painted = shortened(&paint(style::WARNING, sentence), Some(20));
        assert!(painted.ends_with(" …\u{1b}[0m\n"), "{painted:?}");
    }
}
