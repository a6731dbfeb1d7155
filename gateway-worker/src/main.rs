//! `gateway-worker`: the shim that stands between the supervisor and one gateway, and outlives the
//! supervisor.
//!
//! It keeps what would be lost if the gateway were the supervisor's own child: the pipe the gateway
//! writes its log to, its exit status, and the tree of its descendants. It decides nothing: it runs an
//! incarnation when told to, says how it ended, and waits for orders. `worker.proto` is the contract.
//!
//! There is one of these per instance, a thousand on one host, so it is one thread around `poll(2)` with
//! no async runtime, and it holds no buffer while nothing happens:
//!
//! ```text
//!   supervisor ──orders──► serve ──► worker ──► child ──► the gateway
//!              ◄─reports──   │         │          ▲            │
//!                            │         ├─ tree ───┘ reap, kill │ stdout, stderr
//!                            │         ├─ record  `exits`      ▼
//!                          turn ───────┴─ output ◄─────────── pipe
//!                        (poll(2))          └─► segment files
//! ```

mod bootstrap;
mod child;
mod clock;
mod complain;
mod confine;
mod directory;
mod group;
mod guest;
mod kernel;
mod key;
mod life;
mod notify;
mod orders;
mod output;
mod record;
mod segment;
mod serve;
mod terminal;
mod tool;
mod tree;
mod turn;
mod walls;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [behind, flag, number, command @ ..] = args.as_slice()
        && behind == tool::BEHIND
        && flag == guest::LAUNCH
    {
        return guest::run(number, command).unwrap_or_else(|error| error.explain());
    }
    kernel::close_inherited();
    if let [behind, args @ ..] = args.as_slice()
        && behind == tool::BEHIND
    {
        return tool::run(args).unwrap_or_else(|error| error.explain());
    }
    match bootstrap::boot() {
        Ok(mut worker) => worker.run(),
        Err(failure) => {
            failure.explain();
            ExitCode::FAILURE
        }
    }
}
