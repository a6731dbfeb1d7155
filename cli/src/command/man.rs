//! `openclawctl man`.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory, ValueHint};

use crate::{
    app::App,
    context::Context,
    error::{Cause, Failure, Operation},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl man | man -l -               read the manual
  openclawctl man ~/.local/share/man/man1  a page for each command";

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Where to write the pages of all commands
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

/// Writes the manual.
pub(crate) fn run(args: &Man, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("write the manual");
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(App::command())
            .render(&mut page)
            .map_err(|error| Cause::Output(error).during(&operation))?;
        return Ok(context.print(&operation, &String::from_utf8_lossy(&page))?);
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(App::command(), directory))
        .map_err(|source| Cause::Create { path: directory.clone(), source }.during(&operation).into())
}
