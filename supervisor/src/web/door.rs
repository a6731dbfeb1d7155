//! Where the dashboard is served. Another user of the host may have the port: then the fleet is supervised without, the
//! supervisor says so, gives no links, which would lead to that user's page, and tries again.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, time::sleep};
use tracing::{info, warn};

use super::Sessions;

/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The dashboard as the rest of the supervisor knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dashboard {
    address: SocketAddr,
    sessions: Sessions,
    /// Why it is not served, a sentence without its full stop.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Dashboard {
    /// Not served yet.
    pub(crate) fn new(address: SocketAddr, sessions: Sessions) -> Self {
        let trouble = format!("the dashboard on {address} is not served yet");
        Self { address, sessions, trouble: Arc::new(Mutex::new(Some(trouble))) }
    }

    /// Where.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who has opened it.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Why it is not served, a sentence without its full stop; nothing if it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries once. Why it failed is known afterwards, and in the log if it is news.
    pub(super) async fn open(&self) -> Option<TcpListener> {
        let opened = TcpListener::bind(self.address).await;
        let trouble = opened.as_ref().err().map(|error| {
            let address = self.address;
            format!(
                "the dashboard cannot be served on {address}: {error}; see who has it with `ss -ltp`, or choose another port"
            )
        });
        let before = {
            let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, trouble.clone())
        };
        match trouble {
            None => info!(address = %self.address, "serving the dashboard"),
            Some(why) if before.as_ref() != Some(&why) => warn!("{why}"),
            Some(_) => {}
        }
        opened.ok()
    }

    /// Tries again until it is open.
    pub(super) async fn open_at_last(&self) -> TcpListener {
        loop {
            sleep(AGAIN_AFTER).await;
            if let Some(listener) = self.open().await {
                return listener;
            }
        }
    }
}
