//! The places where the API is served beside the control socket: opened and closed as the settings say.
//!
//! A door that cannot be opened at the start holds up nothing: it is tried again, and the supervisor says so. One that
//! is asked for while it runs is refused at once, and then all is as before.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    net::{TcpListener, UnixStream},
    sync::{Mutex as Turns, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    connection::Connection,
    residents::Residents,
    tcp::{self, Reception},
    unix::{Rights, Socket, unsafe_directory},
};
use crate::{
    api::{limits::Limits, origin::FindOrigin},
    bindings::Bindings,
    openclaw::prepare::Host,
    pki::{Files, INIT, Keeper},
    settings::listen::{Listen, UnixPlace},
};

/// Connections that wait to be served: the server takes them at once unless it is busy.
const WAITING: usize = 64;

/// How soon a door that could not be opened is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Who listens on a socket accepts at once, unless it is stuck.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum DoorError {
    /// There is nothing to know callers by.
    #[error("nothing is served on {address} without certificates: {trouble}")]
    NoCertificates {
        /// Where it would be.
        address: SocketAddr,
        /// What is wrong with them.
        trouble: String,
    },
    /// The system refuses.
    #[error("failed to listen on {place}: {source}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Others could put a socket of theirs in its place.
    #[error(
        "others than the supervisor's user and root may write to `{}`, which leads to the socket `{}`",
        directory.display(), path.display()
    )]
    Unsafe {
        /// Where others could.
        directory: PathBuf,
        /// Where the socket would be.
        path: PathBuf,
    },
    /// Somebody else listens there.
    #[error("another process listens on the socket `{}`", .0.display())]
    Taken(PathBuf),
    /// The host knows no such group.
    #[error("this host has no group `{0}`")]
    UnknownGroup(String),
}

impl DoorError {
    /// What to do about it, without a full stop.
    pub(in crate::api) fn mend(&self) -> String {
        match self {
            Self::NoCertificates { .. } => format!("type `{INIT}`"),
            Self::Listen { .. } => "see who has it with `ss -lxtp`, or choose another".into(),
            Self::Unsafe { .. } => "choose another directory, or close this one to them".into(),
            Self::Taken(_) => "choose another path".into(),
            Self::UnknownGroup(_) => "correct its name".into(),
        }
    }
}

/// All of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::api) struct Doors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: Keeper,
    origins: FindOrigin,
    bindings: Bindings,
    residents: Residents,
    limits: Arc<Limits>,
    connections: mpsc::Sender<Connection>,
    reception: Reception,
    /// The control socket, which is not to be opened twice.
    control: PathBuf,
    open: Mutex<Vec<Door>>,
    /// Changes of that, one at a time.
    turns: Turns<()>,
    /// Serve the control socket until the end.
    own: Mutex<Option<JoinHandle<()>>>,
    /// Looks after the certificates, as long as there is a door that needs them.
    watchman: Mutex<Option<JoinHandle<()>>>,
}

/// One of them. It is closed when this is dropped; whoever came in by it stays.
#[derive(Debug)]
struct Door {
    place: Listen,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// How a door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    /// It cannot be opened yet: why, a sentence without its full stop.
    Shut(String),
}

