//! Against real sockets and processes.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use super::*;

/// A process that listens on a port of its own choice.
struct Squatter {
    child: Child,
    port: u16,
}

impl Squatter {
    fn start(script: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-uc", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LISTEN: &str = "import socket,sys
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1]); sys.stdin.read()";

/// Makes its command line as long as it likes (prctl(2), PR_SET_MM_MAP), with a word where nobody is to look for one.
const LENGTHEN: &str = r"
import ctypes, mmap, struct
of = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
code, end, stack = (int(of[n - 3]) for n in (26, 27, 28))
data, data_end, brk, _, _, env, env_end = (int(of[n - 3]) for n in range(45, 52))
line = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
line[512 << 10:] = b'deep\0\0\0\0' * (64 << 10)
at = ctypes.addressof(ctypes.c_char.from_buffer(line))
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
now = libc.sbrk(0)
like = struct.pack('11QQIi', code, end, data, data_end, brk, now, stack, at, at + len(line), env, env_end, 0, 0, -1)
libc.prctl(35, 14, like, len(like), 0) and exit(1)
";

/// A port on which nobody listens, and what keeps it from everybody else.
fn free_port() -> (u16, rustix::fd::OwnedFd) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    (address.port(), socket)
}

#[test]
fn a_listener_on_any_address_takes_the_port() {
    let (free, _held) = free_port();
    for address in ["127.0.0.1:0", "127.0.0.3:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let port = listener.local_addr().unwrap().port();
        assert_eq!(taken(&[free, port]), Some(port), "{address}");
    }
}

#[test]
fn a_port_without_a_listener_is_free_even_if_a_server_has_bound_it() {
    let (port, _held) = free_port();
    assert_eq!(taken(&[port]), None);
    assert_eq!(holders(&[port]), []);
}

#[test]
fn connections_that_linger_do_not_take_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // The server closes first, so its side is the one that lingers.
    drop(listener.accept().unwrap());
    drop(client);
    drop(listener);
    // A process that another test is starting may have a copy of the listener until it executes its program.
    let mut tries = 30_000;
    while taken(&[port]).is_some() && tries > 0 {
        std::thread::park_timeout(std::time::Duration::from_millis(1));
        tries -= 1;
    }
    assert_eq!(taken(&[port]), None);
}

#[test]
fn a_port_at_this_end_of_a_connection_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = client.local_addr().unwrap().port();
    assert_eq!(taken(&[port]), Some(port));
    let [holder] = &holders(&[port])[..] else { panic!("nobody holds it") };
    assert_eq!((holder.hold, holder.pid), (Hold::Connected, Some(std::process::id().cast_signed())));
}

#[test]
fn a_squatter_is_named_with_pid_and_command() {
    let squatter = Squatter::start(LISTEN);
    let pid = squatter.child.id().cast_signed();
    assert_eq!(taken(&[squatter.port]), Some(squatter.port));
    let [holder] = &holders(&[squatter.port])[..] else { panic!("nobody holds it") };
    assert_eq!((holder.port, holder.pid, holder.hold), (squatter.port, Some(pid), Hold::Listening));
    assert_eq!(holder.uid, rustix::process::getuid().as_raw());
    let sentence = holder.to_string();
    assert!(sentence.starts_with(&format!("process {pid} (")), "{sentence}");
    assert!(sentence.contains("python3 -uc import socket,sys s = "), "{sentence}");
    assert!(holder.command.chars().count() <= COMMAND + 1 && holder.command.ends_with('…'), "{sentence}");
}

#[test]
fn of_a_squatter_with_an_endless_command_line_no_more_is_read_than_can_be_shown() {
    let squatter = Squatter::start(&format!("{LENGTHEN}{LISTEN}"));
    let [holder] = &holders(&[squatter.port])[..] else { panic!("nobody holds it") };
    let whole = std::fs::read(format!("/proc/{}/cmdline", squatter.child.id())).unwrap();
    assert_eq!(whole.len(), 1 << 20);
    assert_eq!(holder.command, "python3", "it is named as one that shows no command line");
}

#[test]
fn a_socket_that_was_inherited_is_its_first_owners() {
    let fork = LISTEN.replace("print(", "import os; os.fork() or sys.stdin.read(); print(");
    let squatter = Squatter::start(&fork);
    let [holder] = &holders(&[squatter.port])[..] else { panic!("nobody holds it") };
    assert_eq!(holder.pid, Some(squatter.child.id().cast_signed()));
}

#[test]
fn each_of_many_ports_has_its_holder() {
    let squatters: Vec<Squatter> = (0..3).map(|_| Squatter::start(LISTEN)).collect();
    let (free, _held) = free_port();
    let mut ports: Vec<u16> = squatters.iter().map(|squatter| squatter.port).collect();
    ports.push(free);
    let found: BTreeMap<u16, Option<i32>> =
        holders(&ports).into_iter().map(|holder| (holder.port, holder.pid)).collect();
    let expected = squatters.iter().map(|one| (one.port, Some(one.child.id().cast_signed()))).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_holder_that_cannot_be_seen_is_described() {
    let unseen = |hold| Holder { port: 1, hold, pid: None, command: String::new(), uid: 1000 }.to_string();
    assert!(unseen(Hold::Closing).contains("still closing"));
    let hint = if geteuid().is_root() { "cannot be seen from here" } else { "run as root to learn which" };
    assert!(unseen(Hold::Listening).contains(hint));
}

#[test]
fn a_command_is_made_fit_for_one_line() {
    assert_eq!(presentable(b"node\0server.js\0--x=\x1b[2J\n\0"), "node server.js --x= [2J");
    let long = presentable("ä".repeat(500).as_bytes());
    assert_eq!(long.chars().count(), COMMAND + 1);
}
