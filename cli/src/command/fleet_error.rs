//! Shows where in a fleet file an error is: the line, a caret under the place, and what is wrong there.

use supervisor_proto::v1::Reason;

use crate::{
    error::Error,
    render::style::{self, paint, printable, printable_line},
};

/// No more errors than this are shown at once; the rest is seen once these are mended.
const SHOWN: usize = 10;

/// Says how many errors the file has, and shows each at its place.
pub(super) fn explain(mut error: Error, file: &str, content: &str) -> Error {
    let Some(refusal) = error.refusal_mut().filter(|refusal| refusal.reason == Some(Reason::InvalidFleet))
    else {
        return error;
    };
    if refusal.violations.is_empty() {
        return error;
    }
    let count = refusal.violations.len();
    refusal.message = match count {
        1 => "the file has an error; nothing was changed".to_owned(),
        many => format!("the file has {many} errors; nothing was changed"),
    };
    let shown = refusal.violations.iter().take(SHOWN);
    let mut lines: Vec<String> = shown.flat_map(|(path, what)| place(path, what, file, content)).collect();
    if count > SHOWN {
        lines.push(format!("  and {} more", count - SHOWN));
    }
    error.with_detail(lines)
}

/// One violation: "fleet.yaml:3:5: `a.b`: unknown field", at a path. Further lines are the supervisor's own
/// drawing. Its line is taken if it has withheld a secret there; else the file is at hand here, whole.
fn place(path: &str, what: &str, file: &str, content: &str) -> Vec<String> {
    let arrow = paint(style::HINT, "-->");
    let at = if path.is_empty() { String::new() } else { format!(" ({})", printable(path)) };
    let mut parts = what.lines();
    let first = parts.next().unwrap_or_default();
    let drawing: Vec<&str> = parts.collect();
    let mut mends = drawing.iter().filter_map(|line| line.trim_start().strip_prefix("= "));
    let mend = mends.next_back().map(printable);
    let Some((line, column, message)) = locate(first, file) else {
        return vec![format!("  {arrow} {}{at}: {}", printable(file), printable(first))];
    };
    let message = printable(message.strip_prefix(&format!("`{path}`: ")).unwrap_or(message));
    let mut lines = vec![format!("  {arrow} {}:{line}:{column}{at}", printable(file))];
    let number = line.to_string();
    let (margin, bar) = (" ".repeat(number.len()), paint(style::FAINT, "|"));
    let drawn = drawing.iter().find_map(|drawn| drawn.strip_prefix(&format!(" {line} | ")));
    let own = line.checked_sub(1).and_then(|index| content.lines().nth(index));
    let whole = own.filter(|own| drawn.is_none_or(|drawn| own.starts_with(drawn)));
    match whole {
        None if drawn.is_some() => {
            lines.push(format!("   {margin} {bar}"));
            let drawn = printable_line(drawn.unwrap_or_default());
            lines.push(format!("   {} {bar} {drawn}", paint(style::FAINT, &number)));
            lines.push(format!("   {margin} {bar} {}", paint(style::BAD, &message)));
        }
        Some(source) => {
            lines.push(format!("   {margin} {bar}"));
            lines.push(format!("   {} {bar} {}", paint(style::FAINT, &number), printable_line(source)));
            lines.push(format!("   {margin} {bar} {}", marked(source, column, &message)));
        }
        None => lines.push(format!("   {margin} {bar} {}", paint(style::BAD, &message))),
    }
    lines.extend(mend.map(|mend| format!("   {margin} {} {mend}", paint(style::HINT, "="))));
    lines
}

/// The message behind carets that stand under the word at `column`.
fn marked(source: &str, column: usize, message: &str) -> String {
    let before = column.saturating_sub(1);
    // Tabs are kept, so that the carets stand where tabs put the text.
    let blank: String = source.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let word_at_fault = source.chars().skip(before).zip(source.chars().skip(before + 1).chain([' ']));
    // A colon ends a key, but not the hours of a time.
    let in_word = |(c, next): &(char, char)| {
        c.is_alphanumeric() || "_-.".contains(*c) || *c == ':' && next.is_alphanumeric()
    };
    let word = word_at_fault.take_while(in_word).count();
    format!("{blank}{}", paint(style::BAD, &format!("{} {message}", "^".repeat(word.max(1)))))
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
        let lines = place(
            "a.prot",
            "f.yaml:2:3: `a.prot`: unknown field\n 2 |   prot: 1\n   = did you mean `port`?",
            "f.yaml",
            "a:\n  prot: 1\n",
        );
        let plain: Vec<String> =
            lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(
            plain,
            [
                "  --> f.yaml:2:3 (a.prot)",
                "     |",
                "   2 |   prot: 1",
                "     |   ^^^^ unknown field",
                "     = did you mean `port`?",
            ]
        );
    }

    #[test]
    fn a_line_with_a_secret_is_shown_as_the_supervisor_shows_it() {
        let lines = place(
            "a.env",
            "f.yaml:2:3: `a.env`: no such\n 2 |   KEY: [withheld 1]\n   = remove it",
            "f.yaml",
            "a:\n  KEY: canary\n",
        );
        let plain: String = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert!(plain.contains("KEY: [withheld 1]") && plain.contains("no such"), "{plain}");
        assert!(!plain.contains("canary"), "{plain}");
    }

    #[test]
    fn a_time_is_one_word_and_a_key_ends_at_its_colon() {
        let carets = |source: &str| marked(source, 1, "").matches('^').count();
        assert_eq!([carets("03:00-05:00, x"), carets("key: 1"), carets("key:"), carets("")], [11, 3, 3, 1]);
    }

    #[test]
    fn a_place_beyond_the_file_still_tells_what_is_wrong() {
        let lines = place("", "f.yaml:9:1: unexpected end", "f.yaml", "a: 1\n");
        assert!(lines.iter().any(|line| line.contains("unexpected end")));
    }
}
