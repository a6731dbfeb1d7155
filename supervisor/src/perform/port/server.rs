//! Who serves a connection to a port of this host.
//!
//! A port that is free when a gateway is started is anybody's until the gateway has bound it, some twenty seconds
//! later, and anybody's again once the gateway is gone. Whoever has it then may answer as a gateway does, and is not
//! to be shown what is the gateway's.
//!
//! The kernel is asked for the one socket. A kernel or container that does not answer has its tables read instead, which
//! takes as long as the host has connections.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use supervisor_core::ids::Name;
use tokio::{net::TcpStream, sync::Mutex, task, time::sleep};

use super::{Hold, Holder, Socket, diag, holders};
use crate::{lineage::Lineage, user::UserError};

/// Connections over IPv4.
const TABLE: &str = "/proc/self/net/tcp";

/// Connections over IPv6, and those over IPv4 of servers that serve both.
const TABLE_6: &str = "/proc/self/net/tcp6";

/// The kernel hands a table out page by page, and may leave a line out where others come and go in between.
const LOOKS: u32 = 3;

/// Between two looks at who listens, for probes that come every few seconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Who may have a port for others, as systemd and proxies do.
const ROOT: u32 = 0;

/// Whose gateway is to be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The instance.
    pub(crate) name: Name,
    /// Whose its processes are, if that can be told.
    pub(crate) uid: Result<u32, UserError>,
}

/// Why what is a gateway's is not shown at the other end. The sentence is shown to people as it stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// It is another user's.
    #[error("`{address}` is served by user {uid}, not by `{name}`")]
    Foreign {
        /// The server's address.
        address: SocketAddr,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        name: Name,
    },
    /// No process of this host has it.
    #[error("nobody can be seen to serve `{address}`, so it is not taken for `{name}`")]
    Nobody {
        /// The server's address.
        address: SocketAddr,
        /// Whose it should be.
        name: Name,
    },
    /// The kernel does not say.
    #[error("failed to learn who serves the port of `{name}`: {source}")]
    Look {
        /// Whose it should be.
        name: Name,
        /// Why.
        source: io::Error,
    },
}

/// Whether the server's end of this connection belongs to the user that `owner` runs as. To be asked once the server
/// has said something: what it has not accepted yet is nobody's.
///
/// The kernel knows the user who made each socket, and lets none but root give it to another. Neighbours of one user
/// are not told apart by that; what keeps them from each other's ports are the walls. Where this process is in a user
/// namespace, all users without a number in it have the same (`/proc/sys/kernel/overflowuid`), which is for no
/// instance to run as.
///
/// Where the kernel does not say, nobody is taken for the owner: most gateways tell their health without being shown
/// anything, and a token in wrong hands is worse than a gateway that is not seen to be ready.
pub(crate) async fn check(connection: &TcpStream, owner: &Owner) -> Result<(), ServerError> {
    let name = || owner.name.clone();
    let failed = |source| ServerError::Look { name: name(), source };
    let address = connection.peer_addr().map_err(failed)?;
    let own = connection.local_addr().map_err(failed)?;
    let mine = owner.uid.clone().map_err(|error| failed(io::Error::other(error)))?;
    match user_of(address, own).await.map_err(failed)? {
        Some(uid) if uid == mine => Ok(()),
        Some(uid) => Err(ServerError::Foreign { address, uid, name: name() }),
        None => Err(ServerError::Nobody { address, name: name() }),
    }
}

/// The user of this host whose program is at the other end of a connection that came over loopback; `None` if the kernel
/// does not say.
pub(crate) async fn client(connection: (SocketAddr, SocketAddr)) -> Option<u32> {
    let (own, peer) = connection;
    user_of(peer, own).await.ok()?
}

/// Who listens on this host's ports. Where the kernel's tables have to be read, which takes some milliseconds, a look is for
/// all who may wait for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<Option<Look>>>);

/// Addresses and users that listen, by port.
type Listening = HashMap<u16, Vec<(IpAddr, u32)>>;

/// A look, and when it began.
#[derive(Debug)]
struct Look {
    began: Instant,
    users: Arc<Listening>,
}

