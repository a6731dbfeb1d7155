//! What every command is given: the global options, and the ways out to the supervisor and the terminal.

use std::io::{self, IsTerminal};

use prost::Message;
use supervisor_proto::v1::{Instance, ListInstancesResponse};

use crate::{
    app::{Global, Output},
    connect::{Place, RemoteError, Supervisor, Target, Way},
    error::{Cause, Error, Operation},
    render::{
        json::{Encoder, Encoding},
        status::Breadth,
        style::{self, Marks},
    },
};

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// For people.
    Text(Breadth),
    /// For programs.
    Encoded(Encoding),
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    global: Global,
    /// Whether phases have marks.
    pub(crate) marks: Marks,
    /// How answers are shown.
    pub(crate) show: Show,
}

impl Context {
    /// From the global options.
    pub(crate) fn new(global: Global) -> Self {
        let show = match global.output {
            Output::Table => Show::Text(Breadth::Narrow),
            Output::Wide => Show::Text(Breadth::Wide),
            Output::Json => Show::Encoded(Encoding::Json),
            Output::Yaml => Show::Encoded(Encoding::Yaml),
            Output::Jsonl => Show::Encoded(Encoding::JsonLines),
        };
        Self { global, marks: Marks::for_stdout(), show }
    }

    /// Which supervisor.
    pub(crate) fn target(&self, operation: &Operation) -> Result<Target, Error> {
        Target::resolve(&self.global).map_err(|cause| cause.during(operation))
    }

    /// Where the supervisor is on this host, for what can only be done there.
    pub(crate) fn place(&self, operation: &Operation) -> Result<Place, Error> {
        match self.target(operation)?.way {
            Way::Here(place) => Ok(place),
            Way::There(remote) => Err(Cause::from(RemoteError::Elsewhere(remote.context)).during(operation)),
        }
    }

    /// Connects to the supervisor.
    pub(crate) async fn connect(&self, operation: &Operation) -> Result<Supervisor, Error> {
        let target = self.target(operation)?;
        Supervisor::connect(&target).await.map_err(|cause| cause.during(operation))
    }

    /// Writes an answer to standard output in the form that was asked for.
    pub(crate) fn print(&self, operation: &Operation, text: &str) -> Result<(), Error> {
        match self.show {
            Show::Text(_) => style::print(text).map_err(|error| Cause::Output(error).during(operation)),
            Show::Encoded(_) => self.print_data(operation, text),
        }
    }

    /// Writes what programs read to standard output, whatever form was asked for.
    pub(crate) fn print_data(&self, operation: &Operation, text: &str) -> Result<(), Error> {
        style::print_data(text).map_err(|error| Cause::Output(error).during(operation))
    }

    /// Writes one message of the contract to standard output.
    pub(crate) fn print_message(
        &self,
        operation: &Operation,
        encoding: Encoding,
        name: &'static str,
        message: &impl Message,
    ) -> Result<(), Error> {
        let text = Encoder::new(encoding)
            .and_then(|encoder| encoder.encode(name, message))
            .map_err(|cause| cause.during(operation))?;
        self.print(operation, &text)
    }

    /// Writes instances to standard output: as the contract's list, or one a line.
    pub(crate) fn print_instances(
        &self,
        operation: &Operation,
        encoding: Encoding,
        instances: Vec<Instance>,
        revision: u64,
    ) -> Result<(), Error> {
        let encode = || -> Result<String, Cause> {
            let encoder = Encoder::new(encoding)?;
            match encoding {
                Encoding::JsonLines => {
                    instances.iter().map(|instance| encoder.encode("Instance", instance)).collect()
                }
                Encoding::Json | Encoding::Yaml => {
                    let list = ListInstancesResponse { instances, revision, ..Default::default() };
                    encoder.encode("ListInstancesResponse", &list)
                }
            }
        };
        let text = encode().map_err(|cause| cause.during(operation))?;
        self.print(operation, &text)
    }
}

/// Whether `--yes` was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Given,
    ToBeAsked,
}

impl Consent {
    /// From the flag.
    pub(crate) fn from_flag(yes: bool) -> Self {
        if yes { Self::Given } else { Self::ToBeAsked }
    }

    /// Asks whether to `what`, e.g. "remove rescue", on the terminal. Anything but a yes is a no.
    pub(crate) fn obtain(self, what: &str, operation: &Operation) -> Result<(), Error> {
        if self == Self::Given {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Cause::Unconfirmed { what: what.to_owned() }.during(operation));
        }
        let ask = || -> io::Result<bool> {
            style::ask(&format!("This will {what}. Go on? [y/N]"))?;
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
        };
        match ask() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Cause::Declined.during(operation)),
            Err(source) => Err(Cause::Output(source).during(operation)),
        }
    }
}
