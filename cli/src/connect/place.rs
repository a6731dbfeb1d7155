//! Where a supervisor of this host keeps its data and listens.

use std::{
    env,
    io::{self, ErrorKind},
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::{net::UnixStream, sync::oneshot, time::timeout};

use crate::{app::Global, error::Cause};

/// The system supervisor's data, used by root.
const SYSTEM_DATA: &str = "/var/lib/openclaw-supervisor";
const DATA_NAME: &str = "openclaw-supervisor";
const SOCKET_NAME: &str = "control.sock";
/// The longest path in a Unix socket's address, without its final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A supervisor that is flooded with callers lets one in after the other; each has a turn within milliseconds.
const TURN: Duration = Duration::from_secs(20);

/// Where a supervisor keeps its data and listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Absolute.
    pub(crate) data_dir: PathBuf,
    /// Absolute.
    pub(crate) socket: PathBuf,
    /// Whether one may be started there if none is: the directory was named, or is the default, and holds the socket.
    starts: bool,
}

/// Who listens on a socket, by the kernel's word: as whom it has begun to (unix(7), SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Its user.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

impl Owner {
    /// Of the other end.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self { uid: peer.uid(), gid: peer.gid() })
    }
}

impl Place {
    /// From the options, their variables, and the defaults, in this order.
    pub(crate) fn resolve(global: &Global) -> Result<Self, Cause> {
        let given = global.data_dir.as_deref().filter(|dir| !dir.as_os_str().is_empty());
        let socket = global.socket.as_deref().filter(|path| !path.as_os_str().is_empty());
        let data_dir = match (given, socket) {
            (Some(dir), _) => dir.to_owned(),
            (None, Some(socket)) => default_data_dir().unwrap_or_else(|| parent(socket).to_owned()),
            (None, None) => default_data_dir().ok_or(Cause::NoDataDir)?,
        };
        let data_dir = absolute(&data_dir);
        let socket = socket.map_or_else(|| data_dir.join(SOCKET_NAME), absolute);
        let starts = socket == data_dir.join(SOCKET_NAME);
        Ok(Self { data_dir, socket, starts })
    }

    /// Whether an option or a variable names one.
    pub(super) fn is_named(global: &Global) -> bool {
        [&global.data_dir, &global.socket].into_iter().flatten().any(|path| !path.as_os_str().is_empty())
    }

    /// Of the supervisor that listens on `socket`. Others may have said that it does, so none is started there.
    pub(super) fn of_socket(socket: &Path) -> Self {
        let socket = absolute(socket);
        Self { data_dir: parent(&socket).to_owned(), socket, starts: false }
    }

    /// Whether one may be started there if none is.
    pub(crate) fn may_start(&self) -> bool {
        self.starts
    }

    /// Connects to the socket, bare.
    pub(crate) async fn dial(&self) -> Result<UnixStream, Cause> {
        let dialled = if self.socket.as_os_str().len() > MAX_SOCKET_PATH {
            dial_long(&self.socket).await?
        } else {
            connect(self.socket.clone()).await
        };
        dialled.map_err(|source| {
            let socket = self.socket.clone();
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                Cause::NoListener { socket }
            } else {
                Cause::Connect { socket, source }
            }
        })
    }
}

/// Connects. While as many callers wait as may, only who waits in the kernel's own line has a turn (connect(2), EAGAIN on
/// a Unix socket); that is done aside, on a thread that nobody waits for longer.
async fn connect(socket: PathBuf) -> io::Result<UnixStream> {
    match UnixStream::connect(&socket).await {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        done => return done,
    }
    let (answer, connected) = oneshot::channel();
    thread::Builder::new().name("connect".into()).spawn(move || answer.send(StdStream::connect(socket)))?;
    let waited = timeout(TURN, connected).await.map_err(|_| ErrorKind::TimedOut)?;
    let stream = waited.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Reaches a socket whose path is too long for its address through a descriptor of its directory.
#[cfg(target_os = "linux")]
async fn dial_long(socket: &Path) -> Result<io::Result<UnixStream>, Cause> {
    use std::{fs::File, os::fd::AsRawFd};

    let directory = match File::open(parent(socket)) {
        Ok(directory) => directory,
        Err(error) => return Ok(Err(error)),
    };
    let name = socket.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(connect(short).await)
}

#[cfg(not(target_os = "linux"))]
async fn dial_long(socket: &Path) -> Result<io::Result<UnixStream>, Cause> {
    Err(Cause::SocketPath { socket: socket.to_owned(), limit: MAX_SOCKET_PATH })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn default_data_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(SYSTEM_DATA.into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join(DATA_NAME))
}
