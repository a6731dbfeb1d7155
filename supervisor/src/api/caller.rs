//! Who is at the other end of a connection.

use std::{net::SocketAddr, path::Path, sync::Arc};

use super::limits::Ticket;
use crate::{lineage::Origin, role::Grant};

/// Who calls, as its connection tells it; in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Who it is.
    pub(super) peer: Peer,
    /// What its calls are counted by.
    pub(super) ticket: Ticket,
}

/// Who is at the other end, proven when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this host, on a Unix socket. The kernel says whose it is (unix(7), SO_PEERCRED).
    Unix {
        /// Its user.
        uid: u32,
        /// That user's group.
        gid: u32,
        /// The process, unless it is in a place from which this one cannot see it.
        pid: Option<i32>,
        /// The other groups that its process is in.
        groups: Arc<[u32]>,
        /// Where the process belongs, if that could be told.
        origin: Option<Origin>,
        /// The socket it called on.
        socket: Arc<Path>,
    },
    /// Whoever has the key of a certificate that is good here, by TCP.
    Certificate {
        /// Whom it was issued to.
        name: String,
        /// What its holder may do; `None` if it does not say, as one of a foreign authority, and the settings have to.
        grant: Option<Grant>,
        /// Its serial number, in hexadecimal digits.
        serial: String,
        /// From where it calls.
        address: SocketAddr,
    },
}
