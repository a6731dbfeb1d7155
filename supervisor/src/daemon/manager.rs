//! What the service manager is told: that the supervisor is ready, that it lives, and that it ends.

use std::sync::Arc;

use supervisor_core::{instance::Phase, view::View};
use tokio::{
    sync::{Notify, watch},
    task,
};
use tracing::warn;

/// Tells systemd, if it is there. A manager that does not read blocks the caller, so that is a helper thread.
pub(super) async fn tell_manager(state: sd_notify::NotifyState<'static>) {
    let tell = task::spawn_blocking(move || {
        if let Err(error) = sd_notify::notify(&[state]) {
            warn!(%error, "failed to notify the service manager");
        }
    });
    let _ = tell.await;
}

/// Tells systemd, if it is there, from now on.
pub(super) fn tell_of_life(
    beats: watch::Receiver<()>,
    listening: Arc<Notify>,
    view: watch::Receiver<Arc<View>>,
) {
    tokio::spawn(keep_watchdog(beats));
    tokio::spawn(announce(listening, view));
}

/// Says that the supervisor is ready: clients can connect, and it is known of every instance what runs. That takes
/// no longer than core waits for an adoption.
async fn announce(listening: Arc<Notify>, mut view: watch::Receiver<Arc<View>>) {
    listening.notified().await;
    let adopted = |view: &Arc<View>| view.instances.values().all(|one| *one.phase() != Phase::Adopting);
    if view.wait_for(adopted).await.is_ok() {
        tell_manager(sd_notify::NotifyState::Ready).await;
    }
}

/// Passes the driver's pulse on to systemd's watchdog.
async fn keep_watchdog(mut beats: watch::Receiver<()>) {
    while beats.changed().await.is_ok() {
        tell_manager(sd_notify::NotifyState::Watchdog).await;
    }
}
