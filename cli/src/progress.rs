//! What is told on standard error while waiting: one line that is drawn anew on a terminal, plain lines
//! elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use supervisor_proto::v1::Phase;
use tokio::time::interval_at;

use crate::{
    render::{
        charset,
        style::{clause, phase_word, printable, stderr_width, talk},
        time::humane,
    },
    view,
    wait::Tracker,
};

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// The same in ASCII.
const PLAIN_SPINNER: [char; 4] = ['|', '/', '-', '\\'];
/// The width of a terminal that does not tell its own.
const USUAL_WIDTH: usize = 80;
/// Carriage return, then "erase to the end of the line" (ECMA-48 EL).
const CLEAR: &str = "\r\x1b[K";

/// What is over sooner needs no word.
const SHORT: Duration = Duration::from_secs(1);
/// How often the line tells a new time.
const REDRAW: Duration = Duration::from_millis(200);
/// Whether somebody has the line.
static TELLING: AtomicBool = AtomicBool::new(false);

/// Where progress is told.
#[derive(Debug)]
enum Manner {
    /// One line, drawn anew; how often it was.
    Line { drawn: usize },
    /// A line whenever an instance comes to another phase; the phases told.
    Lines(BTreeMap<String, Phase>),
}

/// Tells how far the waiting has come.
#[derive(Debug)]
pub(crate) struct Progress {
    manner: Manner,
    since: Instant,
}

impl Progress {
    /// In the manner that standard error can show.
    pub(crate) fn new() -> Self {
        let manner = if io::stderr().is_terminal() {
            Manner::Line { drawn: 0 }
        } else {
            Manner::Lines(BTreeMap::new())
        };
        Self { manner, since: Instant::now() }
    }

    /// Tells what is known now.
    pub(crate) fn show(&mut self, tracker: &Tracker) {
        match &mut self.manner {
            Manner::Line { drawn } => {
                if tracker.is_done() {
                    return;
                }
                let text = line(
                    tracker,
                    *drawn,
                    &humane(Duration::from_secs(self.since.elapsed().as_secs().max(1))),
                );
                *drawn += 1;
                write(&text);
            }
            Manner::Lines(told) => {
                for each in tracker.each() {
                    let Some(phase) = each.seen.map(|instance| view::status(instance).phase()) else {
                        continue;
                    };
                    if told.insert(each.name.to_owned(), phase) != Some(phase) {
                        talk(&format!("{}: {}", each.name, phase_word(phase)));
                    }
                }
            }
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if let Manner::Line { drawn: 1.. } = self.manner {
            write("");
        }
    }
}

fn line(tracker: &Tracker, drawn: usize, elapsed: &str) -> String {
    let width = stderr_width().unwrap_or(USUAL_WIDTH);
    let done = tracker.each().filter(|each| each.done).count();
    let all = tracker.each().count();
    let count = if all == 1 { String::new() } else { format!("{done} of {all} done, ") };
    let waiting: Vec<String> = tracker
        .each()
        .filter(|each| !each.done)
        .filter_map(|each| {
            let status = view::status(each.seen?);
            let reason = clause(&status.reason);
            // Room for reasons is there when one instance is waited for.
            let why = if all > 1 || reason.is_empty() { String::new() } else { format!(": {reason}") };
            Some(format!("{} {}{why}", each.name, phase_word(status.phase())))
        })
        .collect();
    let sign = sign(drawn);
    let text = format!("{sign} {elapsed}  {count}{}", waiting.join(", "));
    // One column short, so that no terminal wraps it.
    text.chars().take(width.saturating_sub(1)).collect()
}

/// The sign of a line that is drawn for the `drawn`th time.
fn sign(drawn: usize) -> char {
    let signs: &[char] = if charset::is_utf8() { &SPINNER } else { &PLAIN_SPINNER };
    signs[drawn % signs.len()]
}

/// Does `work`; if that takes long, a terminal is told what it is, and for how long already. Of several such works at a
/// time one is told of: there is one line.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() || TELLING.swap(true, Ordering::Relaxed) {
        return work.await;
    }
    let telling = Telling;
    let mut work = pin!(work);
    let since = Instant::now();
    let mut redraw = interval_at(tokio::time::Instant::now() + SHORT, REDRAW);
    let mut drawn = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = redraw.tick() => {
                let elapsed = humane(Duration::from_secs(since.elapsed().as_secs().max(1)));
                let text = format!("{} {elapsed}  {what}", sign(drawn));
                let width = stderr_width().unwrap_or(USUAL_WIDTH);
                write(&text.chars().take(width.saturating_sub(1)).collect::<String>());
                drawn += 1;
            }
        }
    };
    if drawn > 0 {
        write("");
    }
    drop(telling);
    outcome
}

/// Somebody has the line, for as long as this lives.
struct Telling;

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.store(false, Ordering::Relaxed);
    }
}

/// Draws `text` in place of what is there.
fn write(text: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{CLEAR}{}", charset::shown(&printable(text)));
    let _ = out.flush();
}
