//! What an agent inside a gateway tries. It runs as the gateway's program: this very test binary, told by its
//! environment what to try. It ends with the errno that it met, with 0 if nothing stood in its way.

#![expect(unsafe_code, reason = "calls that no gateway makes have no safe wrappers")]

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

use nix::libc;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with};
use rustix::process::{Pid, Signal, kill_process};
use supervisor_proto::worker::attach::Role;
use supervisor_proto::worker::refused::Reason;
use supervisor_proto::worker::report::Report as Body;

use crate::harness::Link;

/// Names the attack to this program.
pub(crate) const ATTACK: &str = "ATTACK";

/// How the test binary is told to be the attacker.
pub(crate) const ARGS: [&str; 5] =
    ["walls::attack::attack", "--exact", "--ignored", "--nocapture", "--test-threads=1"];

/// Some calls were refused and some were not.
const MIXED: i32 = 250;

/// Calls that nothing but a filter of them answers with EPERM, given nonsense by root.
const CALLS: [i64; 36] = [
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_reboot,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    467,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
];

/// Calls that some hosts refuse to everybody.
const RINGS: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

#[test]
#[ignore = "it is run by the other tests, as a gateway"]
fn attack() {
    let Ok(attack) = std::env::var(ATTACK) else { return };
    let (what, target) = attack.split_once(' ').unwrap_or((&attack, ""));
    let outcome = carry_out(what, target);
    eprintln!("{attack}: {outcome:?}");
    exit(match outcome {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(MIXED),
    });
}

fn carry_out(what: &str, target: &str) -> io::Result<()> {
    match what {
        "read" => File::open(target)?.read(&mut [0]).map(drop),
        "list" => fs::read_dir(target).map(drop),
        "write" => OpenOptions::new().append(true).create(true).open(target).map(drop),
        "truncate" => truncate(target),
        "delete" => fs::remove_file(target),
        "move-in" => fs::rename(target, "stolen"),
        "make" => fs::create_dir(target),
        "link" => std::os::unix::fs::symlink("/", target),
        "pipe" => mknodat(CWD, target, FileType::Fifo, Mode::RWXU, 0).map_err(io::Error::from),
        "move" => fs::rename(target, format!("{target}.away")),
        "replace" => fs::write(format!("{target}.new"), "new")
            .and_then(|()| fs::rename(target, format!("{target}.old")))
            .and_then(|()| fs::rename(format!("{target}.new"), target))
            .and_then(|()| fs::remove_file(format!("{target}.old"))),
        "link-in" => fs::hard_link(target, "stolen"),
        "bind" => TcpListener::bind((Ipv4Addr::LOCALHOST, number(target))).map(drop),
        "bind-mptcp" => bind_mptcp(number(target)),
        "signal" => Ok(kill_process(pid(target), Signal::TERM)?),
        "trace" => outcome(call(libc::SYS_ptrace, [0x4206, number::<i64>(target), 0, 0, 0, 0])),
        "traced" => die_traced(),
        "trapped" => die_trapped(),
        "memory" => OpenOptions::new().read(true).write(true).open(format!("/proc/{target}/mem")).map(drop),
        "environ" => File::open(format!("/proc/{target}/environ"))?.read(&mut [0]).map(drop),
        "abstract" => UnixStream::connect_addr(&SocketAddr::from_abstract_name(target)?).map(drop),
        "notify" => notify(),
        "take-over" => take_over(target),
        "meddle" => meddle(number(target)),
        "own-limits" => {
            outcome(call(libc::SYS_prlimit64, [0; 6]) | call(libc::SYS_setpriority, [0, 0, 1, 0, 0, 0]))
        }
        "type" => type_ahead(),
        "copy" => copy_a_tree(),
        "lease" => lease(),
        "lengthen" => lengthen(),
        "bind-ulp" => another_protocol(),
        "bits" => bits(),
        "bits-unseen" => bits_unseen(),
        "own-bits" => own_bits(),
        "open-up" => super::modes::open_up(target),
        "open-up-replaced" => super::modes::open_up_replaced(target),
        "own-modes" => super::modes::own(),
        "calls" => calls(&CALLS),
        "rings" => calls(&RINGS),
        // Of no size: the kernel says so before it looks at the flags, one of which names a control group.
        "clone3" => outcome(call(libc::SYS_clone3, [0; 6])),
        "x32" => outcome(call(0x4000_0000 + libc::SYS_getpid, [0; 6])),
        "other-mode" => other_mode(),
        "netfilter" => outcome(call(libc::SYS_socket, [16, 3, 12, 0, 0, 0])),
        "packets" => outcome(call(libc::SYS_socket, [17, 3, 0, 0, 0, 0])),
        "sandbox" => sandbox(),
        other => panic!("nobody knows how to `{other}`"),
    }
}

