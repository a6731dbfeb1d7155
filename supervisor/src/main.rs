//! `openclaw-supervisor`: the daemon. `openclawctl up` starts it; so can systemd.

use std::{env, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use openclaw_supervisor::{
    daemon::{self, Options},
    logging::Logging,
    openclaw::database,
    settings, web,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Supervises a fleet of OpenClaw gateways. Usually started by `openclawctl up` or by systemd.
#[derive(Debug, Parser)]
#[command(name = "openclaw-supervisor", version, max_term_width = 100)]
struct Arguments {
    /// Where everything is kept; one supervisor per directory.
    #[arg(long, value_name = "DIR", env = "OPENCLAWCTL_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,openclaw_supervisor=debug`.
    /// Unless given, `log_level` in the settings says it.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Serve the dashboard, there or on 127.0.0.1:18780. Unless given, `web` in the settings says it.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = USUAL_WEB, value_parser = fit)]
    web: Option<SocketAddr>,
}

/// Where the dashboard is served unless something else is said.
const USUAL_WEB: &str = "127.0.0.1:18780";

fn fit(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("write {USUAL_WEB}, or another port"))?;
    web::is_fit(address)
        .then_some(address)
        .ok_or_else(|| "the dashboard is served on 127.0.0.1 or [::1]".into())
}

fn main() -> ExitCode {
    // What else runs as this user, agents included, neither traces nor weighs it in `/proc` then, nor reads its memory,
    // walls or not. Linux refuses it to nobody.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let mut words = env::args_os().skip(1);
    if words.next().is_some_and(|first| first == database::CONSOLIDATE) {
        return done(database::consolidate(words.map(PathBuf::from)).map_err(anyhow::Error::msg));
    }
    done(run(Arguments::parse()))
}

fn done(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data_dir = match arguments.data_dir {
        Some(directory) => directory,
        None => daemon::default_data_dir().context("failed to choose a data directory: HOME is not set")?,
    };
    daemon::open_own(&data_dir);
    let mut settings = settings::load(&data_dir)?;
    settings.web = arguments.web.or(settings.web);
    let logging = Logging::start(arguments.log.as_deref(), settings.log_level, settings.log_format)?;
    Ok(daemon::run(Options { data_dir, settings, logging })?)
}
