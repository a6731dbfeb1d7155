//! Where the dashboard is served. Another user of the host may have the port: then the fleet is supervised without, the
//! supervisor says so, gives no links, which would lead to that user's page, and tries again.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, time::sleep};
use tracing::{info, warn};

use super::{Sessions, session::NoRandomness};
use crate::{api::Visitor, seldom::Seldom};

/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The dashboard as the rest of the supervisor knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dashboard {
    address: SocketAddr,
    sessions: Sessions,
    /// Why it is not served, a sentence without its full stop.
    trouble: Arc<Mutex<Option<String>>>,
    links: Arc<Mutex<Seldom>>,
}

impl Dashboard {
    /// Not served yet.
    pub(crate) fn new(address: SocketAddr, sessions: Sessions) -> Self {
        let trouble = format!("the dashboard on {address} is not served yet");
        Self { address, sessions, trouble: Arc::new(Mutex::new(Some(trouble))), links: Arc::default() }
    }

    /// At which port of this host.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Who has opened it.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What opens it for this visitor once, and until when, in seconds since the Unix epoch.
    pub(crate) fn link(&self, visitor: &Visitor) -> Result<(String, u64), NoRandomness> {
        let (ticket, expires) = self.sessions.link(visitor)?;
        let (name, port) = (self.sessions.name()?, self.port());
        if let Some(count) = self.links.lock().unwrap_or_else(PoisonError::into_inner).count() {
            info!(uid = visitor.uid, count, "a link to the dashboard was given");
        }
        // Behind the `#`, so that no log of any program has it.
        Ok((format!("http://{name}:{port}/#link={ticket}"), expires))
    }

    /// Why it is not served, a sentence without its full stop; nothing if it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries once. Why it failed is known afterwards, and in the log if it is news.
    pub(super) async fn open(&self) -> Option<Vec<TcpListener>> {
        let opened = listen(self.address).await;
        let trouble = opened.as_ref().err().map(|(address, error)| {
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
    pub(super) async fn open_at_last(&self) -> Vec<TcpListener> {
        loop {
            sleep(AGAIN_AFTER).await;
            if let Some(listeners) = self.open().await {
                return listeners;
            }
        }
    }
}

/// Listens at this address, and at that of the other family: a browser that is led to `localhost` takes either. Answers
/// which one failed.
async fn listen(address: SocketAddr) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let own = TcpListener::bind(address).await.map_err(|error| (address, error))?;
    let other: IpAddr =
        if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let other = SocketAddr::new(other, own.local_addr().map_err(|error| (address, error))?.port());
    match TcpListener::bind(other).await {
        Ok(listener) => Ok(vec![own, listener]),
        // Then nobody can be there.
        Err(error) if is_missing(&error) => Ok(vec![own]),
        Err(error) => Err((other, error)),
    }
}

/// Whether this host has no such address.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    matches!(error.kind(), AddrNotAvailable | Unsupported)
        || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}
