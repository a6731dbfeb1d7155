//! What those may do who call from inside an instance.
//!
//! An agent in a gateway has the supervisor's user id, and is refused by default: an instance sees itself, and no
//! more. A rescue sees its primaries, too, and may mend them. What an RPC is to such callers stands beside it in
//! [`METHODS`](super::access::METHODS); the gate turns them away from what is closed, and attaches a [`Scope`] to
//! all other requests. It knows whom the RPC may be about, and the service asks it about each name.

use std::{collections::BTreeSet, fmt, sync::Arc, thread, time::Duration};

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use supervisor_core::{event::Asker, ids::Name, view::View};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, oneshot},
    time,
};
use tonic::Request;
use tracing::warn;

use super::status::Refusal;
use crate::{
    handle::Handle,
    lineage::{Origin, Process},
};

/// Tracing takes a fraction of a millisecond. A process that is stuck in the kernel may hold it up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an RPC is to a caller inside an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Not for it.
    Closed,
    /// It is about no instance, and for everyone.
    Open,
    /// About itself and its primaries.
    See,
    /// About its primaries.
    Mend,
}

/// Callers traced at once. Tracing takes a fraction of a millisecond, so that more only wait for the processor.
pub(super) const TRACED: usize = 64;

/// Finds out where a calling process belongs; `None` if that cannot be told. May block.
#[derive(Clone)]
pub(crate) struct FindOrigin {
    find: Arc<OriginOf>,
    /// What is stuck in the kernel is not given up, and must not become ever more.
    threads: Arc<Semaphore>,
}

/// From a process to where it belongs.
pub(crate) type OriginOf = dyn Fn(&Process) -> Option<Origin> + Send + Sync;

impl fmt::Debug for FindOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FindOrigin")
    }
}

impl FindOrigin {
    pub(crate) fn new(find: impl Fn(&Process) -> Option<Origin> + Send + Sync + 'static) -> Self {
        Self { find: Arc::new(find), threads: Arc::new(Semaphore::new(TRACED)) }
    }

    /// Where the process belongs that has just connected. It is held by a descriptor while it is traced, where the
    /// kernel has that (Linux 6.5), so that nobody else is taken for it. On older kernels its number could only be
    /// another's if all numbers had been used between its connecting and this.
    /// It has a thread of its own: those for file work may all be waiting for a disk.
    pub(super) async fn of(&self, stream: &UnixStream) -> Option<Origin> {
        let pid = stream.peer_cred().ok()?.pid()?;
        let process = Process { pid, pidfd: getsockopt(stream, PeerPidfd).ok() };
        let traced = async {
            let permit = Arc::clone(&self.threads).acquire_owned().await.ok()?;
            let (answer, origin) = oneshot::channel();
            let find = Arc::clone(&self.find);
            let trace = move || {
                // Whoever has waited too long has gone.
                let _ = answer.send(find(&process));
                drop(permit);
            };
            thread::Builder::new().name("tracer".into()).spawn(trace).ok()?;
            origin.await.ok()?
        };
        time::timeout(PATIENCE, traced).await.ok()?
    }
}

/// Whom a request may be about.
#[derive(Debug, Clone)]
pub(super) struct Scope(Option<Narrow>);

#[derive(Debug, Clone)]
struct Narrow {
    who: Name,
    what: Inside,
    handle: Handle,
}

impl Scope {
    /// For a caller outside all instances.
    pub(super) const WHOLE: Self = Self(None);

    /// For a caller inside `who`, to whom the RPC is `what`.
    pub(super) fn narrow(who: Name, what: Inside, handle: Handle) -> Self {
        Self(Some(Narrow { who, what, handle }))
    }

    /// Of a request that has passed the gate, which attaches one to each. None means no right.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or(Refusal::Untraced(0))
    }

    /// Who calls, for the history.
    pub(super) fn asker(&self) -> Asker {
        self.0.as_ref().map_or(Asker::Operator, |narrow| Asker::Inside(narrow.who.clone()))
    }

    /// Refuses a request about `name`, unless it may be about that.
    pub(super) fn may(&self, name: &str) -> Result<(), Refusal> {
        match &self.0 {
            Some(narrow) if !self.contains(name) => {
                warn!(instance = %narrow.who, name, "a caller inside an instance asked about another");
                Err(Insider::new(narrow.who.clone(), &narrow.handle.view()).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a list may show `name`.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names().is_none_or(|names| names.contains(name))
    }

    /// All that the request may be about; `None`: about anyone. An instance's relations may change at any time.
    pub(super) fn names(&self) -> Option<BTreeSet<Name>> {
        let Narrow { who, what, handle } = self.0.as_ref()?;
        let mut names = primaries(&handle.view(), who);
        match what {
            Inside::See => {
                names.insert(who.clone());
            }
            Inside::Mend => {}
            Inside::Closed | Inside::Open => names.clear(),
        }
        Some(names)
    }
}

fn primaries(view: &View, who: &Name) -> BTreeSet<Name> {
    let rescues = view.instances.get(who).map(|instance| instance.policy().rescues.iter().cloned());
    rescues.into_iter().flatten().collect()
}

/// A caller that runs inside an instance, and what it may do. As a sentence, why it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Insider {
    /// The instance.
    pub(crate) name: Name,
    primaries: Vec<Name>,
}

impl Insider {
    pub(super) fn new(name: Name, view: &View) -> Self {
        let primaries = primaries(view, &name).into_iter().collect();
        Self { name, primaries }
    }
}

impl fmt::Display for Insider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, primaries } = self;
        let primaries: Vec<String> = primaries.iter().map(|primary| format!("`{primary}`")).collect();
        write!(f, "this was called from inside `{name}`, which may ")?;
        match primaries.join(" and ") {
            none if none.is_empty() => f.write_str("only see its own status, events and logs"),
            whom => write!(
                f,
                "only see itself and {whom}, start or restart {whom}, and put an older configuration of \
                 {whom} back"
            ),
        }
    }
}
