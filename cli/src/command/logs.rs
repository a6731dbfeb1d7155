//! `openclawctl logs`: what a gateway printed, byte for byte.

use std::{
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
    str::FromStr,
    time::Duration,
};

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{LogLine, ReadLogsRequest};

use super::follow::Reconnect;
use crate::{
    complete,
    context::{Context, Show},
    error::{Cause, Failure, Operation},
    render::{
        json::{Encoder, Encoding},
        status::bytes,
        style::{printable_line, printable_text, talk},
        time::{Clock, before_now},
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl logs main                 its last 100 lines
  openclawctl logs main -f              and what follows, across restarts of gateway and supervisor
  openclawctl logs main --since 10m -t  the last ten minutes, each line with its time
  openclawctl logs main -n all          everything that is kept

Lines are printed byte for byte. With -o json, as with jsonl, each line is one object.";

/// Lines shown when nothing else is asked for.
const USUAL_TAIL: u64 = 100;

/// Print what an instance's gateway printed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// The instance
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: String,
    /// Go on with what is printed from now on
    #[arg(short, long)]
    follow: bool,
    /// Begin with this many last lines, or `all` [default: 100, or all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<Tail>,
    /// Only what was printed in this last time, e.g. 5m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
}

/// `--tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Lines(u64),
    All,
}

impl FromStr for Tail {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Lines) }
    }
}

impl Logs {
    fn request(&self) -> ReadLogsRequest {
        let tail = match (self.tail, self.since) {
            (Some(Tail::Lines(lines)), _) => Some(lines),
            (Some(Tail::All), _) | (None, Some(_)) => None,
            (None, None) => Some(USUAL_TAIL),
        };
        ReadLogsRequest {
            name: self.name.clone(),
            tail,
            since: self.since.map(before_now),
            after_cursor: String::new(),
            follow: self.follow,
        }
    }
}

/// How lines are written.
enum Form {
    Raw,
    Stamped(Clock),
    Encoded(Encoder),
}

struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    on_terminal: bool,
    form: Form,
}

/// A line without what would move the cursor, rename the window or write the clipboard.
fn shown(line: &[u8]) -> String {
    printable_line(&String::from_utf8_lossy(line))
}

impl Printer {
    fn print(&mut self, line: &LogLine) -> Result<(), Cause> {
        match &self.form {
            Form::Encoded(encoder) => {
                let text = encoder.encode_item("LogLine", line)?;
                let text = if self.on_terminal { printable_text(&text) } else { text };
                self.out.write_all(text.as_bytes())?;
                return Ok(());
            }
            Form::Raw | Form::Stamped(_) if line.gap_bytes > 0 => {
                self.out.flush()?;
                talk(&format!("({} were rotated away before they were read)", bytes(line.gap_bytes)));
                return Ok(());
            }
            Form::Raw => {}
            Form::Stamped(clock) => {
                let stamp = line.time.as_ref().map_or_else(|| "-".to_owned(), |time| clock.stamp(time));
                write!(self.out, "{stamp}  ")?;
            }
        }
        // What a gateway prints is its agent's to choose, and a terminal does what it is told.
        match self.on_terminal {
            true => self.out.write_all(shown(&line.text).as_bytes())?,
            false => self.out.write_all(&line.text)?,
        }
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

/// Prints lines until they end, or for as long as it is followed.
pub(crate) async fn run(args: &Logs, context: &Context) -> Result<(), Failure> {
    let operation = Operation::on("read the logs of", &args.name);
    let fail = |cause: Cause| Failure::from(cause.during(&operation));
    let form = match context.show {
        Show::Encoded(Encoding::Yaml) => Form::Encoded(Encoder::new(Encoding::Yaml).map_err(fail)?),
        // A stream has no end that could close a list: one object a line.
        Show::Encoded(Encoding::Json | Encoding::JsonLines) => {
            Form::Encoded(Encoder::new(Encoding::JsonLines).map_err(fail)?)
        }
        Show::Text(_) if args.timestamps => Form::Stamped(Clock::local()),
        Show::Text(_) => Form::Raw,
    };
    let stdout = io::stdout();
    let mut printer = Printer { out: BufWriter::new(stdout.lock()), on_terminal: stdout.is_terminal(), form };
    let supervisor = context.connect(&operation).await?;
    let mut request = args.request();
    let mut reconnect = Reconnect::new();
    loop {
        let mut client = supervisor.logs();
        let broken = match client.read_logs(request.clone()).await {
            Err(status) => Cause::from(status),
            Ok(stream) => {
                reconnect.answered();
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(batch)) => {
                            for line in &batch.lines {
                                printer.print(line).map_err(fail)?;
                                request.after_cursor.clone_from(&line.cursor);
                            }
                            printer.out.flush().map_err(|error| fail(Cause::Output(error)))?;
                        }
                        Ok(None) if !args.follow => return Ok(()),
                        Ok(None) => break Cause::Broken("the stream ended".to_owned()),
                        Err(status) => break Cause::from(status),
                    }
                }
            }
        };
        if !args.follow || !broken.may_pass() {
            return Err(supervisor.explain(broken, &operation).await.into());
        }
        reconnect.broke(broken, &operation).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_a_line() {
        assert_eq!(
            shown(b"\x1b]52;c;aGk=\x07\tok\r\x1b[2J\xff"),
            "\u{fffd}]52;c;aGk=\u{fffd}\tok\u{fffd}\u{fffd}[2J\u{fffd}"
        );
    }
}
