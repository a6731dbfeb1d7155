//! Managers of services: one starts what its user asks for, outside of all walls (systemd's of each user, `systemd-run
//! --user`; for root that of the host). They are asked by sockets with a path, which Landlock looks at from ABI 9 on alone.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use supervisor_proto::worker::Walls;
use supervisor_proto::worker::wall::{Kind, State};

use super::Claim;

/// Lowers what is said of the wall around files where such a one listens: whatever its user may open, an agent then has
/// opened by it.
pub(super) fn weigh(walls: &Walls, claims: &mut [Claim]) {
    let Some(files) = claims.iter_mut().find(|claim| claim.kind == Kind::Files) else { return };
    let uid = walls.user.as_ref().map_or(geteuid().as_raw(), |user| user.uid);
    if let Some(socket) = of(Path::new("/"), uid) {
        let taken = std::mem::replace(files, Claim::new(Kind::Files));
        let why = format!("who asks `{}` has programs run outside of all walls", socket.display());
        *files = taken.lacks(State::Partial, why);
    }
}

/// Where the one of this user listens, on the host whose root this is.
fn of(root: &Path, uid: u32) -> Option<PathBuf> {
    let its = match uid {
        0 => vec!["run/systemd/private".to_owned()],
        uid => ["systemd/private", "bus"].map(|socket| format!("run/user/{uid}/{socket}")).to_vec(),
    };
    let listens = |socket: &PathBuf| fs::metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    its.into_iter().map(|socket| root.join(socket)).find(listens)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_manager_is_that_of_its_user_and_listens() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        for directory in ["run/systemd", "run/user/7/systemd", "run/user/8", "run/user/9"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        let sockets = ["run/systemd/private", "run/user/7/systemd/private", "run/user/8/bus"];
        let _listening = sockets.map(|socket| UnixListener::bind(at(socket)).unwrap());
        fs::write(at("run/user/9/bus"), "").unwrap();
        let found = [0, 7, 8, 9, 10].map(|uid| of(host.path(), uid));
        let [roots, sevenths, eighths] = sockets.map(|socket| Some(at(socket)));
        assert_eq!(found, [roots, sevenths, eighths, None, None]);
    }
}
