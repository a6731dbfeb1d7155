//! A Unix socket: made as its owner wants it, looked after while it is served.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
            net,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use nix::unistd::geteuid;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, listen as listen_on,
    socket_with,
};
use tokio::{
    net::{UnixListener, UnixStream, unix::UCred},
    time::sleep,
};
use tokio_util::either::Either;
use tracing::warn;

use super::{ACCEPT_PAUSE, connection::Connection, residents::Residents};
use crate::{
    api::{
        caller::Peer,
        limits::{Crowd, Limits, Most, Party},
        origin::{FindOrigin, Line, Look, Turn},
    },
    bindings::{Bindings, Bound},
    custody,
    kernel::peer_groups,
    lineage::{Origin, is_called_worker},
};

/// The longest path in a Unix socket's address, without its final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// How soon a socket that somebody has deleted is there again.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted; the kernel has its own bound (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// All users of the host.
const ANYBODY: u32 = 0o666;

/// Who can connect, and who else could have put something in the socket's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    /// As chmod(2) has it.
    pub(super) mode: u32,
    /// The group it belongs to, if not this process's own.
    pub(super) group: Option<u32>,
    /// Whether what is there and no socket is somebody's, and stays.
    pub(super) spares: bool,
}

impl Rights {
    /// In the supervisor's own directory: for its owner, or for anybody to connect. Then what callers may do hangs on who
    /// they are.
    pub(super) const fn control(for_all: bool) -> Self {
        Self { mode: if for_all { ANYBODY } else { 0o600 }, group: None, spares: false }
    }
}

