//! System calls that no gateway needs, by seccomp(2).
//!
//! A list of what is refused, not of what is allowed: a gateway runs whatever its agent does, compilers and browsers
//! included. Refused is what changes or spies upon the host, and what has given root to too many. User namespaces
//! stay, for a browser builds its own sandbox of them; what they used to open up (mounts, netfilter, odd sockets)
//! is refused below.
//!
//! Debuggers work inside an instance: behind Landlock a process traces none outside. Without Landlock nothing else
//! keeps neighbours of one user apart, and tracing is refused altogether.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc::{self, c_long};
use rustix::io::{self, Errno};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};
use supervisor_proto::worker::Walls;
use supervisor_proto::worker::wall::{Kind, State};

use super::{Claim, Step};

/// Refused whatever their arguments are.
const REFUSED: &[c_long] = &[
    // Code in the kernel, and another kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    // The host: its end, its clock, its names, its swap, its quotas, its log.
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
    libc::SYS_vhangup,
    // Mounts. Landlock refuses them, too, where files are walled.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    // Into the namespaces of others, and files by number instead of by path.
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // Keys of the user, which all its processes share.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Windows into the kernel and other processes.
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // What is asked of the kernel through a ring passes this filter by.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// open_tree(2) with attributes, since Linux 6.15.
const OPEN_TREE_ATTR: c_long = 467;

/// Refused, too, on this processor: ports of the hardware, and segments, which only 16-bit programs use.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// Refused where Landlock does not keep it inside.
const TRACING: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];