/// What is behind a door that is open.
enum Listening {
    Unix(Socket),
    Tcp(TcpListener),
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doors {
    /// None yet, and whoever comes by the later ones.
    pub(super) fn new(
        host: &Host,
        origins: FindOrigin,
        bindings: Bindings,
        residents: Residents,
        limits: Arc<Limits>,
    ) -> (Self, mpsc::Receiver<Connection>) {
        let (connections, incoming) = mpsc::channel(WAITING);
        let keeper = Keeper::new(Files::of(&host.control.data_dir));
        let reception = Reception {
            keeper: keeper.clone(),
            addresses: Arc::default(),
            limits: Arc::clone(&limits),
            connections: connections.clone(),
            refusals: Arc::default(),
        };
        let inner = Inner {
            keeper,
            origins,
            bindings,
            residents,
            limits,
            connections,
            reception,
            control: host.control.socket.clone(),
            open: Mutex::default(),
            turns: Turns::default(),
            own: Mutex::default(),
            watchman: Mutex::default(),
        };
        (Self(Arc::new(inner)), incoming)
    }

    /// The certificates that doors by TCP are opened with.
    pub(in crate::api) fn keeper(&self) -> &Keeper {
        &self.0.keeper
    }

    /// Serves what comes in by the control socket, too.
    pub(super) fn serve(&self, control: Socket) {
        let inner = Arc::clone(&self.0);
        let serving = tokio::spawn(async move { inner.serve(Listening::Unix(control)).await });
        *self.0.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }

    /// Closes all, the control socket too.
    pub(super) async fn close(&self) {
        self.lock().clear();
        for task in [&self.0.own, &self.0.watchman] {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                task.abort();
                // What it holds is gone once it is.
                let _ = task.await;
            }
        }
    }

    /// Opens these, or goes on trying to.
    pub(super) async fn begin(&self, places: &[Listen]) {
        self.watch_certificates(places).await;
        let doors = places.iter().map(|place| self.door(place.clone(), None)).collect();
        *self.lock() = doors;
    }

    /// Opens those of `places` that are not, and closes all others; or changes nothing.
    pub(in crate::api) async fn set(&self, places: &[Listen]) -> Result<(), DoorError> {
        let _turn = self.0.turns.lock().await;
        self.watch_certificates(places).await;
        let fresh: Vec<&Listen> = {
            let open = self.lock();
            places.iter().filter(|place| !open.iter().any(|door| door.place == **place)).collect()
        };
        let mut opened = Vec::new();
        for place in fresh {
            match self.0.open(place).await {
                Ok(listening) => opened.push((place, listening)),
                Err(error) => {
                    let before: Vec<Listen> = self.lock().iter().map(|door| door.place.clone()).collect();
                    self.watch_certificates(&before).await;
                    return Err(error);
                }
            }
        }
        let doors: Vec<Door> =
            opened.into_iter().map(|(place, listening)| self.door(place.clone(), Some(listening))).collect();
        let mut open = self.lock();
        open.retain(|door| places.contains(&door.place));
        open.extend(doors);
        Ok(())
    }

    /// Where it is served by TCP now.
    pub(in crate::api) fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.lock();
        let open = open.iter().filter(|door| door.state() == State::Open);
        open.filter_map(|door| match &door.place {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        })
        .collect()
    }

    /// What is wrong with the doors, a sentence each without its full stop.
    pub(in crate::api) fn alarms(&self) -> Vec<String> {
        let open = self.lock();
        let shut = open.iter().filter_map(|door| match door.state() {
            State::Shut(why) => Some(why),
            State::Opening | State::Open => None,
        });
        let mut alarms: Vec<String> = shut.collect();
        if open.iter().any(|door| matches!(door.place, Listen::Tcp(_))) {
            let kept = self.0.keeper.kept();
            let warning = kept.trust.as_ref().and_then(|trust| trust.warning());
            let warning = warning.map(|(what, mend)| format!("{what}; {mend}"));
            let trouble = kept.trouble.filter(|_| kept.trust.is_some());
            let trouble = trouble
                .map(|trouble| format!("the certificates that were read before stay in force, as {trouble}"));
            alarms.extend(warning.into_iter().chain(trouble));
        }
        alarms
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Door>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the certificates looked after if a door needs them. They have been looked at when this returns.
    async fn watch_certificates(&self, places: &[Listen]) {
        let wanted = places.iter().any(|place| matches!(place, Listen::Tcp(_)));
        if wanted {
            self.0.keeper.look().await;
        }
        let mut watchman = self.0.watchman.lock().unwrap_or_else(PoisonError::into_inner);
        match (wanted, watchman.take()) {
            (true, Some(watching)) => *watchman = Some(watching),
            (true, None) => *watchman = Some(tokio::spawn(self.0.keeper.clone().look_after())),
            (false, Some(watching)) => watching.abort(),
            (false, None) => {}
        }
    }

    fn door(&self, place: Listen, listening: Option<Listening>) -> Door {
        let state = if listening.is_some() { State::Open } else { State::Opening };
        let state = Arc::new(Mutex::new(state));
        let (inner, named, told) = (Arc::clone(&self.0), place.clone(), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let listening = match listening {
                Some(listening) => listening,
                None => inner.open_at_last(&named, &told).await,
            };
            info!(place = %named, "listening");
            inner.serve(listening).await;
        });
        Door { place, state, task }
    }
}

