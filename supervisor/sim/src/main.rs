//! `supervisor-sim`: runs worlds, writes them down, runs them again, steps through them and makes them smaller.

use std::process::ExitCode;

fn main() -> ExitCode {
    supervisor_sim::command::main()
}
