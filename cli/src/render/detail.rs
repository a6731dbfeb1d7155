//! Everything about one instance, and why it is so.

use prost_types::Timestamp;
use supervisor_proto::v1::{Event, Exit, Instance, PortBlock, Resources, Role, Runtime, exit::How};

use super::{
    config, notes,
    sheet::Sheet,
    status::{bytes, uptime},
    style::{self, Marks, clause, paint, phase_look, phase_word, printable},
    time::{Clock, ago, between, humane, now, until},
    trend::Trend,
    walls,
};
use crate::view;

/// The last events that are shown.
const EVENTS: usize = 5;
/// Exits that are shown.
const EXITS: usize = 3;
/// The machine name of the event of an exit.
const EXITED: &str = "instance.exited";

/// One instance, and what is known of its past.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Story<'a> {
    pub(crate) instance: &'a Instance,
    /// Its last ones, in rising order.
    pub(crate) events: &'a [Event],
    /// What it has used, if that was watched.
    pub(crate) trend: Option<&'a Trend>,
}

/// Appends everything about an instance to `out`, in lines of `width` if there is one.
pub(crate) fn sheet(story: &Story<'_>, marks: Marks, width: Option<usize>, out: &mut String) {
    let Story { instance, events, trend } = *story;
    let clock = Clock::local();
    heading(instance, marks, out);
    let mut sheet = Sheet::within(width, out);
    why(instance, &mut sheet);
    exits(instance, events, &clock, &mut sheet);
    sheet.gap();
    process(instance, &clock, &mut sheet);
    used(instance, trend, marks, &mut sheet);
    for (index, line) in walls::lines(instance).iter().enumerate() {
        sheet.line(if index == 0 { "walls" } else { "" }, line);
    }
    if let Some(block) = &view::status(instance).ports {
        ports(block, &mut sheet);
    }
    sheet.gap();
    places(instance, &mut sheet);
    if !events.is_empty() {
        out.push_str(&format!("\n{}\n", paint(style::STRONG, "Last events")));
        for event in &events[events.len().saturating_sub(EVENTS)..] {
            let (before, indent) = event_head(event, &clock);
            out.push_str(&style::wrapped(
                &format!("{before}{}", clause(&event.message)),
                width,
                style::hanging(indent, width),
            ));
            out.push('\n');
        }
    }
}

fn heading(instance: &Instance, marks: Marks, out: &mut String) {
    let status = view::status(instance);
    let phase = status.phase();
    let (mark, look) = phase_look(phase);
    let state = match marks {
        Marks::Shown => format!("{mark} {}", phase_word(phase)),
        Marks::Hidden => phase_word(phase).to_owned(),
    };
    out.push_str(&format!("{}  {}", paint(style::STRONG, &printable(&instance.name)), paint(look, &state)));
    if let Some(since) = view::since(instance) {
        out.push_str(&format!(" for {}", humane(between(since, &now()))));
    }
    out.push('\n');
}

fn why(instance: &Instance, sheet: &mut Sheet<'_>) {
    let status = view::status(instance);
    sheet.line("why", &clause(&status.reason));
    if let Some(next) = &status.next_start_time {
        sheet.line("next start", &until(next));
    }
    if view::runs_old_spec(instance) {
        sheet.line("spec", "the process runs an older spec than was asked for");
    }
    let hint = printable(status.hint.trim());
    let hint = if hint.is_empty() {
        notes::attention(instance).map(|(_, hint)| hint).unwrap_or_default()
    } else {
        hint
    };
    sheet.line("to do", &hint);
    let wish = match status.wish() {
        supervisor_proto::v1::Wish::Unspecified => "",
        supervisor_proto::v1::Wish::Up => "up",
        supervisor_proto::v1::Wish::Down => "down",
    };
    sheet.line("degraded", &config::degraded(instance));
    sheet.line("", &config::way_out(instance));
    let problem = status.config.as_ref().map(|config| clause(&config.problem)).unwrap_or_default();
    if !problem.is_empty() {
        sheet.line("broken", &format!("{}: {problem}", config::BROKEN));
    }
    sheet.line("ladder", &config::ladder(instance));
    sheet.line("wish", wish);
    sheet.line("role", &role(instance));
    for line in notes::failovers(std::slice::from_ref(instance)) {
        sheet.line("failover", &line);
    }
    if let Some(health) = &status.health {
        sheet.line("health", &healthy(health));
    }
}