impl Door {
    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    async fn open(&self, place: &Listen) -> Result<Listening, DoorError> {
        match place {
            Listen::Tcp(address) => {
                let kept = self.keeper.kept();
                if kept.trust.is_none() {
                    let trouble = kept.trouble.unwrap_or_else(|| "they were not looked at yet".into());
                    return Err(DoorError::NoCertificates { address: *address, trouble });
                }
                let bound = tcp::bind(*address);
                bound.map(Listening::Tcp).map_err(|source| failed(place, source))
            }
            Listen::Unix(UnixPlace { path, mode, group }) => {
                if *path == self.control || self.is_taken(path).await {
                    return Err(DoorError::Taken(path.clone()));
                }
                if let Some(directory) = unsafe_directory(path).map_err(|source| failed(place, source))? {
                    return Err(DoorError::Unsafe { directory, path: path.clone() });
                }
                let group = match group {
                    None => None,
                    Some(group) => {
                        let asked = group.clone();
                        // The host may ask a directory service.
                        let id = tokio::task::spawn_blocking(move || asked.id()).await.ok().flatten();
                        Some(id.ok_or_else(|| DoorError::UnknownGroup(group.to_string()))?)
                    }
                };
                let rights = Rights { mode: mode.bits(), group, spares: true };
                let socket = Socket::bind(path, move || rights);
                socket.map(Listening::Unix).map_err(|source| failed(place, source))
            }
        }
    }

    /// Whether somebody else listens on a socket. One of ours may: its successor takes its place.
    async fn is_taken(&self, path: &Path) -> bool {
        let ours = |door: &Door| matches!(&door.place, Listen::Unix(place) if place.path == path);
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().any(ours) {
            return false;
        }
        // Whoever does not accept in time is there.
        !matches!(timeout(ANSWERS_WITHIN, UnixStream::connect(path)).await, Ok(Err(_)))
    }

    /// Tries again until it can be opened.
    async fn open_at_last(&self, place: &Listen, state: &Mutex<State>) -> Listening {
        loop {
            let opened = self.open(place).await;
            let now = opened
                .as_ref()
                .err()
                .map_or(State::Open, |error| State::Shut(format!("{error}; {}", error.mend())));
            let before = {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *state, now.clone())
            };
            match (opened, now) {
                (Ok(listening), _) => return listening,
                (Err(_), State::Shut(why)) if before != State::Shut(why.clone()) => warn!("{why}"),
                (Err(_), State::Opening | State::Open | State::Shut(_)) => {}
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn serve(&self, listening: Listening) {
        match listening {
            Listening::Tcp(listener) => tcp::serve(listener, self.reception.clone()).await,
            Listening::Unix(socket) => {
                let Inner { limits, origins, bindings, residents, .. } = self;
                let connections = socket.connections(
                    Arc::clone(limits),
                    origins.clone(),
                    bindings.clone(),
                    residents.clone(),
                );
                // Nobody is left to serve them once the server has ended.
                connections
                    .for_each(async |connection| {
                        let _ = self.connections.send(connection).await;
                    })
                    .await;
            }
        }
    }
}

fn failed(place: &Listen, source: io::Error) -> DoorError {
    let place = match place {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(UnixPlace { path, .. }) => format!("`{}`", path.display()),
    };
    DoorError::Listen { place, source }
}
