//! Telling whoever started the gateway how it is, sd_notify(3), where `NOTIFY_SOCKET` names one.
//!
//! A datagram to a receiver that has stopped reading blocks its sender, and the usual crates for this
//! protocol let it: a gateway would hang in its drain because its supervisor is paused. Nothing here waits on
//! the loop. The variable stays set: unsetting is sound only while no other thread runs, and no program is
//! started from here.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;

use tokio::net::UnixDatagram;

use crate::log;

/// Says that the gateway is ready, as soon as the receiver has room for it: it is said once and must not be
/// lost.
pub(crate) async fn ready() {
    let sent = async {
        let Some(socket) = connected()? else { return Ok(()) };
        match socket.send(b"READY=1\n") {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                UnixDatagram::from_std(socket)?.send(b"READY=1\n").await.map(drop)
            }
            sent => sent.map(drop),
        }
    };
    complain(sent.await);
}

/// Says that the gateway stops, if the receiver has room for it: its exit says so too.
pub(crate) fn stopping() {
    let sent = connected().and_then(|socket| socket.map_or(Ok(0), |socket| socket.send(b"STOPPING=1\n")));
    complain(sent.map(drop));
}

fn connected() -> io::Result<Option<StdDatagram>> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(Some(socket))
}

fn complain(sent: io::Result<()>) {
    if let Err(error) = sent {
        log::warn(format_args!("failed to notify the service manager: {error}"));
    }
}
