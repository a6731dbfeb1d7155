//! Whether the host will bear the fleet: its clock, its disks, its limits, and a user manager that stays.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, getrlimit},
    statvfs::statvfs,
};

use super::{
    ASK,
    finding::{Finding, Mend, Severity},
    scene::{Budget, Patient, Scene},
};
use crate::{tool::Tool, typed::word};

/// 2026-01-01: this program is younger.
const OLDEST: u64 = 1_767_225_600;

/// A clock that is corrected bit by bit stays within this.
const JUMP: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Descriptors of the supervisor itself: store, sockets, callers.
const OWN_FILES: u64 = 256;

/// Descriptors for each instance: its worker, its log, its probes, whoever follows it.
const FILES_EACH: u64 = 8;

/// inotify instances of each gateway: one for each event loop that watches something.
const INOTIFY_EACH: u64 = 2;

/// Directories that a gateway watches: configuration, skills, workspace.
const WATCHES_EACH: u64 = 500;

/// Threads of a gateway: OpenClaw has about 40 in three processes, and starts tools.
const THREADS_EACH: u64 = 100;

/// A user's manager, and with it all user units, ends at the last log-out, unless the user may linger.
pub(super) fn linger(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let me = nix::unistd::geteuid();
    let group = fs::read_to_string(scene.at("/proc/self/cgroup")).unwrap_or_default();
    if me.is_root()
        || !scene.at("/run/systemd/system").is_dir()
        || !group.contains(&format!("user@{me}.service"))
    {
        return Vec::new();
    }
    let user =
        nix::unistd::User::from_uid(me).ok().flatten().map_or_else(|| me.to_string(), |user| user.name);
    if scene.at("/var/lib/systemd/linger").join(&user).exists() {
        return Vec::new();
    }
    let what = format!("user `{user}` does not linger, and the supervisor runs in that user's systemd");
    let why = "supervisor and gateways are killed at the last log-out and do not start at boot";
    vec![Finding::new(
        "host.linger",
        Severity::Warning,
        what,
        why,
        Mend::Type(format!("loginctl enable-linger {user}")),
    )]
}

/// A clock that is wrong, was wrong, or may become so.
pub(super) fn clock(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mend = Mend::Type("timedatectl set-ntp true".to_owned());
    let why = "tokens, certificates and schedules go by the clock, and so does what the log says";
    if now.as_secs() < OLDEST {
        let what = "the clock stands before 2026: it has not been set since the host started";
        return vec![Finding::new("host.clock", Severity::Warning, what, why, mend)];
    }
    let latest = scene.patients.iter().map(|patient| Duration::from_nanos(patient.since.0)).max();
    if let Some(ahead) = latest.and_then(|latest| latest.checked_sub(now)).filter(|ahead| *ahead > JUMP) {
        let what = format!(
            "the clock was set back by about {}",
            humantime::format_duration(Duration::from_secs(ahead.as_secs()))
        );
        return vec![Finding::new("host.clock-back", Severity::Warning, what, why, mend)];
    }
    let managed = scene.at("/run/systemd/system").is_dir();
    let synchronised =
        || Tool::new(Path::new("timedatectl"), &["show", "--property=NTPSynchronized", "--value"]).ask(ASK);
    match managed && synchronised().as_deref() == Some("no") {
        true => vec![Finding::new("host.clock", Severity::Note, "the clock is not synchronised", why, mend)],
        false => Vec::new(),
    }
}

/// File systems without room.
pub(super) fn disks(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![scene.data_dir().to_owned(), scene.at("/tmp")];
    paths.extend(scene.patients.iter().map(|patient| patient.directories.state.clone()));
    let mut found = Vec::new();
    for path in paths {
        let Ok(device) = fs::metadata(&path).map(|found| found.dev()) else { continue };
        if seen.insert(device) {
            found.extend(disk(&path));
        }
    }
    found
}

fn disk(path: &Path) -> Vec<Finding> {
    let Ok(disk) = statvfs(path) else { return Vec::new() };
    let shown = path.display();
    let mend = Mend::Type(format!("sudo du -xhd2 {} | sort -h | tail", word(mount_of(path))));
    let why = "on a full disk nothing new is durable, and gateways lose sessions and logs";
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let all = disk.blocks().saturating_mul(disk.fragment_size());
    let mut found = Vec::new();
    if let Some(severity) = short_of_room(free, all) {
        let what = format!("{} MiB of {} MiB are free on the disk of `{shown}`", free / MIB, all / MIB);
        found.push(Finding::new("host.disk", severity, what, why, mend.clone()));
    }
    let (files, free) = (disk.files(), disk.files_available());
    // Some file systems make inodes as they are needed, and say 0.
    if files > 0 && free < files / 10 {
        let what = format!("{free} of {files} inodes are free on the disk of `{shown}`");
        let severity = if free < files / 100 { Severity::Error } else { Severity::Warning };
        found.push(Finding::new("host.inodes", severity, what, why, mend));
    }
    found
}

