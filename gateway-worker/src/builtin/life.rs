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
use crate::failure::{Failure, chain};
use crate::gateway::Gateway;
use crate::http::Door;
use crate::{listen, log, manager};

/// Browser control, counted from the base port; OpenClaw's offset.
const BROWSER_OFFSET: u16 = 2;
/// The canvas, counted from the base port; OpenClaw's offset.
const CANVAS_OFFSET: u16 = 4;
/// How long the drain waits for clients. With none connected it takes no time at all.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Threads for the files of the canvas. They end soon after use, so an idle gateway has none.
const FILE_THREADS: usize = 2;
const FILE_THREAD_IDLE: Duration = Duration::from_secs(1);
/// The canvas's threads only open and read.
const FILE_THREAD_STACK: usize = 128 * 1024;

/// Runs the gateway until it is told to stop.
pub(crate) fn live(config: Config) -> Result<(), Failure> {
    let runtime = runtime().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(serve(config));
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

async fn serve(config: Config) -> Result<(), Failure> {
    let listeners = listen::base(config.bind, config.port)?;
    let mut signals = Signals::listen().map_err(Failure::Signals)?;
    let gateway = Arc::new(Gateway::new(config));
    for listener in listeners {
        tokio::spawn(listen::serve(Arc::clone(&gateway), Door::Base, listener));
    }
    // Together, so that a start that hangs on a dead disk can still be stopped.
    let signal = tokio::select! {
        signal = signals.stop() => signal,
        never = come_up(&gateway) => match never {},
    };
    drain(&gateway, signal).await;
    Ok(())
}

/// Brings up what the base port does not need, says ready, and stays so.
async fn come_up(gateway: &Arc<Gateway>) -> Infallible {
    let degraded = open_side_ports(gateway).await;
    for part in &degraded {
        log::warn(format_args!("degraded: {part}"));
    }
    gateway.started(degraded);
    manager::ready().await;
    let config = &gateway.config;
    log::info(format_args!("ready on port {} ({})", config.port.number(), config.bind.name()));
    std::future::pending().await
}

/// Tells every client that the gateway stops, and gives them a moment to go.
async fn drain(gateway: &Gateway, signal: &'static str) {
    log::info(format_args!("received {signal}; {} clients to tell", gateway.clients.count()));
    manager::stopping();
    gateway.drain(signal);
    let gone = async {
        gateway.clients.empty().await;
        gateway.base.empty().await;
        gateway.side.empty().await;
    };
    if timeout(DRAIN_TIME, gone).await.is_err() {
        log::warn(format_args!("stopping with {} clients still connected", gateway.clients.count()));
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
    reserved: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reserved: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal to stop, and names it.
    async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                // OpenClaw restarts in-process; here it is reserved for that, and must not kill.
                _ = self.reserved.recv() => log::info(format_args!("ignored SIGUSR2")),
            }
        }
    }
}
