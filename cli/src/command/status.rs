//! `openclawctl status`.

mod watch;

use clap::Args;
use clap_complete::ArgValueCompleter;
use supervisor_proto::v1::{Event, GetInfoRequest, GetInstanceRequest, Instance, ListEventsRequest};

use super::verb::{self, few};
use crate::{
    complete,
    connect::Supervisor,
    context::{Context, Show},
    error::{Error, Failure, Operation},
    render::{
        detail::{self, Story},
        fleet::{self, Look},
        style::stdout_width,
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl status             the fleet, what is not well, and what to type
  openclawctl status main        everything about main, and why it is so
  openclawctl status --watch     the same, for as long as you look; Ctrl-C ends it
  openclawctl status -o wide     more columns
  openclawctl status -o jsonl    one JSON object a line, for programs
  openclawctl status --watch -o json
                                 a line for each instance, and again when it
                                 changes; one that is removed has no status";

/// The last events that are asked for: some of them are shown, and its last exits are among them.
const EVENTS: i32 = 50;

/// Show the fleet, or everything about one instance
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// One instance to tell everything about, or several to list
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
    /// Go on with what becomes of it, in the same place
    #[arg(short, long)]
    watch: bool,
}

/// Shows what is.
pub(crate) async fn run(args: &Status, context: &Context) -> Result<(), Failure> {
    match args.names.as_slice() {
        names if args.watch => watched(context, names).await?,
        [] => all(context).await?,
        [name] => one(context, name).await?,
        names => several(context, names).await?,
    }
    Ok(())
}

async fn all(context: &Context) -> Result<(), Error> {
    let operation = Operation::new("read the status");
    let supervisor = context.connect(&operation).await?;
    match context.show {
        Show::Encoded(encoding) => {
            let (instances, revision) = supervisor.list(&operation).await?;
            context.print_instances(&operation, encoding, instances, revision)
        }
        Show::Text(breadth) => {
            let info =
                supervisor.call(&operation, async || supervisor.system().get_info(GetInfoRequest {}).await);
            let look = Look { breadth, marks: context.marks, width: stdout_width() };
            let (info, listed) = tokio::try_join!(info, supervisor.list(&operation))?;
            context.print(&operation, &fleet::page(&listed.0, &info.alarms, look))
        }
    }
}

/// Names that are not known are refused before anything is shown.
async fn watched(context: &Context, names: &[String]) -> Result<(), Error> {
    let operation = Operation::new("watch the status");
    let supervisor = context.connect(&operation).await?;
    for name in names {
        get(&supervisor, name).await?;
    }
    watch::run(names, supervisor, context, &operation).await
}

async fn one(context: &Context, name: &str) -> Result<(), Error> {
    let operation = Operation::on("read the status of", name);
    let supervisor = context.connect(&operation).await?;
    let instance = get(&supervisor, name).await?;
    match context.show {
        Show::Encoded(encoding) => context.print_message(&operation, encoding, "Instance", &instance),
        Show::Text(_) => {
            let events = last_events(&supervisor, name, &operation).await?;
            let mut text = String::new();
            let story = Story { instance: &instance, events: &events, trend: None };
            detail::sheet(&story, context.marks, stdout_width(), &mut text);
            context.print(&operation, &text)
        }
    }
}

async fn several(context: &Context, names: &[String]) -> Result<(), Error> {
    let operation = Operation::new(format!("read the status of {}", few(names)));
    let supervisor = context.connect(&operation).await?;
    let mut instances = Vec::new();
    for name in names {
        instances.push(get(&supervisor, name).await?);
    }
    verb::show(context, &instances, 0, &operation)
}

async fn get(supervisor: &Supervisor, name: &str) -> Result<Instance, Error> {
    let operation = Operation::on("read the status of", name);
    let answer = supervisor
        .call(&operation, async || {
            supervisor.instances().get_instance(GetInstanceRequest { name: name.to_owned() }).await
        })
        .await?;
    verb::target(answer.instance, answer.revision, &operation).map(|target| target.instance)
}

async fn last_events(
    supervisor: &Supervisor,
    name: &str,
    operation: &Operation,
) -> Result<Vec<Event>, Error> {
    let request = ListEventsRequest {
        instance: name.to_owned(),
        page_size: EVENTS,
        newest: true,
        ..Default::default()
    };
    let answer =
        supervisor.call(operation, async || supervisor.events().list_events(request.clone()).await).await?;
    Ok(answer.events)
}
