//! `openclawctl man`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, ValueHint};

use crate::{
    app::App,
    error::{Cause, Failure, Operation},
    help,
    render::style,
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
pub(crate) fn run(args: &Man) -> Result<(), Failure> {
    let operation = Operation::new("write the manual");
    let mut tree = help::completed(App::command(), None).disable_help_subcommand(true);
    tree.build();
    let written = match &args.directory {
        None => page(&tree).map_err(Cause::Output).and_then(|page| Ok(style::print_data(&page)?)),
        Some(directory) => fs::create_dir_all(directory)
            .and_then(|()| write(&tree, directory))
            .map_err(|source| Cause::Create { path: directory.clone(), source }),
    };
    Ok(written.map_err(|cause| cause.during(&operation))?)
}

/// Writes the page of a command and those of all below it.
fn write(command: &clap::Command, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(directory.join(format!("{name}.1")), page(command)?)?;
    command.get_subcommands().try_for_each(|below| write(below, directory))
}

/// One page, in roff. What follows a command's options are its examples, and these keep their lines.
fn page(command: &clap::Command) -> io::Result<String> {
    let mut roff = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut roff)?;
    let mut page = String::new();
    let mut in_examples = false;
    for line in String::from_utf8_lossy(&roff).lines() {
        if in_examples && line.starts_with(".SH") {
            page.push_str(".fi\n");
            in_examples = false;
        }
        if line == ".SH EXTRA" {
            page.push_str(".SH EXAMPLES\n.nf\n");
            in_examples = true;
        } else if !(in_examples && line == "Examples:") {
            page.push_str(line);
            page.push('\n');
        }
    }
    if in_examples {
        page.push_str(".fi\n");
    }
    Ok(page)
}
