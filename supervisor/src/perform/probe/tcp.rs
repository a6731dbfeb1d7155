//! A connection to a port of this host.
//!
//! Ports of this end are the kernel's to choose, and it may have none left: whoever runs on this host can take them all.
//! So there is a second way, from an address that nobody has thought of; and where there is no way at all, that is said
//! of this host and not of the gateway.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream};

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
    /// This host has none to give, whoever listens there.
    #[error("could not ask on port {port}, as this host has no connection left: {source}")]
    Unable {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Connects to a port on loopback: over IPv4, or over IPv6 where only that listens.
pub(super) async fn connect(port: u16) -> Result<TcpStream, ConnectError> {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        let connected = match TcpStream::connect(address).await {
            Err(error) if address.is_ipv4() && error.kind() == io::ErrorKind::AddrNotAvailable => {
                from_elsewhere(address).await
            }
            connected => connected,
        };
        match connected {
            Ok(stream) if stream.local_addr().is_ok_and(|own| own != address) => return Ok(stream),
            // The kernel chose the port that was to be reached for this end too, and the socket has met itself:
            // nothing listens there.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A host without IPv6: what IPv4 said stands.
            Err(error) if address.is_ipv6() => {
                if has_no_port_left(address, &error) {
                    return Err(ConnectError::Unable { port, source: error });
                }
            }
            Err(source) if is_ours(&source) => return Err(ConnectError::Unable { port, source }),
            Err(source) => return Err(ConnectError::Connect { port, source }),
        }
    }
    Err(ConnectError::Refused(port))
}

/// All ports of the usual address are taken. Of loopback's others there are sixteen millions.
async fn from_elsewhere(to: SocketAddr) -> io::Result<TcpStream> {
    // Each of these has keys of its own.
    let [.., a, b, c] = RandomState::new().hash_one(to).to_be_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0).into())?;
    socket.connect(to).await
}

/// Whether this address of the host is there and all its ports are taken: to connect there is no other.
fn has_no_port_left(to: SocketAddr, error: &io::Error) -> bool {
    let bound = || TcpSocket::new_v6().and_then(|socket| socket.bind((to.ip(), 0).into()));
    error.kind() == io::ErrorKind::AddrNotAvailable
        && bound().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Whether this end is short of something, which says nothing of the other.
fn is_ours(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EADDRNOTAVAIL
                | Errno::EADDRINUSE
                | Errno::EAGAIN
                | Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
        )
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, net, process::Command, thread};

    use nix::{
        sched::{CloneFlags, unshare},
        unistd::geteuid,
    };
    use tokio::runtime;

    use super::*;

    /// Ports that the kernel may choose.
    const LEFT: std::ops::RangeInclusive<u16> = 40_000..=40_003;

    /// Loopback is down at first (ioctl_if(7), SIOCSIFFLAGS).
    const UP: &str = "import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh22x', b'lo', 1))";

    /// In a network of its own that has few ports.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert!(Command::new("python3").args(["-c", UP]).status().unwrap().success());
            let range = format!("{} {}", LEFT.start(), LEFT.end());
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).unwrap();
            work()
        };
        thread::spawn(run).join().unwrap()
    }

    /// Something of this address on every port that is left, with a gateway on one that is not.
    fn taken(address: Ipv4Addr, work: impl FnOnce(&runtime::Runtime) + Send + 'static) {
        // Without rights there is no network of one's own.
        if !geteuid().is_root() {
            return;
        }
        apart(move || {
            let _gateway = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 20_040)).unwrap();
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _greedy: Vec<TcpSocket> = LEFT
                .map(|port| {
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind((address, port).into()).unwrap();
                    socket
                })
                .collect();
            let plain = net::TcpStream::connect((Ipv4Addr::LOCALHOST, 20_040)).unwrap_err();
            assert_eq!(plain.kind(), io::ErrorKind::AddrNotAvailable, "nobody else gets a connection");
            work(&runtime);
        });
    }

    #[test]
    fn a_gateway_is_asked_though_all_ports_of_the_host_are_taken() {
        taken(Ipv4Addr::new(127, 0, 0, 2), |runtime| {
            let stream = runtime.block_on(connect(20_040)).unwrap();
            assert!(stream.local_addr().unwrap().ip().is_loopback());
        });
    }

    #[test]
    fn nothing_is_said_of_a_gateway_at_an_address_without_a_port_left() {
        if !geteuid().is_root() {
            return;
        }
        apart(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _gateway = net::TcpListener::bind((Ipv6Addr::LOCALHOST, 20_040)).unwrap();
            let bind = |port| {
                let socket = TcpSocket::new_v6().unwrap();
                socket.bind((Ipv6Addr::LOCALHOST, port).into()).unwrap();
                socket
            };
            let _greedy: Vec<TcpSocket> = LEFT.map(bind).collect();
            let error = runtime.block_on(connect(20_040)).unwrap_err();
            assert!(matches!(error, ConnectError::Unable { .. }), "{error:?}");
        });
    }

    #[test]
    fn where_there_is_no_way_left_nothing_is_said_of_the_gateway() {
        taken(Ipv4Addr::UNSPECIFIED, |runtime| {
            let error = runtime.block_on(connect(20_040)).unwrap_err();
            assert!(matches!(error, ConnectError::Unable { port: 20_040, .. }), "{error:?}");
        });
    }
}
