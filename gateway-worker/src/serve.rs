//! The connections: the one the worker was started with, and those that come to `worker.sock`.
//!
//! Many may watch, one controls. Here is only what concerns bytes, bounds and who is who; what an order
//! means is the worker's business. No peer can hold the worker up: sockets do not block, a peer that does
//! not read its reports is dropped once they exceed a bound, and one that does not say what it wants soon
//! is dropped too.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;
use supervisor_proto::frame;
use supervisor_proto::worker::{Order, Report};

use crate::complain::complain;

const NAME: &str = "worker.sock";

/// Connections at once. A worker has one supervisor, and perhaps a person who looks on.
const MAX_CONNECTIONS: usize = 16;

/// How long a new connection may take to send its first order.
const FIRST_ORDER_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of reports that may wait for a reader, on top of what its socket holds.
const MAX_UNREAD: usize = 256 << 10;

/// Accepted in one turn: so few that none of them has to give way to another before it was listened to, however
/// many come. Whoever keeps coming without a key cannot keep the supervisor out.
const ACCEPTED_PER_TURN: usize = MAX_CONNECTIONS / 2;

/// Bytes that may come in before they make an order, from whoever may not send a launch. `Attach` has a
/// hundred.
const MAX_UNTRUSTED: usize = 1 << 10;

/// Bytes read from one connection in one turn. More stay in the socket for the next.
const MAX_READ_PER_TURN: usize = 256 << 10;

/// Bytes read at once. On the stack.
const CHUNK: usize = 4 << 10;

/// How long no connection is accepted after that failed, for want of descriptors say: the listener would
/// stay readable and the loop spin.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How long one peer may keep the worker from exiting by not reading its last reports.
const FAREWELL: Duration = Duration::from_millis(200);

/// Names a connection for as long as this process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has not said yet, and must by this moment.
    Undeclared(Instant),
    /// It gets reports.
    Watch,
    /// It gets reports and gives orders.
    Control,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    /// It ends when the peer has taken what is waiting for it.
    Closing,
    /// It has ended and is swept away after the turn. Orders that came before the end still count.
    Closed,
}

/// One peer.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    stream: UnixStream,
    role: Role,
    fate: Fate,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// The socket and everyone connected to it.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    /// Set while accepting is suspended.
    deaf_until: Option<Instant>,
    connections: Vec<Connection>,
    last_id: u64,
}