impl Listeners {
    /// Why what a port has just answered is not taken for the answer of `owner`'s gateway: somebody listens there who is
    /// neither that user, nor root, nor a process of the instance, which may have become somebody else. Or nobody does any
    /// more. Where that may wait, it waits for others.
    pub(crate) async fn squatter(
        &self,
        port: u16,
        (owner, lineage): (&Owner, &Lineage),
        may_wait: bool,
    ) -> Option<ServerError> {
        let mine = *owner.uid.as_ref().ok()?;
        let users = match served_by(port, mine) {
            Ok(user) => Vec::from_iter(user),
            Err(_) => self.in_tables(port, mine, may_wait).await,
        };
        let name = owner.name.clone();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let foreign = match users.iter().find(|uid| ![ROOT, mine].contains(uid)) {
            Some(foreign) => *foreign,
            None if users.is_empty() => return Some(ServerError::Nobody { address, name }),
            None => return None,
        };
        let all_are = users.iter().all(|uid| [ROOT, mine, foreign].contains(uid));
        let (its, lineage) = (name.clone(), lineage.clone());
        let has_it = move || {
            let is_its = |holder: &Holder| {
                let listens = holder.hold == Hold::Listening && holder.uid == foreign;
                listens && holder.pid.is_some_and(|pid| lineage.is_below_a_worker(pid, &its))
            };
            holders(&[port]).iter().any(is_its)
        };
        match all_are && task::spawn_blocking(has_it).await.unwrap_or(false) {
            true => None,
            false => Some(ServerError::Foreign { address, uid: foreign, name }),
        }
    }

    async fn in_tables(&self, port: u16, mine: u32, may_wait: bool) -> Vec<u32> {
        let users = answering(&*self.look(may_wait).await, port, mine);
        // The kernel may have left it out.
        if users.is_empty() { answering(&*self.look(false).await, port, mine) } else { users }
    }

    /// Who listens, by a look that begins now or later.
    async fn look(&self, may_wait: bool) -> Arc<Listening> {
        // A start is not kept waiting behind who waits for others.
        if !may_wait {
            return Arc::new(task::spawn_blocking(listeners).await.unwrap_or_default());
        }
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(last) = last.as_ref() {
            if last.began >= asked {
                return Arc::clone(&last.users);
            }
            let rest = BETWEEN_LOOKS.saturating_sub(last.began.elapsed());
            sleep(rest).await;
        }
        let began = Instant::now();
        let users = Arc::new(task::spawn_blocking(listeners).await.unwrap_or_default());
        *last = Some(Look { began, users: Arc::clone(&users) });
        users
    }
}

/// A look.
fn listeners() -> Listening {
    let mut users = Listening::new();
    for table in [TABLE, TABLE_6].into_iter().filter_map(|table| fs::read_to_string(table).ok()) {
        let listening = table.lines().filter_map(Socket::parse).filter(|one| one.hold == Hold::Listening);
        for Socket { local, uid, .. } in listening {
            users.entry(local.port()).or_default().push((local.ip(), uid));
        }
    }
    users
}

/// The user of who answers on loopback: see [`answering`].
fn served_by(port: u16, mine: u32) -> io::Result<Option<u32>> {
    let who = |ip: IpAddr| -> io::Result<Option<(IpAddr, u32)>> {
        let found = diag::socket(SocketAddr::new(ip, port), SocketAddr::new(ip, 0))?;
        Ok(found.filter(|found| found.listens).map(|found| (found.ip, found.uid)))
    };
    let v4 = who(Ipv4Addr::LOCALHOST.into())?;
    // A host may be without.
    let v6 = who(Ipv6Addr::LOCALHOST.into()).unwrap_or_default();
    let is_mine = v6 == Some((Ipv6Addr::LOCALHOST.into(), mine));
    Ok(if is_mine { v6 } else { v4.or(v6) }.map(|(_, uid)| uid))
}

/// The users of those who can have answered on loopback: a probe asks IPv4 first, and whoever listens at one address comes
/// before who listens at all. Others of `127.0.0.0/8` are anybody's. Beside who listens at all of IPv4, nobody but the same
/// user does so at all of IPv6 for IPv4 as well. Who listens at `::1` alone cannot be asked while somebody else has IPv4,
/// and is believed: it has not let go of its port.
fn answering(listening: &Listening, port: u16, mine: u32) -> Vec<u32> {
    let at = |ip: IpAddr| -> Vec<u32> {
        let found = listening.get(&port).into_iter().flatten();
        found.filter(|(address, _)| *address == ip).map(|(_, uid)| *uid).collect()
    };
    let order: [IpAddr; 4] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let at_6 = at(Ipv6Addr::LOCALHOST.into());
    match at_6.contains(&mine) {
        true => at_6,
        false => order.into_iter().map(at).find(|users| !users.is_empty()).unwrap_or_default(),
    }
}

/// Whose socket the end `local` of the connection with `remote` is; `None` if no process has it.
async fn user_of(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    match diag::socket(local, remote) {
        Ok(found) => Ok(found.filter(|found| found.held && !found.listens).map(|found| found.uid)),
        Err(_) => {
            task::spawn_blocking(move || user_in_tables(local, remote)).await.map_err(io::Error::other)?
        }
    }
}