/// Refused about any process but the caller, which Landlock does not look at: with a limit on file sizes a worker, a
/// neighbour or the supervisor ends at its next write. The number is the argument that says whom it is about; 0 is the
/// caller.
const ABOUT_OTHERS: &[(c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_move_pages, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// Of those, the ones that can be about all processes of a group, which may have others in it, or of the user, and the
/// first argument that says so.
const ABOUT_ALL: &[(c_long, u64)] = &[
    (libc::SYS_setpriority, 1),
    (libc::SYS_setpriority, 2),
    (libc::SYS_ioprio_set, 2),
    (libc::SYS_ioprio_set, 3),
];

/// Refused as if the file system had none: with an access list, a file that was made with the set-group-ID bit while its
/// group could not run it becomes a program. cp(1) then makes do with modes.
const ATTRIBUTES: [c_long; 9] = [
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

/// Refused behind any wall around files, as if there were none: by one of its flags a process begins in the control group of another instance, and no
/// filter sees flags that lie in memory. C libraries then make do with clone(2).
const CLONE: c_long = libc::SYS_clone3;

/// setxattr(2) and removexattr(2) by a directory, since Linux 6.13.
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;

/// The flags of chattr(1) by path, since Linux 6.17.
const FILE_SETATTR: c_long = 469;

/// Refused when they give a file the set-user-ID or set-group-ID bit, each with its argument that is the mode: whoever
/// runs such a file outside has the gateway's user and no walls.
const MODES: &[(c_long, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// fchmodat(2) with flags, since Linux 6.6.
pub(super) const FCHMODAT2: c_long = 452;

/// The same with the argument of its flags: only with some of them there is a mode. No filter sees that of openat2(2),
/// which OpenClaw needs; but a program loses both bits with the first byte that is written to it.
const MODES_IF_MADE: &[(c_long, u8, u8)] = &[
    (libc::SYS_openat, 2, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
];

/// The flags that make a file. With O_TMPFILE goes O_DIRECTORY, which makes none.
const MAKING: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// The families of sockets that are left (socket(2)).
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// SMC, which takes TCP ports behind Landlock's back.
const AF_SMC: i32 = 43;

/// The same by protocol, since Linux 6.11.
const IPPROTO_SMC: i32 = 256;

/// And by what makes it of a socket of TCP: a protocol above that (TCP_ULP). OpenSSL does without the one for TLS.
const OPTION: [(u8, i32); 2] = [(1, libc::IPPROTO_TCP), (2, libc::TCP_ULP)];

/// So does MPTCP.
const IPPROTO_MPTCP: i32 = 262;

/// The netlink protocol of firewalls: with a user namespace anybody's, and a steady source of holes.
const NETLINK_NETFILTER: i32 = 12;

/// Where a filter finds the number of the call.
const NUMBER: u32 = 0;

/// To skip a piece takes an instruction, to go through a rule about two.
const RULES_IN_A_PIECE: usize = 6;

/// The bit of a call by the x32 ABI, whose numbers the list does not have.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// By these a program types into the terminal that it shares with whoever has run it, whose shell reads that once it
/// has ended: TIOCSTI and TIOCLINUX (ioctl_tty(2)). Their type is not the same in each C library.
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// By these a tree of Btrfs is copied with all that it holds, whether or not that may be opened:
/// BTRFS_IOC_SNAP_CREATE and BTRFS_IOC_SNAP_CREATE_V2, whose types hold the size of what they take.
const COPYING: [u64; 2] = [0x5000_9401, 0x5000_9417];

/// By this a process makes its command line and its environment as long as it likes, for whoever reads them in /proc to
/// run out of memory or time: PR_SET_MM (prctl(2)).
const LENGTHENING: u64 = 35;

/// By these whoever has a file holds up everybody who opens it, for as long as a minute at a time: F_SETLEASE, and
/// F_SETDELEG of newer kernels.
const LEASING: [u64; 2] = [1_024, 1_040];

/// What is refused.
#[derive(Debug)]
pub(super) struct Filter {
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    arch: TargetArch,
    /// Whether tracing is refused where Landlock does not keep it inside.
    privileges: bool,
    /// Compiled, for a process that can trace nobody outside.
    apart: BpfProgram,
}

/// Compiles the filter for `walls`, if it needs any.
pub(super) fn plan(walls: &Walls, claims: &mut Vec<Claim>) -> Option<Filter> {
    let ports = !walls.bind.is_empty();
    let files = !(walls.write.is_empty() && walls.read.is_empty() && walls.files.is_empty());
    if !(walls.privileges || ports || files) {
        return None;
    }
    let what = "install the filter of system calls";
    let compiled = TargetArch::try_from(ARCH)
        .map_err(|_| format!("no filter of system calls is known for `{ARCH}`"))
        .and_then(|arch| filter(walls.privileges, ports, arch).map_err(|error| error.to_string()));
    let (filter, missing) = match compiled {
        Ok(filter) => (Some(filter), None),
        Err(why) => (None, Some(why)),
    };
    if walls.privileges {
        claims.push(match &missing {
            None => Claim::new(Kind::Syscalls).on(Step::Filter, State::Unavailable, what),
            Some(why) => Claim::unavailable(Kind::Syscalls, why.clone()),
        });
    }
    if let Some(claim) = claims.iter_mut().find(|claim| claim.kind == Kind::Ports) {
        let taken = std::mem::replace(claim, Claim::new(Kind::Ports));
        *claim = match missing {
            None => taken.on(Step::Filter, State::Partial, what),
            Some(why) => taken.lacks(State::Partial, why),
        };
    }
    filter
}

fn filter(privileges: bool, ports: bool, arch: TargetArch) -> Result<Filter, BackendError> {
    let mut rules = BTreeMap::from([(CLONE, Vec::new())]);
    if privileges {
        let refused = REFUSED.iter().chain(REFUSED_HERE).chain(&ATTRIBUTES);
        rules.extend(refused.map(|number| (*number, Vec::new())));
        rules.extend(about_others()?);
        rules.extend(modes()?);
    }
    if privileges || ports {
        rules.insert(libc::SYS_socket, sockets(privileges, ports)?);
    }
    if ports {
        let option = OPTION.map(|(index, value)| argument(index, SeccompCmpOp::Eq, value));
        let option = option.into_iter().collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_setsockopt, vec![SeccompRule::new(option)?]);
    }
    let apart = program(rules.clone(), arch)?;
    Ok(Filter { rules, arch, privileges, apart })
}

/// Which calls are refused when they are about other processes, type for somebody else, copy what is his, or hold it or
/// its reader up.
fn about_others() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let when = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for (number, argument) in ABOUT_OTHERS {
        rules.entry(*number).or_default().push(when(*argument, SeccompCmpOp::Ne, 0)?);
    }
    for (number, all) in ABOUT_ALL {
        rules.entry(*number).or_default().push(when(0, SeccompCmpOp::Eq, *all)?);
    }
    for request in TYPING.into_iter().chain(COPYING) {
        rules.entry(libc::SYS_ioctl).or_default().push(when(1, SeccompCmpOp::Eq, request)?);
    }
    for command in LEASING {
        rules.entry(libc::SYS_fcntl).or_default().push(when(1, SeccompCmpOp::Eq, command)?);
    }
    rules.insert(libc::SYS_prctl, vec![when(0, SeccompCmpOp::Eq, LENGTHENING)?]);
    Ok(rules)
}

/// Which modes are refused.
fn modes() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let has = |argument, bits: u32| {
        let bits = u64::from(bits);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
    };
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for bit in [libc::S_ISUID, libc::S_ISGID] {
        for (number, mode) in MODES {
            rules.entry(*number).or_default().push(SeccompRule::new(vec![has(*mode, bit)?])?);
        }
        for (number, flags, mode) in MODES_IF_MADE {
            for making in MAKING {
                let rule = SeccompRule::new(vec![has(*flags, making.unsigned_abs())?, has(*mode, bit)?])?;
                rules.entry(*number).or_default().push(rule);
            }
        }
    }
    Ok(rules)
}

fn argument(index: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    let value = u64::from(value.unsigned_abs());
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

/// Which sockets are refused.
fn sockets(privileges: bool, ports: bool) -> Result<Vec<SeccompRule>, BackendError> {
    let family = |family| argument(0, SeccompCmpOp::Eq, family);
    let protocol = |protocol| argument(2, SeccompCmpOp::Eq, protocol);
    let mut rules = Vec::new();
    if ports {
        rules.push(SeccompRule::new(vec![family(AF_SMC)?])?);
        rules.push(SeccompRule::new(vec![protocol(IPPROTO_SMC)?])?);
        rules.push(SeccompRule::new(vec![protocol(IPPROTO_MPTCP)?])?);
    }
    if privileges {
        let others = FAMILIES.iter().map(|family| argument(0, SeccompCmpOp::Ne, *family));
        rules.push(SeccompRule::new(others.collect::<Result<_, _>>()?)?);
        rules.push(SeccompRule::new(vec![family(libc::AF_NETLINK)?, protocol(NETLINK_NETFILTER)?])?);
    }
    Ok(rules)
}

/// A process of another processor mode is killed by what seccompiler puts first.
///
/// To install a filter, the kernel walks it once for every call there is, and seccompiler compares the number with that
/// of one rule after the other. So the rules are cut into pieces, and a number goes through its own. Each piece answers
/// for whatever comes to it, so that who comes to the next has loaded nothing else.
fn program(rules: BTreeMap<c_long, Vec<SeccompRule>>, arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let mut program = vec![load()];
    program.extend(other_abi());
    let mut rules = rules.into_iter().peekable();
    while let Some(errno) = rules.peek().map(|(number, _)| errno(*number)) {
        let mut piece = BTreeMap::new();
        while piece.len() < RULES_IN_A_PIECE
            && let Some(rule) = rules.next_if(|(number, _)| self::errno(*number) == errno)
        {
            piece.extend([rule]);
        }
        let refusal = SeccompAction::Errno(errno);
        let piece = BpfProgram::try_from(SeccompFilter::new(piece, SeccompAction::Allow, refusal, arch)?)?;
        if let Some((beyond, _)) = rules.peek() {
            program.extend(skip(*beyond, piece.len()));
        }
        program.extend(piece);
    }
    Ok(program)
}

/// What a refused call answers.
fn errno(number: c_long) -> u32 {
    let errno = match number {
        CLONE => libc::ENOSYS,
        number if ATTRIBUTES.contains(&number) => libc::EOPNOTSUPP,
        _ => libc::EPERM,
    };
    errno.unsigned_abs()
}

/// Skips the next `length` instructions if the number of the call, which has been loaded, is `beyond` or more.
fn skip(beyond: c_long, length: usize) -> BpfProgram {
    let compare = [libc::BPF_JMP, libc::BPF_JGE, libc::BPF_K];
    match u8::try_from(length) {
        Ok(length) => vec![instruction(compare, [length, 0], word(beyond))],
        // Comparisons skip no more than 255.
        Err(_) => vec![
            instruction(compare, [0, 1], word(beyond)),
            instruction([libc::BPF_JMP, libc::BPF_JA, libc::BPF_K], [0, 0], word(length)),
        ],
    }
}

/// Loads the number of the call.
pub(super) fn load() -> sock_filter {
    instruction([libc::BPF_LD, libc::BPF_W, libc::BPF_ABS], [0, 0], NUMBER)
}

/// Refuses calls by x32: if the number that has been loaded has the bit, EPERM; else go on behind these two.
#[cfg(target_arch = "x86_64")]
fn other_abi() -> BpfProgram {
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    vec![
        instruction([libc::BPF_JMP, libc::BPF_JGE, libc::BPF_K], [0, 1], X32),
        instruction([libc::BPF_RET, libc::BPF_K, 0], [0, 0], refusal),
    ]
}
#[cfg(not(target_arch = "x86_64"))]
fn other_abi() -> BpfProgram {
    BpfProgram::new()
}

pub(super) fn word<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// Its code is the sum of `code`; if it compares, so many instructions are skipped, `then` or `otherwise`.
pub(super) fn instruction(code: [u32; 3], [then, otherwise]: [u8; 2], k: u32) -> sock_filter {
    let code = u16::try_from(code.iter().sum::<u32>()).unwrap_or_default();
    sock_filter { code, jt: then, jf: otherwise, k }
}

impl Filter {
    /// Puts this process behind the one that fits. Sets no_new_privs, without which nobody may.
    pub(super) fn install(&self, traced_apart: bool) -> io::Result<()> {
        let installed = match traced_apart {
            true => apply_filter(&self.apart),
            // It is seldom needed, and all that this process does is to wait for it.
            false => self.alone().map_err(Error::Backend).and_then(|alone| apply_filter(&alone)),
        };
        installed.map_err(|error| {
            let errno = match &error {
                Error::Prctl(source) | Error::Seccomp(source) => source.raw_os_error(),
                Error::Backend(_) | Error::EmptyFilter | Error::ThreadSync(_) => None,
            };
            errno.map_or(Errno::INVAL, Errno::from_raw_os_error)
        })
    }

    /// For a process that could trace others.
    fn alone(&self) -> Result<BpfProgram, BackendError> {
        let mut rules = self.rules.clone();
        if self.privileges {
            rules.extend(TRACING.iter().map(|number| (*number, Vec::new())));
        }
        program(rules, self.arch)
    }
}