/// How its lives have ended, the last one first. A supervisor that has just been started knows of them by the history.
fn exits(instance: &Instance, events: &[Event], clock: &Clock, sheet: &mut Sheet<'_>) {
    let last = view::status(instance).last_exit.as_ref();
    let before = last.map_or(u64::MAX, |last| last.incarnation);
    let ended = |event: &&Event| event.r#type == EXITED && event.incarnation < before;
    let told = |event: &Event| exit(&clause(&event.message), event.time.as_ref(), event.incarnation, clock);
    let earlier = events.iter().rev().filter(ended).map(told);
    let all = last.map(|last| last_exit(last, clock)).into_iter().chain(earlier);
    for (at, line) in all.take(EXITS).enumerate() {
        sheet.line(if at == 0 { "last exit" } else { "" }, &line);
    }
}

/// E.g. "killed by SIGKILL, 03:12:05 (4m ago), incarnation 7".
fn exit(how: &str, time: Option<&Timestamp>, incarnation: u64, clock: &Clock) -> String {
    let when = time.map(|at| format!(", {} ({})", clock.time(at), ago(at))).unwrap_or_default();
    format!("{how}{when}, incarnation {incarnation}")
}

fn role(instance: &Instance) -> String {
    let failover = view::failover(instance);
    let word = style::role_word(failover.role());
    let rescues = instance.spec.as_ref().map(|spec| spec.rescues.join(", ")).unwrap_or_default();
    match failover.role() {
        Role::Unspecified | Role::Single => String::new(),
        Role::Primary | Role::Rescued => format!("{word}, rescued by {}", failover.rescued_by.join(", ")),
        Role::Standby | Role::Promoting => format!("{word} for {rescues}"),
        Role::Active => format!("{word} for {}", failover.active_for.join(", ")),
    }
}

fn healthy(health: &supervisor_proto::v1::Health) -> String {
    let mut text = match (health.live, health.ready) {
        (true, true) => "live, ready".to_owned(),
        (true, false) => "live, not ready".to_owned(),
        (false, _) => "not live".to_owned(),
    };
    if !health.failing.is_empty() {
        text.push_str(&format!("; failing: {}", printable(&health.failing.join(", "))));
    }
    if health.consecutive_failures > 0 {
        text.push_str(&format!("; {} failures in a row", health.consecutive_failures));
    }
    let message = clause(&health.message);
    if message.is_empty() { text } else { format!("{text}: {message}") }
}

fn last_exit(exit: &Exit, clock: &Clock) -> String {
    let how = match &exit.how {
        _ if !exit.message.is_empty() => clause(&exit.message),
        Some(How::Code(code)) => format!("status {code}"),
        Some(How::Signal(signal)) => format!("killed by signal {signal}"),
        Some(How::Unknown(why)) => format!("unknown: {}", clause(why)),
        None => "unknown".to_owned(),
    };
    let core = if exit.core_dumped { ", core dumped" } else { "" };
    self::exit(&format!("{how}{core}"), exit.time.as_ref(), exit.incarnation, clock)
}

