//! `openclawctl completion`.

use clap::Args;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use crate::{
    complete::VARIABLE,
    context::Context,
    error::{Cause, Failure, Operation},
};

const EXAMPLES: &str = "\
Examples:
  source <(openclawctl completion bash)    in ~/.bashrc
  source <(openclawctl completion zsh)     in ~/.zshrc, after compinit
  openclawctl completion fish > ~/.config/fish/completions/openclawctl.fish

Instance names are asked of the supervisor as you type.";

const PROGRAM: &str = "openclawctl";

/// Print a shell's completion script
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
            Self::Elvish => &Elvish,
            Self::Powershell => &Powershell,
        }
    }
}

/// Prints the script.
pub(crate) fn run(args: &Completion, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new("print the completion script");
    let mut script = Vec::new();
    args.shell
        .completer()
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .map_err(|error| Cause::Output(error).during(&operation))?;
    Ok(context.print_data(&operation, &String::from_utf8_lossy(&script))?)
}
