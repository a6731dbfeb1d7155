//! `openclawctl supervisor`: the daemon itself.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use clap::{Args, Subcommand};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};
use supervisor_proto::v1::{GetInfoRequest, GetInfoResponse, ReloadRequest, ShutdownRequest};
use tokio::time::{Instant, sleep};
use tonic::Request;

use crate::{
    connect::{self, Place, Way},
    context::{Consent, Context, Show},
    daemon,
    error::{Cause, Error, Failure, Operation},
    render::{
        info, notes,
        style::{clause, talk},
    },
    wait::{Effort, Patience, WaitArgs},
};

const EXAMPLES: &str = "\
Examples:
  openclawctl supervisor status      is it there, and is it well
  openclawctl supervisor start       in the background, until it listens
  openclawctl supervisor stop        gateways keep running; the next supervisor adopts them
  openclawctl supervisor stop --all  stop every gateway first
  openclawctl supervisor reload      after a change of settings.yaml";

/// What a supervisor holds in its data directory as long as it lives.
const LOCK: &str = "supervisor.lock";

/// Between two looks at a socket that is about to go.
const PAUSE: Duration = Duration::from_millis(20);
/// What a supervisor needs to end once it has agreed to.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// Start, stop or show the supervisor itself
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Supervisor {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a supervisor in the background and wait until it listens
    Start,
    Stop(Stop),
    /// Read the supervisor's settings again, and say what changed
    Reload,
    /// Show the supervisor's version, process, places and alarms
    Status,
}

/// Stop the supervisor; gateways keep running
#[derive(Debug, Args)]
struct Stop {
    /// Stop every gateway first
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(short, long, requires = "all")]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Does what was asked of the supervisor.
pub(crate) async fn run(args: &Supervisor, context: &Context) -> Result<(), Failure> {
    match &args.command {
        Command::Start => start(context).await?,
        Command::Stop(args) => stop(args, context).await?,
        Command::Reload => reload(context).await?,
        Command::Status => status(context).await?,
    }
    Ok(())
}

async fn start(context: &Context) -> Result<(), Error> {
    let operation = Operation::new("start a supervisor");
    let place = context.place(&operation)?;
    if let Some((_, pid)) = daemon::answering(&place).await {
        talk(&format!("a supervisor is running already (pid {pid})"));
        return Ok(());
    }
    match connect::Supervisor::connect(&place.clone().into()).await {
        Err(Cause::NoListener { .. } | Cause::Broken(_)) | Ok(_) if place.may_start() => {
            daemon::start(&place, &operation).await.map(|_| ())
        }
        Ok(supervisor) => info(&supervisor, &operation).await.map(|_| ()),
        Err(cause) => Err(cause.during(&operation)),
    }
}

async fn stop(args: &Stop, context: &Context) -> Result<(), Error> {
    let operation = Operation::new("stop the supervisor");
    let target = context.target(&operation)?;
    let supervisor = context.connect(&operation).await?;
    let info = info(&supervisor, &operation).await?;
    let deadline = match args.wait.patience(Effort::Stop) {
        Patience::Until(patience) if args.all => patience,
        Patience::Until(_) | Patience::None => END_DEADLINE,
    };
    if args.all {
        Consent::from_flag(args.yes).obtain("stop every gateway and the supervisor", &operation)?;
        talk("stopping every gateway");
    }
    let answer = supervisor
        .call_within(deadline, &operation, async || {
            let mut request = Request::new(ShutdownRequest { stop_instances: args.all });
            request.set_timeout(deadline);
            supervisor.system().shutdown(request).await
        })
        .await;
    match answer {
        // It may be gone before its answer has come; whether it is gone is seen below.
        Err(error) if !error.cause().may_pass() => return Err(error),
        Err(_) | Ok(_) => {}
    }
    drop(supervisor);
    if args.wait.patience(Effort::Stop) != Patience::None
        && let Way::Here(place) = &target.way
    {
        let data_dir = if place.may_start() { &place.data_dir } else { Path::new(&info.data_dir) };
        gone(place, &data_dir.join(LOCK), &operation).await?;
    }
    let rest = if args.all { "" } else { "; gateways keep running" };
    talk(&format!("stopped the supervisor (pid {}){rest}", info.pid));
    Ok(())
}

/// Waits until nobody listens any more, and until the process has let go of its directory: until then it writes
/// there, and a successor would be refused.
async fn gone(place: &Place, lock: &Path, operation: &Operation) -> Result<(), Error> {
    let deadline = Instant::now() + END_DEADLINE;
    loop {
        match place.dial().await {
            Err(Cause::NoListener { .. }) if !is_held(lock) => return Ok(()),
            Err(_) | Ok(_) if Instant::now() >= deadline => {
                return Err(Cause::NotEnded { after: END_DEADLINE }.during(operation));
            }
            Err(_) | Ok(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether a supervisor holds `lock`. If it cannot be seen from here, the socket has to tell.
fn is_held(lock: &Path) -> bool {
    // Whoever has the directory may have put a pipe there, or a link.
    let open =
        OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits()).open(lock);
    open.is_ok_and(|file| {
        Flock::lock(file, FlockArg::LockSharedNonblock).is_err_and(|(_, error)| error == Errno::EWOULDBLOCK)
    })
}

async fn reload(context: &Context) -> Result<(), Error> {
    let operation = Operation::new("read the settings again");
    let supervisor = context.connect(&operation).await?;
    let call = async || supervisor.system().reload(ReloadRequest {}).await;
    let answer = supervisor.call(&operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => context.print_message(&operation, encoding, "ReloadResponse", &answer),
        Show::Text(_) if answer.changes.is_empty() => {
            talk("nothing changed");
            Ok(())
        }
        Show::Text(_) => {
            answer.changes.iter().for_each(|change| talk(&clause(change)));
            Ok(())
        }
    }
}

async fn status(context: &Context) -> Result<(), Error> {
    let operation = Operation::new("read the supervisor's status");
    let supervisor = context.connect(&operation).await?;
    let info = info(&supervisor, &operation).await?;
    match context.show {
        Show::Encoded(encoding) => context.print_message(&operation, encoding, "GetInfoResponse", &info),
        Show::Text(_) => {
            let mut text: String = notes::alarms(&info.alarms).into_iter().map(|line| line + "\n").collect();
            if !text.is_empty() {
                text.push('\n');
            }
            info::sheet(&info, &mut text);
            context.print(&operation, &text)
        }
    }
}

async fn info(supervisor: &connect::Supervisor, operation: &Operation) -> Result<GetInfoResponse, Error> {
    supervisor.call(operation, async || supervisor.system().get_info(GetInfoRequest {}).await).await
}