impl Server {
    /// Listens in the current directory. The caller holds the directory's lock, so a socket found there is
    /// dead.
    pub(crate) fn bind() -> io::Result<Self> {
        remove();
        let listener = UnixListener::bind(NAME)?;
        fs::set_permissions(NAME, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, deaf_until: None, connections: Vec::new(), last_id: 0 })
    }

    /// Takes over a connection made elsewhere. `inbox` was read from it already.
    pub(crate) fn adopt(
        &mut self,
        stream: UnixStream,
        inbox: Vec<u8>,
        role: Role,
    ) -> io::Result<ConnectionId> {
        stream.set_nonblocking(true)?;
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        let fate = Fate::Open;
        self.connections.push(Connection { id, stream, role, fate, inbox, outbox: Vec::new() });
        Ok(id)
    }

    /// The listener, unless accepting is suspended.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.deaf_until.is_none().then(|| self.listener.as_fd())
    }

    /// Each connection's descriptor, and whether something waits to be written to it.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (ConnectionId, BorrowedFd<'_>, bool)> {
        self.connections.iter().map(|peer| (peer.id, peer.stream.as_fd(), !peer.outbox.is_empty()))
    }

    /// Accepts whoever is waiting.
    pub(crate) fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    complain(format_args!("failed to accept a connection: {error}"));
                    self.deaf_until = Some(now + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    /// Lets `stream` in if its user may. If there are too many, another gives way: one that has not said
    /// what it wants, else the oldest watcher. So a supervisor always gets in.
    fn admit(&mut self, stream: UnixStream, now: Instant) {
        let trusted = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == getuid());
        if !trusted {
            return;
        }
        self.sweep();
        if self.connections.len() >= MAX_CONNECTIONS {
            let undeclared = |peer: &Connection| matches!(peer.role, Role::Undeclared(_));
            let watches = |peer: &Connection| peer.role == Role::Watch;
            let place = self.connections.iter().position(undeclared);
            if let Some(place) = place.or_else(|| self.connections.iter().position(watches)) {
                self.connections.remove(place);
            }
        }
        if let Err(error) = self.adopt(stream, Vec::new(), Role::Undeclared(now + FIRST_ORDER_WITHIN)) {
            complain(format_args!("failed to admit a connection: {error}"));
        }
    }

    /// Reads what `id` has sent.
    pub(crate) fn receive(&mut self, id: ConnectionId) {
        if let Some(peer) = self.find(id) {
            peer.receive();
        }
    }

    /// The next whole order that `id` has sent. A peer that sends anything else is dropped.
    pub(crate) fn next_order(&mut self, id: ConnectionId) -> Option<Order> {
        let peer = self.find(id)?;
        match frame::decode(&mut peer.inbox) {
            Ok(Some(order)) => Some(order),
            Ok(None) => {
                if peer.inbox.is_empty() {
                    peer.inbox = Vec::new();
                } else if peer.role != Role::Control && peer.inbox.len() > MAX_UNTRUSTED {
                    peer.cut_off();
                }
                None
            }
            Err(error) => {
                peer.drop_for(format_args!("{error}"));
                None
            }
        }
    }

    /// What `id` may do. `None` if it is gone.
    pub(crate) fn role(&self, id: ConnectionId) -> Option<Role> {
        self.connections.iter().find(|peer| peer.id == id).map(|peer| peer.role)
    }

    /// Lets `id` do what `role` says. There is one controller: the one before is dropped.
    pub(crate) fn set_role(&mut self, id: ConnectionId, role: Role) {
        for peer in &mut self.connections {
            if peer.id == id {
                peer.role = role;
            } else if role == Role::Control && peer.role == Role::Control {
                peer.cut_off();
            }
        }
    }

    /// Sends `report` to `id`.
    pub(crate) fn send(&mut self, id: ConnectionId, report: &Report) {
        let mut bytes = Vec::new();
        frame::encode(report, &mut bytes);
        if let Some(peer) = self.find(id) {
            peer.send(&bytes);
        }
    }

    /// Sends `report` to everyone who has said what they want.
    pub(crate) fn broadcast(&mut self, report: &Report) {
        let mut bytes = Vec::new();
        frame::encode(report, &mut bytes);
        for peer in &mut self.connections {
            if !matches!(peer.role, Role::Undeclared(_)) {
                peer.send(&bytes);
            }
        }
    }

    /// Writes what waits for `id`.
    pub(crate) fn flush(&mut self, id: ConnectionId) {
        if let Some(peer) = self.find(id) {
            peer.flush();
        }
    }

    /// Ends `id` once it has been sent everything.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        if let Some(peer) = self.find(id)
            && peer.fate == Fate::Open
        {
            peer.inbox = Vec::new();
            peer.fate = if peer.outbox.is_empty() { Fate::Closed } else { Fate::Closing };
        }
    }

    /// When [`Server::pass`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.connections.iter().filter_map(Connection::deadline).chain(self.deaf_until).min()
    }

    /// Does what has become due at `now`.
    pub(crate) fn pass(&mut self, now: Instant) {
        self.deaf_until = self.deaf_until.filter(|&until| until > now);
        for peer in &mut self.connections {
            if peer.deadline().is_some_and(|deadline| deadline <= now) {
                peer.cut_off();
            }
        }
    }

    /// Lets go of the connections that have ended.
    pub(crate) fn sweep(&mut self) {
        self.connections.retain(|peer| peer.fate != Fate::Closed);
    }

    /// Sends the last reports, as far as each peer takes them soon.
    pub(crate) fn bid_farewell(&mut self) {
        for peer in &mut self.connections {
            if peer.outbox.is_empty() || peer.fate == Fate::Closed {
                continue;
            }
            let patient = peer.stream.set_nonblocking(false);
            if patient.and_then(|()| peer.stream.set_write_timeout(Some(FAREWELL))).is_ok() {
                let _ = peer.stream.write_all(&peer.outbox);
            }
        }
        self.connections.clear();
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|peer| peer.id == id)
    }
}

impl Connection {
    fn deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Undeclared(deadline) => Some(deadline),
            Role::Watch | Role::Control => None,
        }
    }

    /// Ends the connection at once, with whatever it has sent.
    fn cut_off(&mut self) {
        self.fate = Fate::Closed;
        self.inbox = Vec::new();
    }

    fn receive(&mut self) {
        let mut chunk = [0; CHUNK];
        let enough = self.inbox.len() + MAX_READ_PER_TURN;
        while self.fate != Fate::Closed && self.inbox.len() < enough {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.fate = Fate::Closed,
                Ok(length) => {
                    self.inbox.extend_from_slice(chunk.get(..length).unwrap_or_default());
                    if length < CHUNK {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.fate = Fate::Closed,
            }
        }
    }

    /// Cuts it off, and says so of the supervisor alone: others of its user can have that happen as often as they like.
    fn drop_for(&mut self, why: fmt::Arguments<'_>) {
        if self.role == Role::Control {
            complain(format_args!("dropped a connection: {why}"));
        }
        self.cut_off();
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.fate != Fate::Open {
            return;
        }
        if self.outbox.len() + bytes.len() > MAX_UNREAD {
            return self.drop_for(format_args!("it does not read its reports"));
        }
        let was_empty = self.outbox.is_empty();
        self.outbox.extend_from_slice(bytes);
        if was_empty {
            self.flush();
        }
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() && self.fate != Fate::Closed {
            match self.stream.write(&self.outbox) {
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The peer is gone, but orders it sent before may still be unread. Reading finds the end.
                Err(_) => break,
            }
        }
        self.outbox = Vec::new();
        if self.fate == Fate::Closing {
            self.fate = Fate::Closed;
        }
    }
}

/// Takes the socket's name out of the current directory.
pub(crate) fn remove() {
    let _ = fs::remove_file(NAME);
}
