//! A page about a word, and the list of them.

use serde_json::{Value, json};

use super::{
    sheet::Sheet,
    style::{self, paint, stdout_width, wrapped},
    table::cut,
};
use crate::explain::Page;

/// Between a word and what it means.
const GAP: usize = 2;
/// Of the explanation in the list, at least; with less room it stands on a line of its own.
const LEAST: usize = 24;

/// All of one page.
pub(crate) fn page(page: &Page) -> String {
    let mut out = format!("{}  {}\n", paint(style::STRONG, page.word), paint(style::FAINT, page.kind.word()));
    let mut sheet = Sheet::new(&mut out);
    sheet.line("what", page.what);
    sheet.line("why", page.why);
    if page.commands.is_empty() {
        return out;
    }
    out.push('\n');
    let width = stdout_width();
    let widest = page.commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    for (command, what) in &page.commands {
        // The command on one line, however long, so that it can be copied.
        let side_by_side = width.is_none_or(|width| GAP + widest + GAP + what.chars().count() <= width);
        let what = paint(style::FAINT, what);
        if side_by_side {
            out.push_str(&format!("  {}  {what}\n", paint(style::HINT, &format!("{command:widest$}"))));
        } else {
            let below = wrapped(&format!("      {what}"), width, 6);
            out.push_str(&format!("  {}\n{below}\n", paint(style::HINT, command)));
        }
    }
    out
}

/// Every word with the beginning of what it means, by kinds.
pub(crate) fn list(pages: &[Page]) -> String {
    let width = stdout_width();
    let mut out = String::new();
    for group in pages.chunk_by(|a, b| a.kind == b.kind) {
        let gap = if out.is_empty() { "" } else { "\n" };
        out.push_str(&format!("{gap}{}\n", paint(style::STRONG, group[0].kind.title())));
        let widest = group.iter().map(|page| page.word.len()).max().unwrap_or_default();
        for page in group {
            let room = width.map(|width| width.saturating_sub(GAP + widest + GAP));
            match room {
                Some(..LEAST) => out.push_str(&format!("  {}\n", page.word)),
                room => {
                    let what = room.map_or_else(|| page.what.to_owned(), |room| cut(page.what, room));
                    out.push_str(&format!("  {:widest$}  {}\n", page.word, paint(style::FAINT, &what)));
                }
            }
        }
    }
    out
}

/// The same for programs.
pub(crate) fn value(page: &Page) -> Value {
    let commands: Vec<Value> =
        page.commands.iter().map(|(command, what)| json!({ "command": command, "what": what })).collect();
    json!({
        "word": page.word,
        "kind": page.kind.word(),
        "what": page.what,
        "why": page.why,
        "commands": commands,
    })
}
