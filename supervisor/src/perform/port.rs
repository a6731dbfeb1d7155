//! Whether ports are free, and who holds those that are not.
//!
//! A port is tried by binding it as a server would: on all addresses of both families at once, with
//! SO_REUSEADDR, and without listening. That fails exactly if a server would fail there, and disturbs nobody.
//! Who holds it is then looked up by its socket's inode: `/proc/net/tcp` knows the inode of each port, and
//! `/proc/<pid>/fd` the inodes of each process.

mod diag;
pub(crate) mod server;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::{
    io::{self, Errno},
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt},
    process::geteuid,
};

use crate::proc;

/// The longest command shown, in characters.
const COMMAND: usize = 120;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The port.
    pub(crate) port: u16,
    /// How it is held.
    pub(crate) hold: Hold,
    /// The process; `None` if it cannot be seen from here.
    pub(crate) pid: Option<i32>,
    /// The process's command line, shortened; empty if it cannot be seen.
    pub(crate) command: String,
    /// The user whose socket it is.
    pub(crate) uid: u32,
}

/// How a port is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Someone listens on it.
    Listening,
    /// It is one end of a connection.
    Connected,
    /// Connections of a process that is gone are still closing.
    Closing,
}

/// The first of the ports on which a server could not listen now.
///
/// It takes some microseconds a port. A gateway that binds the same port in that instant without SO_REUSEADDR
/// would be refused, so this is for ports on which nothing of ours is being started.
pub(crate) fn taken(ports: &[u16]) -> Option<u16> {
    ports.iter().copied().find(|&port| try_bind(port) == Err(Errno::ADDRINUSE))
}

fn try_bind(port: u16) -> io::Result<()> {
    match bind_to(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(Errno::ADDRINUSE) => Err(Errno::ADDRINUSE),
        // The host is without IPv6.
        Err(_) => bind_to(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into()),
        Ok(()) => Ok(()),
    }
}

fn bind_to(family: AddressFamily, address: SocketAddr) -> io::Result<()> {
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)
}

/// Who holds each of the ports: all that listen, or else who is connected by it. Ports that nobody holds are
/// missing. This reads much of `/proc` and may take some tenths of a second, so it is not for a thread that
/// must not block.
pub(crate) fn holders(ports: &[u16]) -> Vec<Holder> {
    let wanted = ports.iter().copied().collect();
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().filter_map(Socket::parse).filter(|socket| socket.is_one_of(&wanted)));
    }
    let mut best: HashMap<u16, Hold> = HashMap::new();
    for socket in &sockets {
        let hold = best.entry(socket.local.port()).or_insert(socket.hold);
        *hold = socket.hold.min(*hold);
    }
    sockets.retain(|socket| best.get(&socket.local.port()) == Some(&socket.hold));
    let owners = owners(&sockets.iter().map(|socket| socket.inode).filter(|&inode| inode != 0).collect());
    let mut holders: Vec<Holder> = sockets.iter().map(|socket| socket.holder(&owners)).collect();
    holders.sort_unstable_by_key(|holder| (holder.port, holder.pid.is_none(), holder.pid));
    holders.dedup_by_key(|holder| (holder.port, holder.pid));
    holders
}

/// One line of `/proc/net/tcp`.
#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    hold: Hold,
    uid: u32,
    /// 0 if no process has it open any more.
    inode: u64,
}

impl Socket {
    /// See proc_net_tcp.rst in the kernel's documentation.
    fn parse(line: &str) -> Option<Self> {
        const LISTEN: &str = "0A";
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, remote, state, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
        let inode = inode.parse().ok()?;
        let hold = match (state, inode) {
            (LISTEN, _) => Hold::Listening,
            (_, 0) => Hold::Closing,
            (_, _) => Hold::Connected,
        };
        let (local, remote) = (address(local)?, address(remote)?);
        Some(Self { local, remote, hold, uid: uid.parse().ok()?, inode })
    }

    fn is_one_of(&self, wanted: &BTreeSet<u16>) -> bool {
        wanted.contains(&self.local.port())
    }

    fn holder(&self, owners: &BTreeMap<u64, i32>) -> Holder {
        let pid = owners.get(&self.inode).copied();
        let command = pid.map(command).unwrap_or_default();
        Holder { port: self.local.port(), hold: self.hold, pid, command, uid: self.uid }
    }
}

/// An address as `/proc/net/tcp` has it: words of network order, each written as a number of this machine. One of IPv4
/// is read as such in IPv6's table, too.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let word = |digits: &str| Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    let ip = match host.len() {
        8 => IpAddr::from(word(host)?),
        32 => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(host.get(8 * index..8 * index + 8)?)?);
            }
            IpAddr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The process that has each socket open. Of several, the one with the least pid: the others inherited it.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, i32> {
    let mut owners = BTreeMap::new();
    let mut pids = pids();
    pids.sort_unstable();
    for pid in pids {
        if owners.len() == inodes.len() {
            break;
        }
        // Another user's files cannot be listed, and the process may be gone.
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in files.flatten() {
            if let Ok(link) = fs::read_link(file.path())
                && let Some(inode) = link.to_str().and_then(socket_inode)
                && inodes.contains(&inode)
            {
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    owners
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The command line, or the name if there is none.
fn command(pid: i32) -> String {
    let line = proc::look(format!("/proc/{pid}/cmdline"), proc::COMMAND);
    let line = presentable(&line);
    if !line.is_empty() {
        return line;
    }
    presentable(&proc::look(format!("/proc/{pid}/comm"), proc::COMMAND))
}

fn presentable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim();
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.hold) {
            (Some(pid), _) if self.command.is_empty() => write!(f, "process {pid}"),
            (Some(pid), _) => write!(f, "process {pid} ({})", self.command),
            (None, Hold::Closing) => f.write_str("connections of an ended process that are still closing"),
            (None, Hold::Listening | Hold::Connected) if geteuid().is_root() => {
                write!(f, "a process of user {} that cannot be seen from here", self.uid)
            }
            (None, Hold::Listening | Hold::Connected) => {
                write!(f, "another process, of user {} (run as root to learn which)", self.uid)
            }
        }
    }
}

#[cfg(test)]
mod tests;
