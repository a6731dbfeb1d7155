//! One line per notable thing, `2026-11-21T08:15:00.328Z info message`: the ordinary to stdout, the rest to
//! stderr. Callers pass what clients send through [`quoted`], and never a secret.

use std::fmt::{self, Write as _};
use std::io::Write;

use jiff::Timestamp;

/// As much of a text sent by a client as is worth reading in a log.
const QUOTE_CHARS: usize = 80;

/// Says that something went as it should.
pub(crate) fn info(message: fmt::Arguments<'_>) {
    line(&mut std::io::stdout().lock(), "info", message);
}

/// Says that something is amiss and the gateway goes on.
pub(crate) fn warn(message: fmt::Arguments<'_>) {
    line(&mut std::io::stderr().lock(), "warn", message);
}

/// Says why the gateway ends.
pub(crate) fn error(message: fmt::Arguments<'_>) {
    line(&mut std::io::stderr().lock(), "error", message);
}

/// One write for the whole line, so that lines never mix. A reader who has gone must not end the gateway,
/// so a failure to write is ignored.
fn line(out: &mut dyn Write, level: &str, message: fmt::Arguments<'_>) {
    let line = format!("{:.3} {level} {message}\n", Timestamp::now());
    let _ = out.write_all(line.as_bytes());
}

/// A client's text, bounded and escaped, so that it can neither fill the log nor forge a line of it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars().take(QUOTE_CHARS) {
        let _ = write!(quoted, "{}", character.escape_debug());
    }
    quoted.push_str(if text.chars().nth(QUOTE_CHARS).is_some() { "…\"" } else { "\"" });
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_its_level_and_its_message() {
        let mut out = Vec::new();
        line(&mut out, "info", format_args!("ready"));
        let text = String::from_utf8(out).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, "info ready\n");
        assert_eq!((time.len(), time.ends_with('Z')), ("2026-11-21T08:15:00.328Z".len(), true));
    }

    #[test]
    fn a_clients_text_cannot_forge_a_line() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"x".repeat(QUOTE_CHARS + 1)).chars().count(), QUOTE_CHARS + 3);
    }
}
