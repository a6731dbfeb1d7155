//! TCP, for those who have a certificate: mutual TLS 1.3, and nothing else.
//!
//! ```text
//!  accept ──► greet: its turn ──► handshake ──► who is it ──► Connection
//!             (addresses)         at most 10 s  (certificate)     │
//!                                                                 └─ ends with its certificate
//! ```
//!
//! Whoever was let in is looked at again whenever the certificates change, and has to go when its own ends.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};
use tracing::{info, warn};

use super::{
    ACCEPT_PAUSE,
    addresses::{Addresses, Guest},
    connection::Connection,
};
use crate::{
    api::{
        caller::Peer,
        limits::{Limits, Party},
    },
    pki::{ALPN, Facts, Keeper, Kept, Trust},
    seldom::Seldom,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A handshake takes two ways through the network.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The longest that is slept at once: a clock that is set is seen by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
enum TurnedAway {
    #[error("its handshake made room for others")]
    Crowded,
    #[error("its handshake took longer than {} seconds", HANDSHAKE_WITHIN.as_secs())]
    TooSlow,
    #[error("{0}")]
    Handshake(#[from] io::Error),
    #[error("it does not say that it speaks HTTP/2")]
    NoHttp2,
    #[error("its certificate cannot be used: {0}")]
    Certificate(String),
    #[error("there are no certificates of ours")]
    NoTrust,
}

/// What every handshake needs.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    pub(super) keeper: Keeper,
    pub(super) addresses: Arc<Addresses>,
    pub(super) limits: Arc<Limits>,
    pub(super) connections: mpsc::Sender<Connection>,
    pub(super) refusals: Arc<Refusals>,
}

/// Tells of those who were turned away, without becoming a flood of lines.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Seldom>);

impl Refusals {
    fn tell(&self, address: SocketAddr, why: &impl fmt::Display) {
        if let Some(count) = self.0.lock().unwrap_or_else(PoisonError::into_inner).count() {
            warn!(%address, count, "a caller by TCP was turned away: {why}");
        }
    }
}

/// Somebody who was let in.
struct Admitted {
    stream: TlsStream<TcpStream>,
    chain: Vec<CertificateDer<'static>>,
    facts: Facts,
}

/// Listens on an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Lets callers in, until it is dropped.
pub(super) async fn serve(listener: TcpListener, reception: Reception) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let (guest, turn) = reception.addresses.greet(address.ip());
                tokio::spawn(reception.clone().receive(stream, address, guest, turn));
            }
            Err(error) => {
                warn!(%error, "failed to accept a connection by TCP");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Reception {
    async fn receive(self, stream: TcpStream, address: SocketAddr, guest: Guest, turn: Instant) {
        // From before the handshake on, so that no change is missed.
        let kept = self.keeper.watch();
        let trust = kept.borrow().trust.clone();
        let admitted = tokio::select! {
            () = guest.end.cancelled() => Err(TurnedAway::Crowded),
            admitted = greet(stream, turn, trust) => admitted,
        };
        match admitted {
            Ok(admitted) => self.seat(admitted, address, guest.settle(), kept).await,
            Err(why) => self.refusals.tell(address, &why),
        }
    }

    /// Gives a caller its seat, and sees that it leaves with its certificate.
    async fn seat(self, admitted: Admitted, address: SocketAddr, guest: Guest, kept: watch::Receiver<Kept>) {
        let Admitted { stream, chain, facts } = admitted;
        let not_after = facts.not_after;
        let name = facts.name.clone();
        let peer = Peer::Certificate { name: facts.name, grant: facts.grant, serial: facts.serial, address };
        let seat = self.limits.admit(format!("`{name}` at {address}"), Party::Certificate(name.clone()));
        let end = seat.end.clone();
        let (alive, gone) = oneshot::channel();
        let connection = Connection::new(Either::Right(stream), peer, seat).until_dropped(alive);
        if self.connections.send(connection).await.is_err() {
            return;
        }
        tokio::select! {
            _ = gone => {}
            () = guest.end.cancelled() => leave(&end, &name, address, "its host has too many connections"),
            why = no_longer_good(kept, &chain) => leave(&end, &name, address, &why),
            () = ended(not_after) => leave(&end, &name, address, "its certificate has ended"),
        }
    }
}

async fn greet(stream: TcpStream, turn: Instant, trust: Option<Arc<Trust>>) -> Result<Admitted, TurnedAway> {
    sleep_until(turn).await;
    let trust = trust.ok_or(TurnedAway::NoTrust)?;
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(Arc::clone(&trust.config)).accept(stream);
    let stream = timeout(HANDSHAKE_WITHIN, handshake).await.map_err(|_| TurnedAway::TooSlow)??;
    let (_, session) = stream.get_ref();
    // Who offers other protocols only has been refused by now; who offers none has not.
    if session.alpn_protocol() != Some(ALPN) {
        return Err(TurnedAway::NoHttp2);
    }
    let chain: Vec<_> =
        session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
    let first = chain.first().ok_or_else(|| TurnedAway::Certificate("there is none".into()))?;
    let facts = Facts::read(first).map_err(TurnedAway::Certificate)?;
    if facts.name.is_empty() {
        return Err(TurnedAway::Certificate("it names nobody".into()));
    }
    Ok(Admitted { stream, chain, facts })
}

fn leave(end: &CancellationToken, name: &str, address: SocketAddr, why: &str) {
    info!(name, %address, "a caller's connection was ended: {why}");
    end.cancel();
}

/// Why a certificate is not good any more, once it is not.
async fn no_longer_good(mut kept: watch::Receiver<Kept>, chain: &[CertificateDer<'static>]) -> String {
    while kept.changed().await.is_ok() {
        let trust = kept.borrow_and_update().trust.clone();
        if let Some(Err(why)) = trust.map(|trust| trust.check(chain)) {
            return why.to_string();
        }
    }
    std::future::pending().await
}

/// Sleeps until then, by the host's clock.
async fn ended(not_after: i64) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = Duration::from_secs(u64::try_from(not_after).unwrap_or_default());
        match end.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(left) => sleep(left.min(LONGEST_SLEEP)).await,
            None => return,
        }
    }
}