/// The highest directory on the same disk.
fn mount_of(path: &Path) -> &Path {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let own = device(path);
    path.ancestors().take_while(|above| device(above) == own).last().unwrap_or(path)
}

/// How bad it is that so much is free of so much. A tenth of a large disk is still much.
fn short_of_room(free: u64, all: u64) -> Option<Severity> {
    let (little, tenth) = (free < GIB, free < all / 10);
    match () {
        () if all == 0 => None,
        () if free < 100 * MIB => Some(Severity::Error),
        () if little || tenth && free < 10 * GIB => Some(Severity::Warning),
        () if tenth => Some(Severity::Note),
        () => None,
    }
}

/// Limits that the fleet would meet.
pub(super) fn limits(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let instances = scene.patients.len() as u64;
    let is_openclaw = |patient: &&Patient| scene.is_openclaw(patient);
    // Others watch nothing and have few threads.
    let openclaws = scene.patients.iter().filter(is_openclaw).count() as u64;
    let number = |path: &str| fs::read_to_string(scene.at(path)).ok()?.trim().parse::<u64>().ok();
    let files = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, most)| most);
    let processes = getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft);
    let inotify = |what: &str| format!("/proc/sys/fs/inotify/max_user_{what}");
    // Which limit, what it is, what it should be, what happens else, how it is raised.
    let limits: [(&str, Option<u64>, u64, &'static str, Mend); 5] = [
        (
            "open files of the supervisor",
            files,
            OWN_FILES + FILES_EACH * instances,
            "workers cannot be reached and callers are turned away",
            Mend::Do("set LimitNOFILE=infinity in the supervisor's unit, or raise `ulimit -Hn`".to_owned()),
        ),
        (
            "inotify instances of a user",
            number(&inotify("instances")),
            INOTIFY_EACH * openclaws + 16,
            "gateways stop to notice changes of their configuration",
            sysctl("fs.inotify.max_user_instances", INOTIFY_EACH * openclaws + 128),
        ),
        (
            "inotify watches of a user",
            number(&inotify("watches")),
            WATCHES_EACH * openclaws,
            "gateways stop to notice changes of their configuration",
            sysctl("fs.inotify.max_user_watches", 2 * WATCHES_EACH * openclaws),
        ),
        (
            "processes of the user",
            processes,
            THREADS_EACH * openclaws,
            "gateways and their tools cannot start threads",
            Mend::Do("set LimitNPROC=infinity in the supervisor's unit, or raise `ulimit -u`".to_owned()),
        ),
        (
            "tasks of the control group",
            tasks(scene),
            THREADS_EACH * openclaws,
            "gateways and their tools cannot start threads",
            Mend::Do("set TasksMax=infinity in the supervisor's unit".to_owned()),
        ),
    ];
    let finding = |(which, limit, wanted, why, mend): (&str, Option<u64>, u64, &'static str, Mend)| {
        let limit = limit.filter(|limit| *limit < wanted)?;
        let what = format!("the limit of {which} is {limit}; {instances} instances want about {wanted}");
        Some(Finding::new("host.limit", Severity::Warning, what, why, mend))
    };
    limits.into_iter().filter_map(finding).collect()
}

fn sysctl(key: &str, value: u64) -> Mend {
    Mend::Type(format!("sudo sysctl -w {key}={value}"))
}

/// The least `pids.max` on the way to the root of the control groups.
fn tasks(scene: &Scene) -> Option<u64> {
    let groups = fs::read_to_string(scene.at("/proc/self/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = scene.at("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    let limit = |directory: &Path| fs::read_to_string(directory.join("pids.max")).ok()?.trim().parse().ok();
    directory
        .ancestors()
        .take_while(|above| above.starts_with(scene.at("/sys/fs/cgroup")))
        .filter_map(limit)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_large_disk_is_only_worth_a_note() {
        assert_eq!(short_of_room(50 * MIB, 100 * GIB), Some(Severity::Error));
        assert_eq!(short_of_room(GIB / 2, 2 * GIB), Some(Severity::Warning), "less than a gibibyte");
        assert_eq!(short_of_room(5 * GIB, 100 * GIB), Some(Severity::Warning));
        assert_eq!(short_of_room(50 * GIB, 1000 * GIB), Some(Severity::Note));
        assert_eq!(short_of_room(50 * GIB, 100 * GIB), None);
        assert_eq!(short_of_room(0, 0), None, "no disk at all");
    }
}
