//! `openclawctl explain`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};

use crate::{
    context::{Context, Show},
    error::{Cause, Failure, Operation},
    explain::{self, Page},
    render::{
        explain as render,
        json::{self, Encoding},
    },
};

const EXAMPLES: &str = "\
Examples:
  openclawctl explain                  every word there is a page of
  openclawctl explain PORT_OVERLAP     a refusal
  openclawctl explain instance.exited  a kind of event (events -o wide)
  openclawctl explain state.shut       a finding of the doctor
  openclawctl explain backoff          a phase
  openclawctl explain files            a wall

It needs no supervisor.";

/// Say what a refusal, event, finding or phase means
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// The word; without it, the list of them
    #[arg(value_name = "WORD", add = ArgValueCompleter::new(explain::candidates))]
    word: Option<String>,
}

/// Prints a page, or the list.
pub(crate) fn run(args: &Explain, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("explain");
    let found = match &args.word {
        None => None,
        Some(word) => match explain::page(word) {
            Some(page) => Some(page),
            None => {
                let operation = Operation::new(format!("explain `{word}`"));
                let hint = match explain::nearest(word).as_slice() {
                    [] => "openclawctl explain".to_owned(),
                    near => format!("did you mean `{}`?", near.join("`, or `")),
                };
                return Err(Cause::Nothing { what: "page about it", hint }.during(&operation).into());
            }
        },
    };
    let text = match context.show {
        Show::Text(_) => found.as_ref().map_or_else(|| render::list(&explain::pages()), render::page),
        Show::Encoded(encoding) => {
            encoded(found.as_ref(), encoding).map_err(|cause| cause.during(&operation))?
        }
    };
    Ok(context.print(&operation, &text)?)
}

fn encoded(found: Option<&Page>, encoding: Encoding) -> Result<String, Cause> {
    if let Some(page) = found {
        return json::text(encoding, &render::value(page));
    }
    let all: Vec<Value> = explain::pages().iter().map(render::value).collect();
    match encoding {
        Encoding::JsonLines => all.iter().map(|value| json::text(encoding, value)).collect(),
        Encoding::Json | Encoding::Yaml => json::text(encoding, &json!({ "pages": all })),
    }
}
