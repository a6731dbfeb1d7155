//! The commands beside the gateway: each does one thing, prints what came of it, and ends with OpenClaw's
//! exit code.

use std::process::ExitCode;

use serde::Serialize;

use crate::args::{Tool, UsageError};
use crate::config::{Config, Environment, Location};
use crate::failure::{Failure, chain};
use crate::gateway::now_ms;
use crate::handoff::{self, Answer};
use crate::misbehave::Misbehaviour;
use crate::{doctor, log, mischief, restart};

/// OpenClaw's code for arguments that make no sense to a machine contract.
const EXIT_INVALID: u8 = 2;

/// Runs a tool.
pub(crate) fn run(
    tool: Tool,
    environment: &Environment,
    misbehaviour: &Misbehaviour,
) -> Result<ExitCode, Failure> {
    mischief::dawdle(misbehaviour.tools_take);
    match tool {
        Tool::HandoffCapabilities | Tool::HandoffConsume(_) if misbehaviour.without_handoff => {
            Err(UsageError::Unknown("restart-handoff".to_owned()).into())
        }
        Tool::HandoffCapabilities => {
            print(&Answer::capabilities());
            Ok(ExitCode::SUCCESS)
        }
        Tool::HandoffConsume(expected_pid) => Ok(consume(environment, expected_pid)),
        Tool::Restart => {
            let config = Config::load(environment, None)?;
            let pid = restart::ask(&config)?;
            let port = config.port.number();
            println!("Gateway restart request sent to externally supervised process on port {port}: {pid}.");
            Ok(ExitCode::SUCCESS)
        }
        Tool::Doctor(treatment) => {
            println!("{}", doctor::treat(environment, misbehaviour, treatment)?);
            Ok(ExitCode::SUCCESS)
        }
        Tool::ValidateConfig => {
            let verdict = doctor::validate(environment)?;
            print(&verdict);
            Ok(if verdict.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Takes the restart handoff. A machine reads the answer, so each outcome is JSON.
fn consume(environment: &Environment, expected_pid: Option<u64>) -> ExitCode {
    let Some(pid) = expected_pid else {
        print(&Answer::refused("invalid-expected-pid"));
        return EXIT_INVALID.into();
    };
    let location = Location::find(environment).map_err(std::io::Error::other);
    let taken = location.and_then(|location| handoff::take(&location.state_dir, pid, now_ms()));
    match taken {
        Ok(taken) => {
            print(&Answer::taken(taken));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error(format_args!("failed to take the restart handoff: {}", chain(&error)));
            print(&Answer::refused("store-unavailable"));
            ExitCode::FAILURE
        }
    }
}

fn print(answer: &impl Serialize) {
    match serde_json::to_string_pretty(answer) {
        Ok(text) => println!("{text}"),
        // Nothing that is printed here holds what JSON cannot say.
        Err(error) => log::error(format_args!("failed to print the answer: {error}")),
    }
}
