//! What stands below a command's options: its examples, in lines that fit the window.
//!
//! A command that has examples of its own commands lends them: `config diff --help` shows those of `config --help` that
//! are about it.

use clap::Command;

use crate::render::style::wrapped;

/// How examples begin.
const HEADING: &str = "Examples:";
/// What is said of a command begins here, where it has to stand below it.
const BELOW: usize = 6;
/// Lines that are indented further than this go on with what the one before has said.
const CONTINUED: usize = 12;

/// The tree, every command of which has its examples, in lines of `width` if that is known.
pub(crate) fn completed(tree: Command, width: Option<usize>) -> Command {
    let name = tree.get_name().to_owned();
    completed_below(tree, &name, "", width)
}

fn completed_below(command: Command, name: &str, lent: &str, width: Option<usize>) -> Command {
    let own = command.get_after_help().map(ToString::to_string);
    let text = own.unwrap_or_else(|| lent.to_owned());
    let command = command.mut_subcommands(|below| {
        let name = format!("{name} {}", below.get_name());
        let lent = about(&text, &name);
        completed_below(below, &name, &lent, width)
    });
    match (text.is_empty(), width) {
        (true, _) => command,
        (false, None) => command.after_help(text),
        (false, Some(width)) => command.after_help(fitted(&text, width)),
    }
}

/// The examples in `text` that run the command `name`.
fn about(text: &str, name: &str) -> String {
    let examples = parts(text).into_iter().filter_map(|part| match part {
        Part::Example { line, .. } if runs(line, name) => Some(line),
        Part::Example { .. } | Part::Text(_) => None,
    });
    let lines: Vec<&str> = examples.collect();
    if lines.is_empty() { String::new() } else { format!("{HEADING}\n{}", lines.join("\n")) }
}

fn runs(example: &str, name: &str) -> bool {
    let rest = example.find(name).map(|at| &example[at + name.len()..]);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\n']))
}

/// A part of the text below a command's options.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// An indented command or word, and what is said of it, with all its lines.
    Example { line: &'a str, command: &'a str, remark: String },
    /// Anything else.
    Text(&'a str),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = end_of_line(rest);
        let line = &rest[..end];
        let Some(example) = line.strip_prefix("  ") else {
            parts.push(Part::Text(line));
            rest = rest[end..].strip_prefix('\n').unwrap_or_default();
            continue;
        };
        let (command, remark) = example.split_once("  ").unwrap_or((example, ""));
        let mut remark = remark.trim().to_owned();
        while let Some(next) = rest[end..].strip_prefix('\n') {
            let more = &next[..end_of_line(next)];
            if more.len() - more.trim_start().len() <= CONTINUED {
                break;
            }
            remark = format!("{remark} {}", more.trim()).trim().to_owned();
            end += 1 + more.len();
        }
        parts.push(Part::Example { line: &rest[..end], command, remark });
        rest = rest[end..].strip_prefix('\n').unwrap_or_default();
    }
    parts
}

fn end_of_line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// The text in lines of `width`: a remark that does not fit beside its command stands below it.
fn fitted(text: &str, width: usize) -> String {
    let fits = |line: &str| line.lines().all(|line| line.chars().count() <= width);
    let mut out = String::new();
    let mut paragraph = String::new();
    for part in parts(text) {
        let is_prose = matches!(part, Part::Text(line) if !line.is_empty() && line != HEADING && !fits(text));
        if let (true, Part::Text(line)) = (is_prose, &part) {
            paragraph = format!("{paragraph} {line}").trim_start().to_owned();
            continue;
        }
        flush(&mut paragraph, width, &mut out);
        match part {
            Part::Text(line) => out.push_str(line),
            Part::Example { line, .. } if fits(line) => out.push_str(line),
            Part::Example { command, remark, .. } => {
                out.push_str(&wrapped(&format!("  {command}"), Some(width), BELOW - 2));
                if !remark.is_empty() {
                    let margin = " ".repeat(BELOW);
                    out.push_str(&format!("\n{}", wrapped(&format!("{margin}{remark}"), Some(width), BELOW)));
                }
            }
        }
        out.push('\n');
    }
    flush(&mut paragraph, width, &mut out);
    out.trim_end().to_owned()
}

fn flush(paragraph: &mut String, width: usize, out: &mut String) {
    if !paragraph.is_empty() {
        out.push_str(&wrapped(paragraph, Some(width), 0));
        out.push('\n');
        paragraph.clear();
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::app::App;

    const TEXT: &str = "\
It needs a terminal of 20x5 or more, and whatever runs goes on.

Examples:
  openclawctl config diff main      what differs
  openclawctl config rollback main  back to the last good one
                                    of them all
  openclawctl config

Exit codes: 0 done.";

    #[test]
    fn in_a_narrow_window_what_is_said_stands_below_its_command() {
        let narrow = "\
It needs a terminal of 20x5 or more, and
whatever runs goes on.

Examples:
  openclawctl config diff main
      what differs
  openclawctl config rollback main
      back to the last good one of them
      all
  openclawctl config

Exit codes: 0 done.";
        assert_eq!(fitted(TEXT, 40), narrow);
        assert_eq!(fitted(TEXT, 80), TEXT);
    }

    #[test]
    fn a_command_lends_its_examples_to_those_below_it() {
        let rollback = about(TEXT, "openclawctl config rollback");
        assert!(rollback.starts_with("Examples:\n  openclawctl config rollback main  back"), "{rollback}");
        assert!(rollback.ends_with("of them all") && rollback.lines().count() == 3, "{rollback}");
        assert_eq!(about(TEXT, "openclawctl conf"), "");
    }

    #[test]
    fn every_command_has_examples_that_fit_and_can_be_typed() {
        fn each(command: &Command, name: &str, check: &mut impl FnMut(&Command, &str)) {
            check(command, name);
            for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
                each(below, &format!("{name} {}", below.get_name()), check);
            }
        }
        let mut missing = Vec::new();
        each(&completed(App::command(), Some(80)), "openclawctl", &mut |command, name| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !text.contains("Examples:\n  ") {
                missing.push(name.to_owned());
            }
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{name}: {text}");
            for part in parts(&text) {
                let Part::Example { command, .. } = part else { continue };
                let is_plain =
                    command.starts_with("openclawctl ") && !command.contains(['|', '<', '>', '"', '…']);
                let typed = App::try_parse_from(command.split_whitespace());
                assert!(!is_plain || typed.is_ok(), "{name}: {command}: {}", typed.unwrap_err());
            }
        });
        assert!(missing.is_empty(), "without examples: {missing:#?}");
        each(&completed(App::command(), Some(40)), "openclawctl", &mut |command, name| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long = |line: &&str| line.chars().count() > 40 && line.trim().contains(' ');
            assert_eq!(text.lines().find(long), None, "{name}");
        });
    }
}
