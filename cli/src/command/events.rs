//! `openclawctl events`: the journal of what happened.

mod explain;

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{
    Event, GetInfoRequest, GetInstanceRequest, ListEventsRequest, ListEventsResponse, WatchEventsRequest,
};

use self::explain::Wanted;
use super::follow::Reconnect;
use crate::{
    complete,
    connect::Supervisor,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        events::Lines,
        json::{Encoder, Encoding},
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl events                     the last 50
  openclawctl events main -f             what happens to main, as it happens
  openclawctl events --after 1234        everything later than revision 1234
  openclawctl events -o wide             with revisions and machine names
  openclawctl events --explain 1234      how it came to it, and what came of it
  openclawctl events main --explain last
                                         the same for main's last warning";

/// Events shown when nothing else is asked for.
const USUAL: u16 = 50;
/// Of one page, when all that is later than a revision is read.
const PAGE: i32 = 1_000;

/// Show what happened
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Events {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Everything later than this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "number")]
    after: Option<u64>,
    /// How it came to one event, by its revision or `last`, and what came of it
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["follow", "after", "number"])]
    explain: Option<Wanted>,
    /// Only what happened to this instance
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    name: Option<String>,
    /// The same
    #[arg(long, value_name = "NAME", hide = true, conflicts_with = "name", add = ArgValueCompleter::new(complete::instances))]
    instance: Option<String>,
    /// This many of the last ones
    #[arg(short, long, value_name = "N", default_value_t = USUAL, value_parser = clap::value_parser!(u16).range(1..=1000))]
    number: u16,
}

impl Events {
    fn instance(&self) -> Option<&str> {
        self.name.as_deref().or(self.instance.as_deref())
    }
}

/// Where events go.
enum Printer {
    Lines(Lines),
    Encoded(Encoder),
}

impl Printer {
    fn print(&mut self, context: &Context, events: &[Event], operation: &Operation) -> Result<(), Error> {
        let text = match self {
            Self::Lines(lines) => lines.text(events),
            Self::Encoded(encoder) => events
                .iter()
                .map(|event| encoder.encode_item("Event", event))
                .collect::<Result<String, Cause>>()
                .map_err(|cause| cause.during(operation))?,
        };
        context.print(operation, &text)
    }
}

/// Shows events, and follows them if asked.
pub(crate) async fn run(args: &Events, context: &Context) -> Result<(), Failure> {
    let operation = match args.instance() {
        Some(name) => Operation::on("read the events of", name),
        None => Operation::new("read the events"),
    };
    let supervisor = context.connect(&operation).await?;
    if let Some(wanted) = args.explain {
        return Ok(explain::run(wanted, args.instance(), &supervisor, context).await?);
    }
    let whole = match context.show {
        Show::Encoded(encoding @ (Encoding::Json | Encoding::Yaml)) if !args.follow => Some(encoding),
        Show::Encoded(_) | Show::Text(_) => None,
    };
    if let Some(encoding) = whole {
        let mut all = ListEventsResponse::default();
        list(args, &supervisor, &operation, &mut |events| {
            all.events.extend(events);
            Ok(())
        })
        .await?;
        return Ok(context.print_message(&operation, encoding, "ListEventsResponse", &all)?);
    }
    let mut printer = match context.show {
        Show::Text(breadth) => Printer::Lines(Lines::new(breadth)),
        Show::Encoded(encoding) => {
            let encoding = if encoding == Encoding::Json { Encoding::JsonLines } else { encoding };
            Printer::Encoded(Encoder::new(encoding).map_err(|cause| cause.during(&operation))?)
        }
    };
    // Asked before the list, for a watch that begins after an empty one: nothing falls between them.
    let begin = if args.follow { revision(&supervisor, &operation).await? } else { 0 };
    let mut last = args.after.unwrap_or(begin);
    list(args, &supervisor, &operation, &mut |events| {
        last = events.last().map_or(last, |event| event.revision);
        printer.print(context, &events, &operation)
    })
    .await?;
    if args.follow {
        follow(args, context, &supervisor, last, &mut printer, &operation).await?;
    }
    Ok(())
}

async fn revision(supervisor: &Supervisor, operation: &Operation) -> Result<u64, Error> {
    let info =
        supervisor.call(operation, async || supervisor.system().get_info(GetInfoRequest {}).await).await?;
    Ok(info.revision)
}

/// Hands over the events that are asked for, page by page. One that is gone may still have events; where there are
/// none, the name may be wrong.
async fn list(
    args: &Events,
    supervisor: &Supervisor,
    operation: &Operation,
    take: &mut impl FnMut(Vec<Event>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut request = ListEventsRequest {
        after_revision: args.after.unwrap_or_default(),
        instance: args.instance().unwrap_or_default().to_owned(),
        page_size: if args.after.is_some() { PAGE } else { args.number.into() },
        page_token: String::new(),
        newest: args.after.is_none(),
    };
    let mut any = false;
    loop {
        let answer = supervisor
            .call(operation, async || supervisor.events().list_events(request.clone()).await)
            .await?;
        let is_last = answer.next_page_token.is_empty() || answer.events.is_empty() || request.newest;
        any |= !answer.events.is_empty();
        take(answer.events)?;
        if is_last {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    if let (false, Some(name)) = (any, args.instance()) {
        let request = GetInstanceRequest { name: name.to_owned() };
        supervisor
            .call(operation, async || supervisor.instances().get_instance(request.clone()).await)
            .await?;
    }
    Ok(())
}

/// Shows what happens after `last`, for as long as there is a supervisor.
async fn follow(
    args: &Events,
    context: &Context,
    supervisor: &Supervisor,
    mut last: u64,
    printer: &mut Printer,
    operation: &Operation,
) -> Result<(), Error> {
    let mut reconnect = Reconnect::new();
    loop {
        let request = WatchEventsRequest {
            after_revision: last,
            instance: args.instance().unwrap_or_default().to_owned(),
        };
        let mut client = supervisor.events();
        let broken = match client.watch_events(request).await {
            Err(status) => Cause::from(status),
            Ok(stream) => {
                reconnect.answered();
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(batch)) => {
                            last = last.max(batch.revision);
                            let events: Vec<Event> = batch.events;
                            last = events.iter().fold(last, |last, event| last.max(event.revision));
                            printer.print(context, &events, operation)?;
                        }
                        Ok(None) => break Cause::Broken("the stream ended".to_owned()),
                        Err(status) => break Cause::from(status),
                    }
                }
            }
        };
        if !broken.may_pass() {
            return Err(supervisor.explain(broken, operation).await);
        }
        reconnect.broke(broken, operation).await?;
    }
}
