//! What a gateway was doing when it hung, written down before it is killed: afterwards nobody can find out.
//!
//! One text file for each: why, its processes and threads with what they wait for, the processor time they used
//! meanwhile, their descriptors and sockets, and the end of the log. As proc(5) has it, for people and agents to read.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use supervisor_core::ids::{Incarnation, Name};

use super::launch::log_tail;
use crate::{
    openclaw::{file::Durability, layout::Directories, place::Place},
    proc,
};

/// The kill waits so long for it. A disk that hangs must not keep a gateway hanging.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

/// No look at a process begins later: what has been found by then is kept.
const ENOUGH: Duration = Duration::from_secs(2);

/// Between two looks at the processor time: a loop shows, and nobody waits for long.
const BETWEEN: Duration = Duration::from_millis(200);

/// Files kept of one instance.
const KEPT: usize = 5;

/// Processes, and threads of one process, that are written down. OpenClaw has three and fifteen.
const MOST: usize = 64;

/// Of its list of sockets, which are those of all processes of its network.
const MOST_SOCKETS: u64 = 4 << 20;

/// Descriptors of one process that are looked at.
const MOST_OPEN: usize = 4_096;

/// In the instance's directory.
const DIRECTORY: &str = "evidence";

/// Ends the name of each file.
const SUFFIX: &str = ".txt";

/// For the owner alone: a log may hold anything.
const PRIVATE: u32 = 0o600;

/// What hangs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hung<'a> {
    pub(super) name: &'a Name,
    pub(super) incarnation: Incarnation,
    /// Its processes are this one's descendants.
    pub(super) worker: i32,
    /// How it was found out.
    pub(super) why: &'a str,
}

/// Writes it down, and says where. Blocks.
pub(super) fn keep(directories: &Directories, hung: &Hung<'_>) -> io::Result<PathBuf> {
    let place = Place::open(&directories.root)?.made_below(DIRECTORY)?;
    let at = SystemTime::now();
    let stamp = humantime::format_rfc3339_seconds(at).to_string().replace(['-', ':'], "");
    let name = format!("{stamp}-{}{SUFFIX}", hung.incarnation.0);
    place.put(&name, describe(directories, hung, at).as_bytes(), PRIVATE, Durability::Quick)?;
    forget_old(&place)?;
    Ok(directories.root.join(DIRECTORY).join(name))
}

fn describe(directories: &Directories, hung: &Hung<'_>, at: SystemTime) -> String {
    let Hung { name, incarnation, worker, why } = hung;
    let when = humantime::format_rfc3339_millis(at);
    let mut text = format!("{when}: {name} {incarnation} is about to be killed: {why}\n");
    let (began, (pids, more)) = (Instant::now(), descendants(*worker));
    let before: BTreeMap<i32, u64> = pids.iter().filter_map(|pid| Some((*pid, ticks(*pid)?))).collect();
    thread::park_timeout(BETWEEN);
    let in_time = pids.iter().take_while(|_| began.elapsed() < ENOUGH);
    let told = in_time.map(|pid| process(&mut text, *pid, before.get(pid).copied())).count();
    if more || told < pids.len() {
        text.push_str("\nThere are more processes, which were not looked at.\n");
    }
    text.push_str("\nEnd of its log\n");
    for line in log_tail(&directories.logs).unwrap_or_default() {
        let _ = writeln!(text, "  {line}");
    }
    // Names of threads and lines of logs are whatever an agent makes them.
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn process(text: &mut String, pid: i32, before: Option<u64>) {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let name = line(&proc.join("comm"));
    let _ = writeln!(text, "\nProcess {pid} ({name})");
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    for field in ["State:", "PPid:", "Threads:", "VmRSS:", "VmSwap:"] {
        if let Some(found) = status.lines().find(|line| line.starts_with(field)) {
            let _ = writeln!(text, "  {}", found.replace('\t', " "));
        }
    }
    if let (Some(before), Some(now)) = (before, ticks(pid)) {
        let _ =
            writeln!(text, "  Processor: {} ticks in {} ms", now.saturating_sub(before), BETWEEN.as_millis());
    }
    descriptors(text, &proc);
    for thread in numbers(&proc.join("task")).into_iter().take(MOST) {
        let task = proc.join("task").join(thread.to_string());
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("gone").trim();
        let _ = writeln!(
            text,
            "  Thread {thread} ({}): {state}, in {}",
            line(&task.join("comm")),
            line(&task.join("wchan"))
        );
    }
}

/// How many descriptors it has of each kind, and its TCP sockets.
fn descriptors(text: &mut String, directory: &Path) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let (mut inodes, mut looked_at) = (HashSet::new(), 0);
    for entry in fs::read_dir(directory.join("fd")).into_iter().flatten().flatten().take(MOST_OPEN) {
        looked_at += 1;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split_once(":[").map_or("file", |(kind, _)| kind).to_owned();
        *kinds.entry(kind).or_default() += 1;
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            inodes.insert(inode.to_owned());
        }
    }
    let counts: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let more = if looked_at == MOST_OPEN { ", and more" } else { "" };
    let _ = writeln!(text, "  Descriptors: {}{more}", counts.join(", "));
    for table in ["net/tcp", "net/tcp6"] {
        let table = proc::look(directory.join(table), MOST_SOCKETS);
        let table = String::from_utf8_lossy(&table);
        for row in table.lines().skip(1) {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let (Some(local), Some(remote), Some(state), Some(queues), Some(inode)) =
                (fields.get(1), fields.get(2), fields.get(3), fields.get(4), fields.get(9))
            else {
                continue;
            };
            if inodes.contains(*inode) {
                let (port, peer) = (port(local), port(remote));
                let _ = writeln!(
                    text,
                    "  Socket: port {port}, peer's port {peer}, state {} (send:receive queue {queues})",
                    tcp_state(state)
                );
            }
        }
    }
}

