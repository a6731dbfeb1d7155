//! Listening, accepting, and serving one HTTP connection, all with bounds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::census::Seat;
use crate::config::{BasePort, Bind};
use crate::gateway::{Gateway, Phase};
use crate::http::{self, Door};
use crate::log;

/// How long a connection may take over a request's headers, the wait for its next request included. Longer
/// than the usual interval between two probes, so that a probe can keep its connection.
const HEADER_TIME: Duration = Duration::from_secs(75);
/// Headers of real clients stay under 4 KiB; this is also all that a connection buffers of a request.
const HEADER_BYTES: usize = 16 * 1024;
/// How long sent data may wait for a client that does not read. After that the kernel ends the connection.
#[cfg(target_os = "linux")]
const UNREAD_TIME: Duration = Duration::from_secs(30);
/// The pause after a failed accept, which fails again at once when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client over the limit is told, if its socket takes it.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another process holds it.
    #[error("port {} is already in use on {}", .0.port(), .0.ip())]
    Busy(SocketAddr),
    /// The system refused it for another reason.
    #[error("failed to listen on {address}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds the base port on every address that `bind` names and the machine has.
pub(crate) fn base(bind: Bind, port: BasePort) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for ip in bind.addresses() {
        match listener(SocketAddr::new(*ip, port.number())) {
            Ok(listener) => listeners.push(listener),
            // Loopback without IPv6 is common in containers; the first address must be there.
            Err(BindError::Refused { .. }) if !listeners.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// Binds a port that never leaves this machine.
pub(crate) fn loopback(port: u16) -> Result<TcpListener, BindError> {
    listener(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

fn listener(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|source| match source.kind() == io::ErrorKind::AddrInUse {
        true => BindError::Busy(address),
        false => BindError::Refused { address, source },
    })
}

/// Serves `door` on `listener` for the rest of the process's life.
pub(crate) async fn serve(gateway: Arc<Gateway>, door: Door, listener: TcpListener) {
    // What is amiss is said once, when it begins: a flood of connections must not become a flood of lines.
    let mut amiss = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match door.seats(&gateway).enter() {
                Some(seat) => {
                    amiss = false;
                    tokio::spawn(connection(Arc::clone(&gateway), door, stream, peer, seat));
                }
                None => {
                    let _ = stream.try_write(BUSY);
                    say_once(&mut amiss, format_args!("refusing connections: too many are open"));
                }
            },
            Err(error) => {
                say_once(&mut amiss, format_args!("failed to accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn say_once(amiss: &mut bool, message: std::fmt::Arguments<'_>) {
    if !std::mem::replace(amiss, true) {
        log::warn(message);
    }
}

async fn connection(gateway: Arc<Gateway>, door: Door, stream: TcpStream, peer: SocketAddr, seat: Seat) {
    bound_unread(&stream);
    seat.idles();
    let answer = service_fn(|request| {
        let (gateway, seat) = (Arc::clone(&gateway), &seat);
        async move {
            seat.is_busy();
            let answer = http::answer(&gateway, door, peer, request).await;
            seat.idles();
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    // One that comes during the drain is answered, and closed after its answer by a header.
    if !matches!(gateway.phase(), Phase::Draining(_)) {
        tokio::select! {
            // How a connection ends is its client's affair.
            _ = served.as_mut() => return,
            () = seat.leaves() => return,
            _ = gateway.draining() => served.as_mut().graceful_shutdown(),
        }
    }
    let _ = served.await;
}

/// Lets the kernel end a connection whose client has stopped reading. Without it such a client would keep its
/// seat for ever. A socket that refuses has already been closed.
fn bound_unread(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let limit = UNREAD_TIME.as_millis() as u32;
        let _ = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &limit);
    }
}
