//! Findings as text: the worst first, each with what to type.

use anstyle::Style;
use supervisor_proto::v1::{ExamineResponse, Finding, finding::Severity};

use super::style::{self, clause, paint, printable, stdout_width, wrapped};

/// Lines below a finding begin here.
const MARGIN: usize = 2;

/// What was mended, what is wrong, and how much of it there is.
pub(crate) fn text(answer: &ExamineResponse) -> String {
    let width = stdout_width();
    let mut out = String::new();
    for mended in &answer.mended {
        let line = format!("{} {}", paint(style::GOOD, "mended:"), clause(&mended.what));
        out.push_str(&wrapped(&line, width, MARGIN));
        out.push('\n');
    }
    if !answer.mended.is_empty() && !answer.findings.is_empty() {
        out.push('\n');
    }
    for finding in &answer.findings {
        one(finding, width, &mut out);
        out.push('\n');
    }
    out.push_str(&summary(answer));
    out
}

fn one(finding: &Finding, width: Option<usize>, out: &mut String) {
    let (word, look) = told(finding.severity());
    let title = paint(look, &format!("{word}[{}]:", printable(&finding.id)));
    out.push_str(&wrapped(&format!("{title} {}", clause(&finding.what)), width, MARGIN));
    out.push('\n');
    let mut line = |label: &str, text: &str| {
        let margin = " ".repeat(MARGIN);
        out.push_str(&wrapped(&format!("{margin}{label} {text}"), width, MARGIN + MARGIN));
        out.push('\n');
    };
    if finding.line > 0 {
        let place = format!("{}:{}:{}", printable(&finding.file), finding.line, finding.column);
        line(&paint(style::FAINT, "at:"), &place);
    }
    if !finding.why.is_empty() {
        line(&paint(style::FAINT, "why:"), &clause(&finding.why));
    }
    let hint = paint(style::HINT, "hint:");
    if !finding.mend.is_empty() {
        line(&hint, &clause(&finding.mend));
    }
    if !finding.command.is_empty() {
        // On one line, however long, so that it can be copied.
        out.push_str(&format!("{}{hint} {}\n", " ".repeat(MARGIN), printable(&finding.command)));
    }
}

fn told(severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Error => ("error", style::BAD),
        Severity::Warning => ("warning", style::WARNING),
        Severity::Note | Severity::Unspecified => ("note", style::FAINT),
    }
}

fn summary(answer: &ExamineResponse) -> String {
    let checks = count(answer.checks_done as usize, "check");
    if answer.findings.is_empty() {
        return format!("{} {checks}\n", paint(style::GOOD, "all well:"));
    }
    let of = |severity: &Severity| answer.findings.iter().filter(|each| each.severity() == *severity).count();
    let counted = [Severity::Error, Severity::Warning, Severity::Note];
    let told = counted
        .iter()
        .filter(|severity| of(severity) > 0)
        .map(|severity| count(of(severity), told(*severity).0));
    let mut text = format!("{}; {checks}\n", told.collect::<Vec<_>>().join(", "));
    let safe = answer.findings.iter().filter(|finding| finding.safe_fix).count();
    if safe > 0 {
        let hint = paint(style::HINT, "hint:");
        text.push_str(&format!("{hint} `openclawctl doctor --fix` mends {safe} of them\n"));
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
