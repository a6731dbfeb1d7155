//! What the kernel is asked directly, for want of a safe wrapper.

#![expect(unsafe_code, reason = "the call below has no safe counterpart; it says why it is sound")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{errno::Errno, libc};

/// As many groups as nearly everyone has at most; who has more costs a second call.
const USUAL_GROUPS: usize = 64;

/// The most that are asked for. Who is in more is in them to be slow (NGROUPS_MAX is 65,536).
const MOST_GROUPS: usize = 1_024;

/// The supplementary groups that the process at the other end of a Unix socket was in when it connected
/// (SO_PEERGROUPS, Linux 4.13). Its own group is not among them. Fails for who is in too many.
pub(crate) fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL_GROUPS];
    loop {
        let room = size_of_val(groups.as_slice());
        let mut bytes = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes to where `groups` has that many, and sets `bytes`; both are
        // ours alone for the time of the call.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = usize::try_from(bytes).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        match Errno::result(answer) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(Errno::ERANGE) if (groups.len() + 1..=MOST_GROUPS).contains(&count) => {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::getgroups;

    use super::*;

    #[test]
    fn the_groups_of_the_other_end_are_its_own() {
        let (one, other) = UnixStream::pair().unwrap();
        let mine: Vec<u32> = getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert_eq!(peer_groups(&one).unwrap(), mine);
        assert_eq!(peer_groups(&other).unwrap(), mine);
    }
}
