//! One socket of this host, by its addresses. The kernel looks it up as it does for a packet that comes in (sock_diag(7)),
//! in some microseconds however many there are; its tables in `/proc` take as long as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::{
    io::{self, Errno},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with},
};

/// What is asked and answered (linux/sock_diag.h), and a refusal (linux/netlink.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;

const TCP: u8 = 6;
/// A state (net/tcp_states.h).
const LISTEN: u8 = 10;

/// `struct nlmsghdr`, and what follows it: `struct inet_diag_req_v2`, or `struct inet_diag_msg` (linux/inet_diag.h).
const HEAD: usize = 16;
const REQUEST: usize = HEAD + 56;
const ANSWER: usize = HEAD + 72;

/// A socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its own address.
    pub(super) ip: IpAddr,
    /// Whether it waits for connections; otherwise it is an end of one.
    pub(super) listens: bool,
    /// Whose it is.
    pub(super) uid: u32,
    /// Whether a process has it: a connection that was not accepted yet, or was closed, is nobody's.
    pub(super) held: bool,
}

/// The socket that gets what `remote` sends to `local`: the end of their connection, or who listens for new ones.
pub(super) fn socket(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Found>> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    sendto(&kernel, &request(local, remote), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 4 * ANSWER];
    // It has answered by the time that it has taken the question.
    let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::DONTWAIT)?;
    read(answer.get(..length).unwrap_or_default())
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            octets
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    let family = if local.ip().to_canonical().is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut out = Vec::with_capacity(REQUEST);
    out.extend(u32::try_from(REQUEST).unwrap_or_default().to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]); // sequence number and port: there is one question
    out.extend([u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0]);
    out.extend([0xff; 4]); // in any state
    out.extend(local.port().to_be_bytes());
    out.extend(remote.port().to_be_bytes());
    out.extend(octets(local));
    out.extend(octets(remote));
    out.extend([0; 4]); // by any interface
    out.extend([0xff; 8]); // without a cookie
    out
}

fn read(answer: &[u8]) -> io::Result<Option<Found>> {
    let word =
        |at: usize| answer.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        Some(NLMSG_ERROR) => match word(HEAD).map(|error| -error.cast_signed()) {
            Some(error) if error == Errno::NOENT.raw_os_error() => Ok(None),
            Some(error @ 1..) => Err(Errno::from_raw_os_error(error)),
            Some(_) | None => Err(Errno::BADMSG),
        },
        Some(SOCK_DIAG_BY_FAMILY) => {
            let (family, state) = (answer.get(HEAD), answer.get(HEAD + 1));
            // After the ports.
            let own: Option<[u8; 16]> = answer.get(HEAD + 8..HEAD + 24).and_then(|own| own.try_into().ok());
            let (uid, inode) = (word(HEAD + 64), word(HEAD + 68));
            let (Some(family), Some(state), Some(own), Some(uid), Some(inode)) =
                (family, state, own, uid, inode)
            else {
                return Err(Errno::BADMSG);
            };
            let ip = if u16::from(*family) == AddressFamily::INET.as_raw() {
                let [a, b, c, d, ..] = own;
                Ipv4Addr::from([a, b, c, d]).into()
            } else {
                IpAddr::from(Ipv6Addr::from(own)).to_canonical()
            };
            Ok(Some(Found { ip, listens: *state == LISTEN, uid, held: inode != 0 }))
        }
        Some(_) | None => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn the_end_of_a_connection_is_found_and_who_listens_where_there_is_none() {
        let me = geteuid().as_raw();
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let own = listener.local_addr().unwrap();
            let asked: IpAddr =
                if bound.starts_with("[::1]") { own.ip() } else { Ipv4Addr::LOCALHOST.into() };
            let (server, nobody) = (SocketAddr::new(asked, own.port()), SocketAddr::new(asked, 0));
            let expected = Found { ip: own.ip(), listens: true, uid: me, held: true };
            assert_eq!(socket(server, nobody), Ok(Some(expected)), "{bound}");
            let client = TcpStream::connect(server).unwrap();
            let ends = (server, client.local_addr().unwrap());
            let waiting = socket(ends.0, ends.1).unwrap().unwrap();
            assert!(!waiting.listens && !waiting.held, "{bound}: {waiting:?}");
            let accepted = listener.accept().unwrap();
            let found = socket(ends.0, ends.1).unwrap().unwrap();
            assert_eq!((found.ip, found.listens, found.uid, found.held), (asked, false, me, true), "{bound}");
            drop((accepted, listener));
            assert_eq!(socket(server, nobody), Ok(None), "{bound}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (answer, expected) in [(vec![], Errno::BADMSG), (vec![0; HEAD], Errno::BADMSG)] {
            assert_eq!(read(&answer), Err(expected));
        }
        let mut refused = vec![0; HEAD + 4];
        refused[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        refused[HEAD..].copy_from_slice(&(-Errno::PERM.raw_os_error()).to_ne_bytes());
        assert_eq!(read(&refused), Err(Errno::PERM));
    }
}
