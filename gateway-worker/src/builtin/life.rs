//! The gateway's life from start to exit: bind, say ready, serve until a signal, tell the clients, go.
//!
//! The base port is bound first of all: a successor is expected there within milliseconds of a crash.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::canvas;
use crate::config::Config;
use crate::config::Supervision;
use crate::failure::{Failure, chain};
use crate::gateway::{Farewell, Gateway, Restart};
use crate::handoff::{Handoff, Source};
use crate::http::Door;
use crate::misbehave::Misbehaviour;
use crate::{listen, log, manager, mischief};

/// Browser control, counted from the base port; OpenClaw's offset.
const BROWSER_OFFSET: u16 = 2;
/// The canvas, counted from the base port; OpenClaw's offset.
const CANVAS_OFFSET: u16 = 4;
/// How long the drain waits for clients. With none connected it takes no time at all.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// What clients are told when the gateway is to stay down.
const STOP: Farewell = Farewell { reason: "gateway stopping", restart_expected_ms: None };
/// What they are told when it is to come back, with OpenClaw's guess of when.
const RESTART: Farewell = Farewell { reason: "gateway restarting", restart_expected_ms: Some(1_500) };
/// Threads for the files of the canvas. They end soon after use, so an idle gateway has none.
const FILE_THREADS: usize = 2;
const FILE_THREAD_IDLE: Duration = Duration::from_secs(1);
/// The canvas's threads only open and read.
const FILE_THREAD_STACK: usize = 128 * 1024;

/// Runs the gateway until it is told to stop.
pub(crate) fn live(config: Config, misbehaviour: Misbehaviour) -> Result<(), Failure> {
    let runtime = runtime().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(serve(config, misbehaviour));
    // A file thread stuck on a dead disk must not hold the exit.
    runtime.shutdown_background();
    outcome
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(FILE_THREAD_IDLE)
        .thread_stack_size(FILE_THREAD_STACK)
        .build()
}

async fn serve(config: Config, misbehaviour: Misbehaviour) -> Result<(), Failure> {
    let listeners = listen::base(config.bind, config.port)?;
    let mut signals = Signals::listen().map_err(Failure::Signals)?;
    let gateway = Arc::new(Gateway::new(config, misbehaviour));
    for listener in listeners {
        tokio::spawn(listen::serve(Arc::clone(&gateway), Door::Base, listener));
    }
    // Together, so that a start that hangs on a dead disk can still be stopped.
    let ending = tokio::select! {
        ending = signals.ending(&gateway) => ending,
        restart = gateway.restart_asked() => Ending::Restart(restart),
        never = come_up(&gateway) => match never {},
        never = mischief::act(&gateway) => match never {},
    };
    match ending {
        Ending::Stop(signal) => {
            log::info(format_args!("received {signal}; {} clients to tell", gateway.clients.count()));
            drain(&gateway, STOP).await;
            Ok(())
        }
        Ending::Restart(restart) => {
            let reason = log::quoted(&restart.reason);
            log::info(format_args!("restarting ({reason}); {} clients to tell", gateway.clients.count()));
            drain(&gateway, RESTART).await;
            hand_off(&gateway, &restart).map_err(Failure::Handoff)
        }
    }
}

/// Why the gateway ends.
enum Ending {
    /// A signal of this name asks it to.
    Stop(&'static str),
    /// It is to be started again.
    Restart(Restart),
}

/// Says to the supervisor that the exit which follows is a restart. Without one the exit is all there is: this
/// gateway does not restart itself.
fn hand_off(gateway: &Gateway, restart: &Restart) -> std::io::Result<()> {
    if gateway.config.supervision == Supervision::External && !gateway.misbehaviour.without_handoff {
        Handoff::new(&gateway.boot_id, &restart.reason, restart.source).leave(&gateway.config.state_dir)?;
        log::info(format_args!("restart mode: full process restart (supervisor restart)"));
    }
    Ok(())
}

/// Brings up what the base port does not need, says ready, and stays so.
async fn come_up(gateway: &Arc<Gateway>) -> Infallible {
    let degraded = open_side_ports(gateway).await;
    for part in &degraded {
        log::warn(format_args!("degraded: {part}"));
    }
    mischief::start_slowly(gateway).await;
    gateway.started(degraded);
    manager::ready().await;
    let config = &gateway.config;
    log::info(format_args!("ready on port {} ({})", config.port.number(), config.bind.name()));
    std::future::pending().await
}

/// Tells every client that the gateway ends, and gives them a moment to go.
async fn drain(gateway: &Gateway, farewell: Farewell) {
    manager::stopping();
    gateway.drain(farewell);
    let gone = async {
        gateway.clients.empty().await;
        gateway.base.empty().await;
        gateway.side.empty().await;
    };
    if timeout(DRAIN_TIME, gone).await.is_err() {
        log::warn(format_args!("stopping with {} clients still connected", gateway.clients.count()));
    }
    if !gateway.misbehaviour.drain.is_zero() {
        tokio::time::sleep(gateway.misbehaviour.drain).await;
    }
    log::info(format_args!("stopped"));
}

/// Opens browser control and canvas, and says which could not be had. The gateway serves without them.
async fn open_side_ports(gateway: &Arc<Gateway>) -> Vec<String> {
    let mut degraded = Vec::new();
    for (door, name, offset) in
        [(Door::Browser, "browser control", BROWSER_OFFSET), (Door::Canvas, "canvas", CANVAS_OFFSET)]
    {
        match gateway.config.port.above(offset).map(listen::loopback) {
            Some(Ok(listener)) => {
                tokio::spawn(listen::serve(Arc::clone(gateway), door, listener));
            }
            Some(Err(error)) => degraded.push(format!("{name}: {}", chain(&error))),
            None => degraded.push(format!("{name}: no port {offset} above the gateway's")),
        }
    }
    let state_dir = gateway.config.state_dir.clone();
    // Off the loop: the health endpoints answer already, and the disk may be slow.
    match tokio::task::spawn_blocking(move || canvas::prepare(&state_dir)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => degraded.push(format!("canvas: failed to prepare its directory: {error}")),
        Err(panic) => degraded.push(format!("canvas: failed to prepare its directory: {panic}")),
    }
    degraded
}

/// The signals that mean something. SIGHUP keeps its default, as in OpenClaw.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// OpenClaw's wish for a restart.
    restart: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            restart: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal to end, and says how.
    async fn ending(&mut self, gateway: &Gateway) -> Ending {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => match gateway.misbehaviour.ignores_sigterm {
                    true => log::warn(format_args!("misbehaving: ignored SIGTERM")),
                    false => return Ending::Stop("SIGTERM"),
                },
                _ = self.interrupt.recv() => return Ending::Stop("SIGINT"),
                _ = self.restart.recv() => match gateway.config.supervision {
                    Supervision::External => {
                        let restart = Restart { reason: "SIGUSR2".to_owned(), source: Source::Signal };
                        return Ending::Restart(restart);
                    }
                    // OpenClaw restarts in-process; here it is reserved for that, and must not kill.
                    Supervision::None => log::info(format_args!("ignored SIGUSR2")),
                },
            }
        }
    }
}
