//! Events as lines, whose columns keep their widths while more come.

use supervisor_proto::v1::Event;

use super::{
    status::Breadth,
    style::{self, clause, paint, printable, stdout_width, wrapped},
    time::Clock,
};

/// The widest severity.
const SEVERITY: usize = 7;

/// Turns events into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    clock: Clock,
    /// Of the terminal.
    width: Option<usize>,
    breadth: Breadth,
    time: usize,
    instance: usize,
    kind: usize,
}

impl Lines {
    /// For events of this host, told in its time zone, on standard output.
    pub(crate) fn new(breadth: Breadth) -> Self {
        Self::within(breadth, stdout_width())
    }

    /// The same in lines of `width`, if there is one.
    pub(crate) fn within(breadth: Breadth, width: Option<usize>) -> Self {
        Self { clock: Clock::local(), width, breadth, time: 0, instance: 0, kind: 0 }
    }

    /// A line for each event.
    pub(crate) fn text(&mut self, events: &[Event]) -> String {
        let told: Vec<(String, &Event)> = events.iter().map(|event| (self.time_of(event), event)).collect();
        for (time, event) in &told {
            self.time = self.time.max(time.len());
            self.instance = self.instance.max(subject(event).chars().count());
            self.kind = self.kind.max(event.r#type.len());
        }
        told.iter().map(|(time, event)| self.line(time, event)).collect()
    }

    fn time_of(&self, event: &Event) -> String {
        event.time.as_ref().map_or_else(|| "-".to_owned(), |time| self.clock.time(time))
    }

    fn line(&self, time: &str, event: &Event) -> String {
        let severity = event.severity();
        let look = style::severity_style(severity);
        let severity = paint(look, &format!("{:SEVERITY$}", style::severity_word(severity)));
        let instance = paint(style::STRONG, &format!("{:width$}", subject(event), width = self.instance));
        let time = format!("{time:>width$}", width = self.time);
        let (head, indent) = match self.breadth {
            Breadth::Narrow => {
                (format!("{time}  {instance}  {severity}  "), self.time + self.instance + SEVERITY + 6)
            }
            Breadth::Wide => {
                let kind = format!("{:width$}", printable(&event.r#type), width = self.kind);
                let (revision, incarnation) = (event.revision, event.incarnation);
                let incarnation = if incarnation == 0 { "-".to_owned() } else { format!("#{incarnation}") };
                (format!("{revision:>8}  {time}  {instance}  {incarnation:>5}  {severity}  {kind}  "), 4)
            }
        };
        wrapped(&format!("{head}{}", clause(&event.message)), self.width, style::hanging(indent, self.width))
            + "\n"
    }
}

/// Whom an event is about.
pub(super) fn subject(event: &Event) -> String {
    if event.instance.is_empty() { "supervisor".to_owned() } else { printable(&event.instance) }
}