/// A socket that is served. It is removed when it is dropped.
pub(super) struct Socket {
    path: PathBuf,
    /// Asked each time that the socket is made.
    rights: Box<dyn Fn() -> Rights + Send + Sync>,
    listener: UnixListener,
    file: Inode,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Device and inode of the socket's file.
type Inode = (u64, u64);

/// Connections whose processes are being traced, or wait for that: more than there are seats, so that who has one does not
/// wait behind those.
const WAITING: usize = 2 * Most::USUAL.connections;

impl Socket {
    /// Listens at `path`.
    pub(super) fn bind(path: &Path, rights: impl Fn() -> Rights + Send + Sync + 'static) -> io::Result<Self> {
        let (listener, file) = Self::listen(path, rights())?;
        Ok(Self { path: path.to_owned(), rights: Box::new(rights), listener, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is at `path` already is left over from an earlier supervisor: nobody else could put it there. It is
    /// replaced at once, so that there is never nothing there.
    fn listen(path: &Path, rights: Rights) -> io::Result<(UnixListener, Inode)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or_else(invalid)?;
        let name = path.file_name().ok_or_else(invalid)?;
        match fs::symlink_metadata(path) {
            // A file of somebody's, named by mistake.
            Ok(file) if rights.spares && !file.file_type().is_socket() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(_) | Err(_) => {}
        }
        let fresh = directory.join(format!(".{}.new", name.to_string_lossy()));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = bind(directory, &fresh)?;
        chown(&fresh, None, rights.group)?;
        fs::set_permissions(&fresh, Permissions::from_mode(rights.mode))?;
        // Nobody can connect before this.
        listen_on(&socket, BACKLOG)?;
        let file = inode(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok((UnixListener::from_std(net::UnixListener::from(socket))?, file))
    }

    /// Listens anew if nobody can find the socket any more. Who is connected stays so.
    fn look_after(&mut self) {
        if inode(&self.path).is_ok_and(|file| file == self.file) {
            self.open_again();
            return;
        }
        match Self::listen(&self.path, (self.rights)()) {
            Ok((listener, file)) => {
                warn!(socket = %self.path.display(), "the socket had been deleted; it is there again");
                (self.listener, self.file) = (listener, file);
            }
            Err(error) => warn!(%error, "the socket has been deleted and cannot be made again yet"),
        }
    }

    /// An agent of this user can close it, and open it to others.
    fn open_again(&self) {
        let (mode, found) = ((self.rights)().mode, fs::symlink_metadata(&self.path));
        if found.is_ok_and(|found| found.mode() & 0o777 != mode) {
            match custody::close(&self.path, mode) {
                Ok(()) => {
                    warn!(socket = %self.path.display(), "the socket's mode was changed; it is as before");
                }
                Err(error) => warn!(%error, "the socket's mode was changed, and cannot be put back"),
            }
        }
    }

    /// Each connection that comes, as soon as it is known from where. One whose process takes long to trace holds up
    /// no other; it has its seat from the moment it came, so that it cannot take that of who came later. All wait behind
    /// what is asked about it before that.
    pub(super) fn connections(
        self,
        limits: Arc<Limits>,
        origins: FindOrigin,
        bindings: Bindings,
        residents: Residents,
    ) -> impl Stream<Item = Connection> {
        let socket: Arc<Path> = self.path.as_path().into();
        let accepted = stream::unfold(self, |mut socket| async { Some((socket.accept().await, socket)) });
        let traced = accepted.map(move |stream| {
            let (origins, socket, bindings) = (origins.clone(), Arc::clone(&socket), bindings.clone());
            let peer = stream.peer_cred();
            // Who is in too many is in none, and may do less.
            let groups = peer_groups(&stream).ok();
            let turn = origins.turn(peer.as_ref().ok().and_then(UCred::pid).unwrap_or(0));
            let place = match &peer {
                Ok(peer) => Place::of(peer, groups.as_deref(), &turn, (&bindings, &residents)),
                Err(_) => Place::of_stranger(Crowd::of(u32::MAX)),
            };
            let groups: Arc<[u32]> = groups.unwrap_or_default().into();
            let seat = limits.admit(who(&peer), place.party.clone());
            // On its own, so that it is not the crowd's turn first.
            tokio::spawn(async move {
                let peer = peer.ok()?;
                let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
                // A rescue of the same user, which takes no time, does not wait with those that do.
                let is_slow = || {
                    if place.party == Party::Untraced(uid) {
                        seat.is_of(Party::Slow(uid));
                    }
                };
                let origin = tokio::select! {
                    () = seat.end.cancelled() => return None,
                    origin = origins.of(&stream, &turn, place.line, is_slow) => origin,
                };
                let peer = Peer::Unix { uid, gid, pid, groups, origin, socket };
                seat.is_of(place.once_traced(&peer));
                Some(Connection::new(Either::Left(stream), peer, seat))
            })
        });
        // Who has no credentials is nobody, and is let go.
        traced.buffer_unordered(WAITING).filter_map(async |traced| traced.ok().flatten())
    }

    async fn accept(&mut self) -> UnixStream {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = sleep(LOOK_AFTER) => {
                    self.look_after();
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether it is the supervisor's own user, or root.
fn is_own(uid: u32) -> bool {
    const ROOT: u32 = 0;
    [ROOT, geteuid().as_raw()].contains(&uid)
}

/// Where a caller waits to be traced, and with whom it shares what there is. Agents share it, however many processes they
/// are, and strangers do who may all be one.
struct Place {
    /// By what its user or group is in there. Whoever may be an agent does not keep an operator waiting, whatever its user.
    line: (Line, u32),
    /// Until it has been traced.
    party: Party,
    /// From then on, if it is outside of all instances.
    person: Party,
}

impl Place {
    /// Of who has no role, and whose user no instance has.
    const fn of_stranger(crowd: Crowd) -> Self {
        let Crowd(number) = crowd;
        let (party, person) = (Party::Stranger(crowd), Party::Stranger(crowd));
        Self { line: (Line::Strangers, number), party, person }
    }

    /// All callers wait behind this.
    fn of(
        peer: &UCred,
        groups: Option<&[u32]>,
        turn: &Turn,
        (bindings, residents): (&Bindings, &Residents),
    ) -> Self {
        let (uid, own) = (peer.uid(), is_own(peer.uid()));
        let all = groups.into_iter().flatten().copied().chain([peer.gid()]);
        let bound = bindings.table().bound_by(uid, all);
        let line = match bound {
            _ if own => (Line::Own, uid),
            Some(Bound::User) => (Line::Known, uid),
            Some(Bound::Group(gid)) => (Line::Grouped, gid),
            None if residents.has(uid) => (Line::Agents, uid),
            // Nor is there more to look at: strangers are too many for that.
            None => return Self::of_stranger(Crowd::of(uid)),
        };
        let person = Party::of_person(uid, own, bound);
        // Beside the gateways' there are workers that hold what people run in an instance.
        let of = |pid| match residents.of_worker(pid) {
            Some(name) => Some(Look::Inside(name)),
            None => is_called_worker(pid).then_some(Look::Agent),
        };
        // To look at the walls of who is in many groups takes long.
        let look = if own && groups.is_none() { &Look::Agent } else { turn.look(of, own) };
        match look {
            Look::Inside(name) => {
                Self { line: (Line::Agents, uid), party: Party::Inside(name.clone()), person }
            }
            Look::Person if !matches!(person, Party::Stranger(_)) => {
                Self { line, party: person.clone(), person }
            }
            // Each of a thousand users of a group could look so.
            Look::Agent if matches!(person, Party::Group(_)) => Self { line, party: person.clone(), person },
            Look::Person | Look::Agent => {
                Self { line: (Line::Agents, uid), party: Party::Untraced(uid), person }
            }
        }
    }

    /// Of who says to run inside an instance and does not, that instance has the worst.
    fn once_traced(self, peer: &Peer) -> Party {
        match peer {
            Peer::Unix { origin: Some(Origin::Inside(name)), .. } if self.line.0 != Line::Strangers => {
                Party::Inside(name.clone())
            }
            Peer::Unix { origin: Some(Origin::Outside), .. } => self.person,
            Peer::Unix { uid, .. } => Party::Stranger(Crowd::of(*uid)),
            Peer::Certificate { name, .. } => Party::Certificate(name.clone()),
        }
    }
}

/// As the log is to call it.
fn who(peer: &io::Result<UCred>) -> String {
    let pid = peer.as_ref().ok().and_then(UCred::pid);
    pid.map_or_else(|| "a process elsewhere".into(), |pid| format!("process {pid}"))
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be another's by now. One that stays only means that the next client is refused instead of finding none.
        if inode(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Binds a path of any length, and does not listen yet.
fn bind(directory: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        bind_socket(&socket, &SocketAddrUnix::new(path)?)?;
        return Ok(socket);
    }
    let directory = File::open(directory)?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    bind_socket(&socket, &SocketAddrUnix::new(&short)?)?;
    Ok(socket)
}

/// The directory, of those that lead to `path`, in which somebody other than this user and root could put another
/// socket in its place.
pub(super) fn unsafe_directory(path: &Path) -> io::Result<Option<PathBuf>> {
    const ROOT: u32 = 0;
    const STICKY: u32 = 0o1000;
    const WORLD_WRITABLE: u32 = 0o002;
    let directory = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
    for directory in directory.ancestors() {
        let file = fs::metadata(directory)?;
        let is_ours = file.uid() == geteuid().as_raw() || file.uid() == ROOT;
        let is_open = file.mode() & WORLD_WRITABLE != 0 && file.mode() & STICKY == 0;
        if !is_ours || is_open {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_which_others_could_put_another_socket_is_found() {
        let home = tempfile::tempdir().unwrap();
        let open = home.path().join("open");
        let inside = open.join("inside");
        fs::create_dir_all(&inside).unwrap();
        let found = |directory: &Path| unsafe_directory(&directory.join("control.sock")).unwrap();
        assert_eq!(found(&inside), None);
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let open = open.canonicalize().unwrap();
        assert_eq!(found(&inside), Some(open.clone()), "who can move a directory away can put another there");
        fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(found(&open), None);
        assert!(unsafe_directory(Path::new("/nowhere/at/all")).is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let refused = Socket::bind(&path, || Rights { spares: true, ..Rights::control(false) }).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_link_in_the_place_of_the_own_socket_is_replaced_and_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (path, victim) = (home.path().join("control.sock"), home.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let socket = Socket::bind(&path, || Rights::control(false)).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        drop(socket);
    }

    #[tokio::test]
    async fn a_socket_that_was_replaced_is_not_removed_with_the_one_before() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let before = Socket::bind(&path, || Rights::control(false)).unwrap();
        let after = Socket::bind(&path, || Rights::control(true)).unwrap();
        drop(before);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        drop(after);
        assert!(!path.exists());
    }
}