/// The states of a TCP socket that matter (`include/net/tcp_states.h`).
fn tcp_state(number: &str) -> &str {
    match number {
        "01" => "established",
        "08" => "close-wait",
        "0A" => "listening",
        other => other,
    }
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()).unwrap_or(0)
}

/// User and system time so far.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// What descends from the worker, without it, and whether there is more. First comes the gateway, its oldest child, with all
/// that it has started; orphans come later.
fn descendants(worker: i32) -> (Vec<i32>, bool) {
    let mut found = Vec::new();
    let mut next = vec![worker];
    while let Some(pid) = next.pop() {
        if found.len() == MOST {
            return (found, true);
        }
        if pid != worker {
            found.push(pid);
        }
        let of =
            |thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
        let children: Vec<String> =
            numbers(Path::new(&format!("/proc/{pid}/task"))).into_iter().map(of).collect();
        let children = children.iter().flat_map(|children| children.split_whitespace());
        let children: Vec<i32> = children.filter_map(|child| child.parse().ok()).collect();
        next.extend(children.into_iter().rev());
    }
    (found, false)
}

/// The entries of a directory of `/proc` that are numbers.
fn numbers(directory: &Path) -> Vec<i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

fn line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() || text == "0" { "-".to_owned() } else { text.replace('\n', " ") }
}

/// The names begin with the time, so the oldest come first.
fn forget_old(place: &Place) -> io::Result<()> {
    let mut names = place.names()?;
    names.retain(|name| name.ends_with(SUFFIX));
    names.sort();
    let surplus = names.len().saturating_sub(KEPT);
    names.iter().take(surplus).try_for_each(|name| place.remove(name))?;
    place.tidy()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    use nix::{
        sys::signal::{Signal, killpg},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn what_an_agent_calls_its_threads_is_one_line_and_no_order_to_a_terminal() {
        let directory = tempfile::tempdir().unwrap();
        let name = Name::new("main").unwrap();
        let directories = Directories::at(directory.path(), &name, None);
        directories.create(directory.path()).unwrap();
        fs::write(directories.logs.join("gateway.log"), "said \x1b[2J\u{9b}31m\n").unwrap();
        let named = |called: &'static str| {
            thread::spawn(move || {
                fs::write("/proc/thread-self/comm", called).unwrap();
                let found = line(Path::new("/proc/thread-self/comm"));
                let hung = Hung { name: &name, incarnation: Incarnation(1), worker: 0, why: called };
                (found, describe(&directories, &hung, SystemTime::now()))
            })
        };
        let (found, text) = named("a\nb\x1b[2J").join().unwrap();
        assert_eq!(found, "a b\x1b[2J");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("a\nb [2J"), "{text:?}");
    }

    #[test]
    fn of_all_that_hung_the_newest_are_kept_and_nothing_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let name = Name::new("main").unwrap();
        let directories = Directories::at(directory.path(), &name, None);
        directories.create(directory.path()).unwrap();
        let hung = |life| Hung { name: &name, incarnation: Incarnation(life), worker: 0, why: "it hung" };
        let kept: Vec<PathBuf> = (1..=7)
            .map(|life| keep(&directories, &hung(life)).unwrap())
            .filter(|path| path.exists())
            .collect();
        assert!(kept.last().is_some_and(|newest| fs::read_to_string(newest).unwrap().contains("it hung")));
        let place = directories.root.join(DIRECTORY);
        assert_eq!(fs::read_dir(&place).unwrap().count(), KEPT);

        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::remove_dir_all(&place).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        assert!(keep(&directories, &hung(8)).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn orphans_keep_nobody_out_of_the_evidence() {
        // A stand-in for a worker: one child that hangs, with one of its own, and beside them more than are written down.
        let script = "sh -c 'sleep 600 & echo; wait' & for _ in $(seq 80); do sleep 600 & done; echo; wait";
        let mut worker =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut output = BufReader::new(worker.stdout.take().unwrap());
        for _ in 0..2 {
            output.read_line(&mut String::new()).unwrap();
        }
        let pid = i32::try_from(worker.id()).unwrap();
        let (found, more) = descendants(pid);
        let parent = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse::<i32>().unwrap()
        };
        let parents = [parent(found[0]), parent(found[1])];
        killpg(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        worker.wait().unwrap();
        assert_eq!((found.len(), more), (MOST, true));
        assert_eq!(parents, [pid, found[0]], "the oldest, and what it has started");
    }
}