fn user_in_tables(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    for _ in 0..LOOKS {
        for table in if local.is_ipv4() { &[TABLE, TABLE_6][..] } else { &[TABLE_6] } {
            let file = match File::open(table) {
                Ok(file) => file,
                // A host without IPv6.
                Err(error) if error.kind() == ErrorKind::NotFound && local.is_ipv4() && *table == TABLE_6 => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).lines() {
                if let Some(socket) = Socket::parse(&line?)
                    && (socket.local, socket.remote) == (local, remote)
                    && socket.inode != 0
                {
                    return Ok(Some(socket.uid));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::unistd::geteuid;

    use super::*;

    fn owner(uid: u32) -> Owner {
        Owner { name: Name::new("main").unwrap(), uid: Ok(uid) }
    }

    #[tokio::test]
    async fn a_connection_is_its_servers_user_s_once_it_is_accepted() {
        let me = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut address = listener.local_addr().unwrap();
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            let client = TcpStream::connect(address).await.unwrap();
            let error = check(&client, &owner(me)).await.unwrap_err();
            assert!(matches!(error, ServerError::Nobody { .. }), "{error}");
            let (accepted, _) = listener.accept().unwrap();
            check(&client, &owner(me)).await.unwrap();
            let ends = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(user_in_tables(ends.0, ends.1).unwrap(), Some(me), "the kernel's tables say the same");
            let error = check(&client, &owner(me + 1)).await.unwrap_err().to_string();
            assert_eq!(error, format!("`{address}` is served by user {me}, not by `main`"));
            drop(accepted);
            let error = check(&client, &owner(me)).await.unwrap_err();
            assert!(matches!(error, ServerError::Nobody { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn who_has_taken_a_port_before_its_gateway_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, me) = (listener.local_addr().unwrap().port(), geteuid().as_raw());
        let (lineage, looks) = (Lineage::new("store"), Listeners::default());
        let found = async |uid: u32| {
            let squatter = looks.squatter(port, (&owner(uid), &lineage), true).await;
            squatter.map(|error| error.to_string())
        };
        assert_eq!(found(me).await, None);
        assert_eq!(looks.in_tables(port, me, true).await, [me], "the kernel's tables say the same");
        // What root serves is taken for anybody's.
        let expected = (me != 0).then(|| format!("`127.0.0.1:{port}` is served by user {me}, not by `main`"));
        assert_eq!(found(me + 1).await, expected);
        drop(listener);
        let nobody = format!("nobody can be seen to serve `127.0.0.1:{port}`, so it is not taken for `main`");
        assert_eq!(found(me).await, Some(nobody));
    }

    #[test]
    fn whoever_listens_beside_a_gateway_at_another_address_has_not_answered() {
        const MINE: u32 = 1_000;
        const OTHER: u32 = 1_001;
        let [v4, v6, all, all_6]: [IpAddr; 4] =
            ["127.0.0.1", "::1", "0.0.0.0", "::"].map(|ip| ip.parse().unwrap());
        let beside: IpAddr = "127.0.0.2".parse().unwrap();
        for (listening, expected) in [
            (vec![(beside, OTHER), (v4, MINE)], MINE),
            (vec![(beside, OTHER), (all, MINE)], MINE),
            (vec![(all_6, OTHER), (v4, MINE)], MINE),
            (vec![(all_6, OTHER), (all, MINE)], MINE),
            (vec![(v4, OTHER), (v6, MINE)], MINE),
            (vec![(v4, OTHER), (all, MINE)], OTHER),
            (vec![(v4, OTHER), (all_6, MINE)], OTHER),
            (vec![(v6, OTHER), (all, MINE)], MINE),
            (vec![(v6, OTHER)], OTHER),
        ] {
            let found = answering(&Listening::from([(20_000, listening.clone())]), 20_000, MINE);
            assert_eq!(found, [expected], "{listening:?}");
        }
        let beside = Listening::from([(20_000, vec![(beside, OTHER)])]);
        assert_eq!(answering(&beside, 20_000, MINE), Vec::<u32>::new(), "nobody answers a probe there");
    }

    #[test]
    fn addresses_of_both_families_are_read_as_the_kernel_writes_them() {
        let rest = "01 00000000:00000000 00:00000000 00000000  1000        0 77 1 0 20 4 30 10 -1";
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let zeros = "00000000".repeat(2);
        let v4 = word([127, 0, 0, 1]);
        let mapped = format!("{zeros}{}{v4}", word([0, 0, 0xff, 0xff]));
        let v6 = format!("{zeros}00000000{}", word([0, 0, 0, 1]));
        let both = std::net::IpAddr::from([127, 0, 0, 1]);
        for (host, ip) in [(&v4, both), (&mapped, both), (&v6, Ipv6Addr::LOCALHOST.into())] {
            let socket = Socket::parse(&format!("  2: {host}:4965 {host}:C001 {rest}")).unwrap();
            assert_eq!((socket.local, socket.remote), ((ip, 18_789).into(), (ip, 0xC001).into()));
            assert_eq!((socket.uid, socket.inode), (1_000, 77));
        }
        assert!(Socket::parse(&format!("  2: 123:4965 {v4}:C001 {rest}")).is_none());
    }
}
