//! `openclawctl maintenance`: hands off while somebody works on an instance.

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use prost_types::FieldMask;
use supervisor_proto::v1::{InstanceSpec, UpdateInstanceRequest};

use super::verb::{self, Answer};
use crate::{
    complete,
    connect::{Supervisor, request_id},
    context::Context,
    error::{Failure, Operation},
    render::style::talk_wrapped,
    wait::Patience,
};

const EXAMPLES: &str = "\
Examples:
  openclawctl maintenance on main    before work on its configuration
  openclawctl maintenance off main   when that is done

A gateway that dies meanwhile is restarted, and its rescue stands in. It is not
repaired, its configuration is not put back, and it is not given up.";

/// Hold repairs and rollbacks while somebody works on an instance
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Maintenance {
    /// on or off
    #[arg(value_enum, hide_possible_values = true)]
    switch: Switch,
    /// The instances
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::instances))]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Turns it on or off. The gateways run on as they are.
pub(crate) async fn run(args: &Maintenance, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("switch maintenance");
    let supervisor = context.connect(&operation).await?;
    let answers = verb::ask_all(&args.names, async |name| switch(&supervisor, name, args.switch).await).await;
    for target in answers.iter().flatten() {
        let name = &target.instance.name;
        let told = match args.switch {
            Switch::On => format!("{name}: in maintenance: not repaired, rolled back or given up"),
            Switch::Off => format!("{name}: out of maintenance"),
        };
        talk_wrapped(&told);
    }
    verb::finish(context, &supervisor, "switch maintenance of", answers, Patience::None).await
}

async fn switch(supervisor: &Supervisor, name: &str, switch: Switch) -> Answer {
    let operation = Operation::on("switch maintenance of", name);
    let request = UpdateInstanceRequest {
        name: name.to_owned(),
        spec: Some(InstanceSpec { maintenance: switch == Switch::On, ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["maintenance".to_owned()] }),
        request_id: request_id(),
        ..Default::default()
    };
    let answer = supervisor
        .call(&operation, async || supervisor.instances().update_instance(request.clone()).await)
        .await?;
    verb::target(answer.instance, answer.revision, &operation)
}