/// Makes its worker its tracer, and dies by a signal of which that is told first.
fn die_traced() -> io::Result<()> {
    outcome(call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0, 0, 0]))?;
    Err(Command::new("/bin/sh").args(["-c", "kill -USR1 $$; sleep 600"]).exec())
}

/// The same by the signal of which executions are told as well.
fn die_trapped() -> io::Result<()> {
    outcome(call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0, 0, 0]))?;
    Ok(nix::sys::signal::raise(nix::sys::signal::Signal::SIGTRAP)?)
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(number(text)).unwrap()
}

fn call(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    // SAFETY: no argument given here is the address of anything that this program uses.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

fn outcome(returned: i64) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn truncate(path: &str) -> io::Result<()> {
    let path = CString::new(path)?;
    // SAFETY: the path is a C string that lives as long as the call.
    outcome(unsafe { libc::truncate(path.as_ptr(), 0) }.into())
}

/// Listens on a TCP port with a socket that is no TCP socket to Landlock.
fn bind_mptcp(port: u16) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::MPTCP))?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(listen(&socket, 1)?)
}

/// No attack: says that it is ready, and lives.
fn notify() -> io::Result<()> {
    let address = std::env::var_os("NOTIFY_SOCKET").ok_or(io::ErrorKind::NotFound)?;
    UnixDatagram::unbound()?.send_to(b"READY=1", address)?;
    std::thread::park();
    Ok(())
}

/// Orders a neighbour's gateway to be killed.
fn take_over(socket: &str) -> io::Result<()> {
    let mut link = Link::new(UnixStream::connect(socket)?);
    link.attach(Role::Control, 1000, &[]);
    match link.next() {
        Some(Body::State(state)) => {
            link.kill(state.incarnation);
            link.exited();
            Ok(())
        }
        Some(Body::Refused(refused)) if refused.reason() == Reason::WrongKey && link.next().is_none() => {
            Err(io::Error::from_raw_os_error(libc::EACCES))
        }
        other => panic!("{other:?}"),
    }
}

/// Changes nothing about a process, by every call that could change something about it or about all of its user.
fn meddle(process: i64) -> io::Result<()> {
    /// What sched_setattr(2) takes: its size, and nothing out of the ordinary.
    const ATTRIBUTES: [u32; 12] = [48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const USUAL: i64 = (2 << 13) | 4;
    let at = |bytes: *const u32| bytes.expose_provenance().cast_signed() as i64;
    let (processors, usual) = ([u32::MAX; 32], [0_u32]);
    let about = [
        (libc::SYS_prlimit64, [process, libc::RLIMIT_FSIZE.into(), 0, 0, 0, 0]),
        (libc::SYS_setpriority, [0, process, 0, 0, 0, 0]),
        (libc::SYS_setpriority, [1, 0, 0, 0, 0, 0]),
        (libc::SYS_setpriority, [2, 0, 0, 0, 0, 0]),
        (libc::SYS_sched_setaffinity, [process, 128, at(processors.as_ptr()), 0, 0, 0]),
        (libc::SYS_sched_setscheduler, [process, 0, at(usual.as_ptr()), 0, 0, 0]),
        (libc::SYS_sched_setparam, [process, at(usual.as_ptr()), 0, 0, 0, 0]),
        (libc::SYS_sched_setattr, [process, at(ATTRIBUTES.as_ptr()), 0, 0, 0, 0]),
        (libc::SYS_ioprio_set, [1, process, USUAL, 0, 0, 0]),
        (libc::SYS_ioprio_set, [2, 0, USUAL, 0, 0, 0]),
    ];
    let refused = |(number, arguments): &(i64, [i64; 6])| {
        let outcome = outcome(call(*number, *arguments));
        eprintln!("{number}: {outcome:?}");
        outcome.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    };
    all_or_none(about.iter().filter(|call| refused(call)).count(), about.len())
}

/// Copies a tree of Btrfs with what it may not open.
fn copy_a_tree() -> io::Result<()> {
    let tree = File::open(".")?;
    let calls: [i64; 2] = [0x5000_9401, 0x5000_9417];
    // Wherever there is none, that is what the kernel says unless the call is refused before.
    let refused = |request: &i64| {
        let outcome = outcome(call(libc::SYS_ioctl, [tree.as_raw_fd().into(), *request, 0, 0, 0, 0]));
        outcome.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    };
    all_or_none(calls.iter().filter(|request| refused(request)).count(), calls.len())
}

/// Has whoever opens a file of this user's wait.
fn lease() -> io::Result<()> {
    let file = File::create("leased")?;
    outcome(call(
        libc::SYS_fcntl,
        [file.as_raw_fd().into(), libc::F_SETLEASE.into(), libc::F_WRLCK.into(), 0, 0, 0],
    ))
}

/// Asks how to make its command line longer, at an address where nothing is.
fn lengthen() -> io::Result<()> {
    const PR_SET_MM_MAP_SIZE: i64 = 15;
    match outcome(call(libc::SYS_prctl, [libc::PR_SET_MM.into(), PR_SET_MM_MAP_SIZE, 0, 0, 0, 0])) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        outcome => outcome,
    }
}

