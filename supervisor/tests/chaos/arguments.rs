//! What the run is asked to be.
//!
//! `cargo test` gives the same arguments to every test program: filters and switches of its own harness are
//! understood here as far as they say whether to run at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

/// As long as a developer waits for one of many test programs.
const BRIEF: Duration = Duration::from_secs(15);

/// Enough for every kind of instance.
const FEW: usize = 12;

/// The ports of a slot hold so many, and the extras that the monkey creates.
const MOST: usize = 70;

/// The one test in here.
const NAME: &str = "chaos";

/// What makes this program a gateway of the fleet instead.
pub(crate) const FLOOD: &str = "--flood";

/// A run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    /// How long the monkey is at it, calms included.
    pub(crate) span: Duration,
    /// Decides what it does.
    pub(crate) seed: u64,
    /// The fleet's size.
    pub(crate) instances: usize,
}

/// What this program is to do.
#[derive(Debug)]
pub(crate) enum Asked {
    Run(Arguments),
    /// Name the tests.
    List,
    /// Another test is meant.
    Nothing,
    /// Be a gateway that floods its output.
    Flood {
        port: u16,
    },
}

/// Understands the command line.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Asked> {
    // `--seed=7` is `--seed 7`.
    let mut arguments = arguments.flat_map(|argument| match argument.split_once('=') {
        Some((option, value)) if option.starts_with("--") => vec![option.to_owned(), value.to_owned()],
        Some(_) | None => vec![argument],
    });
    let mut run = Arguments { span: BRIEF, seed: by_chance(), instances: FEW };
    let (mut filters, mut skipped) = (Vec::new(), false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--for" => run.span = humantime::parse_duration(&value()?).context("failed to read `--for`")?,
            "--seed" => run.seed = value()?.parse().context("failed to read `--seed`")?,
            "--instances" => run.instances = value()?.parse().context("failed to read `--instances`")?,
            FLOOD => return Ok(Asked::Flood { port: value()?.parse().context("failed to read the port")? }),
            "--list" => return Ok(Asked::List),
            // Tests that are ignored unless asked for: there are none.
            "--ignored" => return Ok(Asked::Nothing),
            "--skip" => skipped |= NAME.contains(&value()?),
            "--test-threads" | "--format" | "--color" | "--logfile" => drop(value()?),
            "--nocapture" | "--no-capture" | "--exact" | "--include-ignored" | "--quiet" | "-q"
            | "--show-output" | "--bench" => {}
            other if other.starts_with('-') => bail!("`{other}` is not known"),
            filter => filters.push(filter.to_owned()),
        }
    }
    if skipped || !filters.is_empty() && !filters.iter().any(|filter| NAME.contains(filter.as_str())) {
        return Ok(Asked::Nothing);
    }
    ensure!((4..=MOST).contains(&run.instances), "`--instances` is from 4 to {MOST}");
    Ok(Asked::Run(run))
}

/// A seed that is another one each time.
fn by_chance() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed.
    u64::from(now.subsec_nanos()) % 1_000_000
}