fn process(instance: &Instance, clock: &Clock, sheet: &mut Sheet<'_>) {
    let status = view::status(instance);
    let runtime = match (status.runtime(), clause(&status.runtime_note)) {
        (Runtime::Unspecified, note) => note,
        (runtime, note) if note.is_empty() => view::runtime_word(runtime).to_owned(),
        (runtime, note) => format!("{}: {note}", view::runtime_word(runtime)),
    };
    sheet.line("runtime", &runtime);
    if status.pid != 0 {
        let incarnation = status.incarnation;
        sheet.line(
            "process",
            &format!("pid {}, worker {}, incarnation {incarnation}", status.pid, status.worker_pid),
        );
    }
    if let (Some(uptime), Some(start)) = (uptime(instance), &status.start_time) {
        sheet.line("uptime", &format!("{uptime}, since {}", clock.time(start)));
    }
    sheet.line("restarts", &status.restarts.to_string());
}

/// What its processes use and, if that was watched, how that has changed.
fn used(instance: &Instance, trend: Option<&Trend>, marks: Marks, sheet: &mut Sheet<'_>) {
    let Some(used) = &view::status(instance).resources else { return };
    let processes = if used.processes == 1 { "process" } else { "processes" };
    let memory = format!("{}{}", bytes(used.rss_bytes), growth(used));
    let bars =
        |of: fn(&Trend, Marks) -> String| trend.map(|trend| of(trend, marks)).filter(|bars| !bars.is_empty());
    match (bars(Trend::cpu), bars(Trend::memory)) {
        (Some(cpu), Some(rss)) => {
            sheet.line("cpu", &format!("{cpu} {:.1}%, {} {processes}", used.cpu_percent, used.processes));
            sheet.line("memory", &format!("{rss} {memory}"));
        }
        (_, _) => {
            sheet.line(
                "uses",
                &format!("{:.1}% CPU, {memory}, {} {processes}", used.cpu_percent, used.processes),
            );
        }
    }
    sheet.line("", &clause(&used.recycle));
}

/// E.g. " (12 MiB more an hour)".
fn growth(used: &Resources) -> String {
    match used.rss_growth_bytes_per_hour {
        None | Some(0) => String::new(),
        Some(more @ 1..) => format!(" ({} more an hour)", bytes(more.unsigned_abs())),
        Some(less) => format!(" ({} less an hour)", bytes(less.unsigned_abs())),
    }
}

fn ports(block: &PortBlock, sheet: &mut Sheet<'_>) {
    sheet.line("ports", &format!("{} to {}", block.base, block.last));
    let mut port = |what: &str, port: u32| {
        if port != 0 {
            sheet.line("", &format!("{port} {what}"));
        }
    };
    port("gateway", block.gateway);
    port("browser control", block.browser_control);
    port("canvas", block.canvas);
    if block.cdp_first != 0 {
        sheet.line("", &format!("{} to {} CDP", block.cdp_first, block.cdp_last));
    }
}

fn places(instance: &Instance, sheet: &mut Sheet<'_>) {
    let Some(places) = &view::status(instance).directories else { return };
    for (label, place) in [
        ("config", &places.config),
        ("state", &places.state),
        ("workspace", &places.workspace),
        ("home", &places.home),
        ("tmp", &places.tmp),
        ("logs", &places.logs),
    ] {
        sheet.line(label, &printable(place));
        if label == "config" {
            config::story(instance).iter().for_each(|line| sheet.line("", line));
        }
    }
}

/// What stands before an event's message, and its width.
fn event_head(event: &Event, clock: &Clock) -> (String, usize) {
    let severity = event.severity();
    let time = event.time.as_ref().map_or_else(|| "-".to_owned(), |time| clock.time(time));
    let word = format!("{:7}", style::severity_word(severity));
    let indent = 2 + time.len() + 2 + word.len() + 2;
    (format!("  {time}  {}  ", paint(style::severity_style(severity), &word)), indent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_in_words_and_only_where_there_is_any() {
        let told = |hourly| growth(&Resources { rss_growth_bytes_per_hour: hourly, ..Resources::default() });
        assert_eq!(told(Some(12 << 20)), " (12 MiB more an hour)");
        assert_eq!(told(Some(-(3 << 30))), " (3.0 GiB less an hour)");
        assert_eq!([told(None), told(Some(0))], ["", ""]);
    }
}
