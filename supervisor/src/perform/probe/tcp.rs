//! A connection to a port of this host.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpStream;

/// Why there is no connection. The sentence is shown to people as it stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nothing listens there.
    #[error("connection refused on port {0}")]
    Refused(u16),
    /// There is none for another reason.
    #[error("failed to connect to port {port}: {source}")]
    Connect {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Connects to a port on loopback: over IPv4, or over IPv6 where only that listens.
pub(super) async fn connect(port: u16) -> Result<TcpStream, ConnectError> {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        match TcpStream::connect(address).await {
            Ok(stream) if stream.local_addr().is_ok_and(|own| own != address) => return Ok(stream),
            // The kernel chose the port that was to be reached for this end too, and the socket has met itself:
            // nothing listens there.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A host without IPv6: what IPv4 said stands.
            Err(_) if address.is_ipv6() => {}
            Err(source) => return Err(ConnectError::Connect { port, source }),
        }
    }
    Err(ConnectError::Refused(port))
}
