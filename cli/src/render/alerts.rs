//! Alerts: what is wrong, and how those do who are told of it.

use supervisor_proto::v1::{Alert, AlertSink, GetAlertsResponse, SinkOutcome};

use super::{
    style::{self, INDENT, clause, paint, printable, severity_style, severity_word, stdout_width, wrapped},
    table::{Cell, Side, Table},
    time::{ago, between, humane, now},
};

/// Both.
pub(crate) fn list(answer: &GetAlertsResponse) -> String {
    let mut out = String::new();
    for alert in &answer.alerts {
        one(alert, &mut out);
    }
    if answer.alerts.is_empty() {
        out.push_str(&format!("{}\n", paint(style::GOOD, "nothing is wrong")));
    }
    out.push('\n');
    if answer.sinks.is_empty() {
        let (hint, margin) = (paint(style::HINT, "hint:"), " ".repeat(INDENT));
        out.push_str(&format!(
            "nobody is told of alerts\n{hint} name somebody as `alerts.sinks` in settings.yaml, then\n\
             {margin}`openclawctl supervisor reload` and `openclawctl alerts test`\n"
        ));
        return out;
    }
    sinks(&answer.sinks, &mut out);
    out
}

fn one(alert: &Alert, out: &mut String) {
    let (width, margin) = (stdout_width(), " ".repeat(INDENT));
    let word = paint(severity_style(alert.severity()), &format!("{}:", severity_word(alert.severity())));
    let lasted = alert.begin_time.as_ref().map(|begin| humane(between(begin, &now()))).unwrap_or_default();
    let told = if alert.told { "" } else { ", not told yet" };
    let title = format!("{word} {} ({lasted}{told})", printable(&alert.title));
    out.push_str(&wrapped(&title, width, INDENT));
    out.push('\n');
    if !alert.reason.is_empty() {
        out.push_str(&wrapped(&format!("{margin}{}", clause(&alert.reason)), width, INDENT));
        out.push('\n');
    }
    if !alert.hint.is_empty() {
        out.push_str(&format!("{margin}{} {}\n", paint(style::HINT, "hint:"), printable(&alert.hint)));
    }
}

fn sinks(sinks: &[AlertSink], out: &mut String) {
    let titles = [("SINK", Side::Left), ("KIND", Side::Left), ("TOLD", Side::Left), ("WAITING", Side::Right)];
    let mut table = Table::new(titles.into_iter().chain([("STATE", Side::Left)]));
    for sink in sinks {
        let state = match &sink.fail_time {
            Some(since) => Cell::styled(format!("fails since {}", ago(since)), style::BAD),
            None => Cell::styled("ok", style::GOOD),
        };
        let told = sink.tell_time.as_ref().map_or_else(Cell::none, |time| Cell::from(ago(time)));
        let kind = printable(&sink.kind);
        table.row(vec![
            printable(&sink.name).into(),
            kind.into(),
            told,
            sink.waiting.to_string().into(),
            state,
        ]);
    }
    table.render(out);
    for sink in sinks {
        let name = printable(&sink.name);
        if sink.fail_time.is_some() {
            let told = format!("{name}: {}", clause(&sink.failure));
            out.push_str(&wrapped(&told, stdout_width(), INDENT));
            out.push('\n');
        }
        if sink.dropped > 0 {
            out.push_str(&format!("{name}: {} never arrived\n", sink.dropped));
        }
    }
}

/// What became of a test, a line for each.
pub(crate) fn tested(outcomes: &[SinkOutcome]) -> String {
    let told = |outcome: &SinkOutcome| {
        let name = printable(&outcome.name);
        match outcome.failure.as_str() {
            "" => format!("{} {name} took it\n", paint(style::GOOD, "ok:")),
            why => {
                let told = format!("{} {name}: {}", paint(style::BAD, "failed:"), clause(why));
                format!("{}\n", wrapped(&told, stdout_width(), INDENT))
            }
        }
    };
    outcomes.iter().map(told).collect()
}
