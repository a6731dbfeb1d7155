//! Shows where in a fleet file an error is: the line, a caret under the place, and what is wrong there.

use supervisor_proto::v1::Reason;

use crate::{
    error::{Cause, Error},
    render::style::{self, paint, printable},
};

/// No more errors than this are shown at once; the rest is seen once these are mended.
const SHOWN: usize = 10;

/// Adds the places in the file to a refusal of it.
pub(super) fn explain(error: Error, file: &str, content: &str) -> Error {
    let Cause::Refused(refusal) = error.cause() else { return error };
    if refusal.reason != Some(Reason::InvalidFleet) {
        return error;
    }
    let mut lines: Vec<String> = refusal
        .violations
        .iter()
        .take(SHOWN)
        .flat_map(|(path, what)| place(path, what, file, content))
        .collect();
    let more = refusal.violations.len().saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    error.with_detail(lines)
}

/// One violation: "fleet.yaml:3:5: unknown field …", at a path.
fn place(path: &str, what: &str, file: &str, content: &str) -> Vec<String> {
    let arrow = paint(style::HINT, "-->");
    let at = if path.is_empty() { String::new() } else { format!(" ({})", printable(path)) };
    let Some((line, column, message)) = locate(what, file) else {
        return vec![format!("  {arrow} {}{at}: {}", printable(file), printable(what))];
    };
    let mut lines = vec![format!("  {arrow} {}:{line}:{column}{at}", printable(file))];
    let Some(source) = line.checked_sub(1).and_then(|index| content.lines().nth(index)) else {
        lines.push(format!("      {}", printable(message)));
        return lines;
    };
    let number = line.to_string();
    let (margin, bar) = (" ".repeat(number.len()), paint(style::FAINT, "|"));
    // Tabs are kept so that the caret stands where they put the text.
    let before: String =
        source.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let word = source
        .chars()
        .skip(column.saturating_sub(1))
        .take_while(|c| c.is_alphanumeric() || "_-.".contains(*c));
    let caret = "^".repeat(word.count().max(1));
    let shown: String =
        source.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    lines.push(format!("   {margin} {bar}"));
    lines.push(format!("   {} {bar} {shown}", paint(style::FAINT, &number)));
    lines.push(format!(
        "   {margin} {bar} {before}{}",
        paint(style::BAD, &format!("{caret} {}", printable(message)))
    ));
    lines
}

/// Splits "fleet.yaml:3:5: message" into line, column and message.
fn locate<'a>(what: &'a str, file: &str) -> Option<(usize, usize, &'a str)> {
    let mut parts = what.strip_prefix(file)?.strip_prefix(':')?.splitn(3, ':');
    let line = parts.next()?.parse().ok()?;
    let column = parts.next()?.parse().ok()?;
    Some((line, column, parts.next()?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_even_if_the_file_name_holds_colons() {
        assert_eq!(
            locate("a:b.yaml:3:5: unknown field `x`: y", "a:b.yaml"),
            Some((3, 5, "unknown field `x`: y"))
        );
        assert_eq!(locate("the file is empty", "a.yaml"), None);
        assert_eq!(locate("a.yaml: no place", "a.yaml"), None);
    }

    #[test]
    fn a_caret_stands_under_the_word_at_fault() {
        let lines = place("instances.rescue.prot", "f.yaml:2:3: unknown field", "f.yaml", "a:\n  prot: 1\n");
        let plain: Vec<String> =
            lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(
            plain,
            [
                "  --> f.yaml:2:3 (instances.rescue.prot)",
                "     |",
                "   2 |   prot: 1",
                "     |   ^^^^ unknown field",
            ]
        );
    }

    #[test]
    fn a_place_beyond_the_file_still_tells_what_is_wrong() {
        let lines = place("", "f.yaml:9:1: unexpected end", "f.yaml", "a: 1\n");
        assert!(lines.iter().any(|line| line.contains("unexpected end")));
    }
}