/// Makes another of a TCP socket, which is none to Landlock then.
fn another_protocol() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (level, option) = (i64::from(libc::IPPROTO_TCP), i64::from(libc::TCP_ULP));
    let name = CString::new("smc")?;
    let outcome =
        outcome(call(libc::SYS_setsockopt, [socket.as_raw_fd().into(), level, option, address(&name), 3, 0]));
    // Few kernels have it.
    outcome.or_else(|error| if error.raw_os_error() == Some(libc::EPERM) { Err(error) } else { Ok(()) })
}

/// Types into a terminal what whoever reads it next takes for its person's.
fn type_ahead() -> io::Result<()> {
    let calls = [libc::TIOCSTI, libc::TIOCLINUX];
    // There is no terminal, which is what the kernel says unless the call is refused before.
    let refused = |request: &libc::c_ulong| {
        call(libc::SYS_ioctl, [0, request.cast_signed(), 0, 0, 0, 0]) < 0
            && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    };
    all_or_none(calls.iter().filter(|request| refused(request)).count(), calls.len())
}

/// Makes a program that runs as this user, in every way there is.
fn bits() -> io::Result<()> {
    const HERE: i64 = libc::AT_FDCWD as i64;
    let (file, fresh) = (CString::new("file")?, CString::new("fresh")?);
    let descriptor = File::create("file")?;
    let (file, fresh) = (address(&file), address(&fresh));
    let mut refused = 0;
    let mut all = 0;
    for mode in [0o4755, 0o2755] {
        let making = i64::from(libc::O_CREAT | libc::O_WRONLY);
        let nameless = i64::from(libc::O_TMPFILE | libc::O_WRONLY);
        let directory = CString::new(".")?;
        let regular = i64::from(libc::S_IFREG);
        let mut ways = vec![
            (libc::SYS_fchmod, [descriptor.as_raw_fd().into(), mode, 0, 0, 0, 0]),
            (libc::SYS_fchmodat, [HERE, file, mode, 0, 0, 0]),
            (452, [HERE, file, mode, 0, 0, 0]),
            (libc::SYS_mknodat, [HERE, fresh, regular | mode, 0, 0, 0]),
            (libc::SYS_openat, [HERE, fresh, making, mode, 0, 0]),
            (libc::SYS_openat, [HERE, address(&directory), nameless, mode, 0, 0]),
        ];
        #[cfg(target_arch = "x86_64")]
        ways.extend([
            (libc::SYS_chmod, [file, mode, 0, 0, 0, 0]),
            (libc::SYS_creat, [fresh, mode, 0, 0, 0, 0]),
            (libc::SYS_mknod, [fresh, regular | mode, 0, 0, 0, 0]),
            (libc::SYS_open, [fresh, making, mode, 0, 0, 0]),
        ]);
        for (number, arguments) in ways {
            let _ = fs::remove_file("fresh");
            let outcome = outcome(call(number, arguments));
            eprintln!("{number} {mode:o}: {outcome:?}");
            all += 1;
            refused += usize::from(outcome.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)));
        }
    }
    all_or_none(refused, all)
}

