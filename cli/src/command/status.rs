//! `openclawctl status`.

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
        detail,
        notes::{self, attention},
        status::{self, Breadth},
        style::{self, INDENT, paint, stdout_width, wrapped},
        walls,
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl status             the fleet, what is not well, and what to type
  openclawctl status main        everything about main, and why it is so
  openclawctl status -o wide     more columns
  openclawctl status -o jsonl    one JSON object a line, for programs";

/// How many instances that are not well are explained; the table shows them all.
const EXPLAINED: usize = 20;
/// The last events shown for one instance.
const EVENTS: i32 = 5;

/// Show the fleet, or everything about one instance
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// One instance to tell everything about, or several to list
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
}

/// Shows what is.
pub(crate) async fn run(args: &Status, context: &Context) -> Result<(), Failure> {
    match args.names.as_slice() {
        [] => fleet(context).await?,
        [name] => one(context, name).await?,
        names => several(context, names).await?,
    }
    Ok(())
}

async fn fleet(context: &Context) -> Result<(), Error> {
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
            let (info, listed) = tokio::try_join!(info, supervisor.list(&operation))?;
            context.print(&operation, &page(&listed.0, &info.alarms, breadth, context))
        }
    }
}

/// The fleet on one page: alarms, the table, who stands in for whom, what is not well, the sum.
fn page(instances: &[Instance], alarms: &[String], breadth: Breadth, context: &Context) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let width = stdout_width();
    let line = |line: &str| wrapped(line, width, INDENT) + "\n";
    let lines = |lines: Vec<String>| lines.iter().map(|each| line(each)).collect::<String>();
    blocks.push(lines(notes::alarms(alarms)));
    if !instances.is_empty() {
        let mut table = String::new();
        status::table(instances, breadth, context.marks, &mut table);
        blocks.push(table);
    }
    let failovers =
        notes::failovers(instances).into_iter().map(|line| paint(style::WARNING, &line)).collect();
    blocks.push(lines(failovers));
    let mut unwell = instances.iter().filter_map(attention);
    for (why, hint) in unwell.by_ref().take(EXPLAINED) {
        blocks.push(format!("{}  {} {hint}\n", line(&why), paint(style::HINT, "hint:")));
    }
    let more = unwell.count();
    if more > 0 {
        blocks.push(format!("and {more} more that are not well\n"));
    }
    let mut end = notes::runtimes(instances);
    end.extend(walls::gaps(instances));
    end.push(notes::summary(instances));
    if instances.is_empty() {
        end.push(format!("{} openclawctl up main", paint(style::HINT, "hint:")));
    }
    blocks.push(lines(end));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
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
            detail::sheet(&instance, &events, context.marks, stdout_width(), &mut text);
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
