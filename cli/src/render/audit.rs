//! The audit: a line for each call.

use anstyle::Style;
use supervisor_proto::v1::{AuditCaller, AuditEntry, audit_entry::Outcome};

use super::{
    status::Breadth,
    style::{self, printable, stdout_width},
    table::{Cell, Side, Table},
    time::{Clock, humane},
};

/// The most columns of a method: the longest of ours have as many.
const METHOD: usize = 17;

/// Of who called and whom about, when the width of the terminal leaves less, in columns.
const LEAST: usize = 7;

/// Columns of a line where the output is no terminal.
const USUAL_WIDTH: usize = 80;

/// Between two columns.
const GAP: usize = 2;

/// The table, in the order of `entries`.
pub(crate) fn list(entries: &[AuditEntry], breadth: Breadth) -> String {
    if entries.is_empty() {
        return "no calls\n".into();
    }
    let clock = Clock::local();
    let usual = [("TIME", Side::Left), ("WHO", Side::Left), ("CALL", Side::Left), ("ABOUT", Side::Left)];
    let wide = [
        ("NUMBER", Side::Right),
        ("ROLE", Side::Left),
        ("FROM", Side::Left),
        ("PID", Side::Right),
        ("TOOK", Side::Right),
        ("REQUEST", Side::Left),
    ];
    let more = match breadth {
        Breadth::Narrow => &[][..],
        Breadth::Wide => &wide[..],
    };
    let columns = usual.into_iter().chain(more.iter().copied()).chain([("OUTCOME", Side::Left)]);
    let mut table = Table::new(columns)
        .within(stdout_width())
        .ranked(&["TIME", "CALL", "OUTCOME", "WHO", "ABOUT", "NUMBER", "ROLE"]);
    let rows: Vec<Told> = entries.iter().map(|entry| Told::of(entry, &clock)).collect();
    let room = match breadth {
        Breadth::Narrow => room(&rows),
        Breadth::Wide => usize::MAX,
    };
    for (entry, told) in entries.iter().zip(rows) {
        let mut row = vec![
            told.time.map_or_else(Cell::none, Cell::from),
            cut(&told.who, room),
            cut(&told.method, METHOD),
            cut(&told.target, room),
        ];
        match breadth {
            Breadth::Narrow => {}
            Breadth::Wide => row.extend(further(entry)),
        }
        let (word, look) = told.outcome;
        row.push(Cell::styled(word, look));
        table.row(row);
    }
    let mut out = String::new();
    table.render(&mut out);
    out
}

/// What is told of a call in any case.
struct Told {
    time: Option<String>,
    who: String,
    method: String,
    target: String,
    outcome: (String, Style),
}

impl Told {
    fn of(entry: &AuditEntry, clock: &Clock) -> Self {
        let time = entry.last_time.as_ref().or(entry.time.as_ref());
        Self {
            time: time.map(|time| clock.time(time)),
            who: printable(&entry.caller.as_ref().map(who).unwrap_or_default()),
            method: printable(entry.method.rsplit('/').next().unwrap_or_default()),
            target: printable(&entry.target),
            outcome: outcome(entry),
        }
    }
}

/// The columns that who called and whom about may have each, so that a line fits.
fn room(rows: &[Told]) -> usize {
    let widest =
        |width: fn(&Told) -> usize, title: &str| rows.iter().map(width).fold(title.len(), usize::max);
    let time = widest(|row| row.time.as_ref().map_or(1, String::len), "TIME");
    let method = widest(|row| row.method.chars().count().min(METHOD), "CALL");
    let outcome = widest(|row| row.outcome.0.chars().count(), "OUTCOME");
    let taken = time + method + outcome + 4 * GAP;
    (stdout_width().unwrap_or(USUAL_WIDTH).saturating_sub(taken) / 2).max(LEAST)
}

fn further(entry: &AuditEntry) -> [Cell; 6] {
    let caller = entry.caller.clone().unwrap_or_default();
    let pid = if caller.pid == 0 { Cell::none() } else { caller.pid.to_string().into() };
    let took = entry.duration.as_ref().and_then(|took| std::time::Duration::try_from(*took).ok());
    let whole = |text: &str| if text.is_empty() { Cell::none() } else { printable(text).into() };
    [
        entry.number.to_string().into(),
        whole(&role(&caller)),
        whole(&caller.from),
        pid,
        took.map_or_else(Cell::none, |took| humane(took).into()),
        whole(&entry.request_id),
    ]
}

/// The role it had, and by what, if not by itself.
fn role(caller: &AuditCaller) -> String {
    match caller.gid {
        Some(gid) => format!("{} (group {gid})", caller.role),
        None => caller.role.clone(),
    }
}

/// Who called, in a word or two.
fn who(caller: &AuditCaller) -> String {
    let named = |kind: &str, name: &str| format!("{kind} {name}");
    let user = || match (caller.user.is_empty(), caller.uid) {
        (false, _) => caller.user.clone(),
        (true, uid) => uid.map_or_else(String::new, |uid| named("uid", &uid.to_string())),
    };
    if !caller.instance.is_empty() {
        named("inside", &caller.instance)
    } else if !caller.certificate.is_empty() {
        named("cert", &caller.certificate)
    } else if !caller.token_file.is_empty() {
        named("token", &caller.token_file)
    } else {
        user()
    }
}

fn outcome(entry: &AuditEntry) -> (String, Style) {
    let times = if entry.calls > 1 { format!(" ×{}", entry.calls) } else { String::new() };
    let (word, look) = match entry.outcome() {
        Outcome::Done if entry.repeat => ("done before".to_owned(), style::GOOD),
        Outcome::Done => ("done".to_owned(), style::GOOD),
        Outcome::Refused => (printable(&entry.reason), style::BAD),
        Outcome::UnderWay => ("under way".to_owned(), style::WARNING),
        Outcome::CallerLeft => ("caller left".to_owned(), style::WARNING),
        Outcome::SupervisorDied => ("supervisor died".to_owned(), style::WARNING),
        Outcome::Lost => ("not recorded".to_owned(), style::BAD),
        Outcome::Unspecified => ("unknown".to_owned(), style::FAINT),
    };
    (word + &times, look)
}

/// At most `most` columns of `text`.
fn cut(text: &str, most: usize) -> Cell {
    match text.chars().count() {
        0 => Cell::none(),
        length if length <= most => text.into(),
        _ => text.chars().take(most.saturating_sub(1)).chain(['…']).collect::<String>().into(),
    }
}