/// The same by the call whose mode no filter sees.
fn bits_unseen() -> io::Result<()> {
    /// In an access list, its version and for each entry whom it is about, what that one may, and nobody by number
    /// (acl(5)): the owner everything, its group and all others reading and running.
    const READ_AND_RUN_BY_ALL: [u32; 7] = [2, 7 << 16 | 1, !0, 5 << 16 | 4, !0, 5 << 16 | 0x20, !0];
    let (fresh, list) = (CString::new("fresh")?, CString::new("system.posix_acl_access")?);
    let [file, list, runs] = [
        address(&fresh),
        address(&list),
        READ_AND_RUN_BY_ALL.as_ptr().expose_provenance().cast_signed() as i64,
    ];
    let mut made = false;
    for mode in [0o6755, 0o2644] {
        let _ = fs::remove_file("fresh");
        let how = [u64::from((libc::O_CREAT | libc::O_WRONLY).unsigned_abs()), mode, 0];
        let how = how.as_ptr().expose_provenance().cast_signed() as i64;
        outcome(call(libc::SYS_openat2, [libc::AT_FDCWD.into(), file, how, 24, 0, 0]))?;
        OpenOptions::new().write(true).open("fresh")?.write_all(b"#!/bin/sh\n")?;
        let listed = outcome(call(libc::SYS_setxattr, [file, list, runs, 28, 0, 0]));
        eprintln!("{mode:o}: {listed:?}");
        // A group's bit means nothing where the group may not run it.
        let mode = fs::metadata("fresh")?.permissions().mode();
        made |= mode & 0o4000 != 0 || mode & 0o2010 == 0o2010;
    }
    if made { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// fchmodat2(2).
pub(super) fn fchmodat2(at: i32, path: &CStr, mode: u32, flags: i32) -> rustix::io::Result<()> {
    let path = path.as_ptr().expose_provenance().cast_signed() as i64;
    let changed = outcome(call(452, [at.into(), path, mode.into(), flags.into(), 0, 0]));
    changed.map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap())
}

fn address(text: &CString) -> i64 {
    text.as_ptr().expose_provenance().cast_signed() as i64
}

/// What every program does with modes. Without a flag that makes a file, there may be anything in the place of one.
fn own_bits() -> io::Result<()> {
    let file = CString::new("file")?;
    File::create("file")?;
    fs::set_permissions("file", Permissions::from_mode(0o1755))?;
    outcome(call(libc::SYS_openat, [libc::AT_FDCWD.into(), address(&file), 0, 0o7777, 0, 0]))?;
    let directory = libc::O_DIRECTORY.into();
    let here = CString::new(".")?;
    outcome(call(libc::SYS_openat, [libc::AT_FDCWD.into(), address(&here), directory, 0o7777, 0, 0]))
}

/// EPERM if every call is refused, nothing if none is.
pub(super) fn all_or_none(refused: usize, all: usize) -> io::Result<()> {
    match refused {
        0 => Ok(()),
        some if some == all => Err(io::Error::from_raw_os_error(libc::EPERM)),
        some => Err(io::Error::other(format!("{some} of {all} were refused"))),
    }
}

fn calls(numbers: &[i64]) -> io::Result<()> {
    let refused = |number: i64| {
        // Minus one is no address, no descriptor, no length and no command.
        let refused =
            call(number, [-1; 6]) < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
        eprintln!("{number}: {}", if refused { "refused" } else { "let through" });
        refused
    };
    all_or_none(numbers.iter().filter(|number| refused(**number)).count(), numbers.len())
}

/// getpid(2) as a 32-bit program asks for it.
#[cfg(target_arch = "x86_64")]
fn other_mode() -> io::Result<()> {
    let returned: i64;
    // SAFETY: the interrupt is a system call; this one only returns a number. It leaves all registers but those
    // named, and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => returned, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, options(nostack));
    }
    outcome(returned)
}
#[cfg(not(target_arch = "x86_64"))]
fn other_mode() -> io::Result<()> {
    Ok(())
}

/// What a browser builds around its renderers: namespaces, a user mapped to itself, an empty root.
fn sandbox() -> io::Result<()> {
    let user = rustix::process::getuid();
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
    // SAFETY: this test runs on the only thread of its process, and only that thread is moved.
    outcome(unsafe { libc::unshare(namespaces) }.into())?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1\n"))?;
    Ok(rustix::process::chroot("/proc/self/fdinfo")?)
}
