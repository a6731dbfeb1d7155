//! Whether each instance has its ports for itself: against other processes, the kernel, and other configurations.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use supervisor_core::ports::{BLOCK, Block, Pool};

use super::{
    declared::Declared,
    finding::{Finding, Mend, Severity, count},
    scene::{Budget, Patient, Scene, contains},
};
use crate::{figures::descendants, settings};

/// Processes that listen on an instance's ports and do not belong to it.
pub(super) fn squatters(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let wanted: Vec<u16> =
        scene.patients.iter().flat_map(|patient| patient.block.base..=patient.block.last()).collect();
    let mut found = Vec::new();
    let mut families: BTreeMap<i32, HashSet<u32>> = BTreeMap::new();
    for listening in (scene.listeners)(&wanted) {
        let Some(patient) = scene.holder_of(listening.port) else { continue };
        let family = patient.worker_pid.map(|pid| families.entry(pid).or_insert_with(|| descendants(pid)));
        let pid = listening.pid.and_then(|pid| u32::try_from(pid).ok());
        if let (Some(family), Some(pid)) = (family, pid)
            && family.contains(&pid)
        {
            continue;
        }
        let name = &patient.name;
        let port = listening.port;
        let (who, mend) = match pid {
            // Its arguments may hold secrets.
            Some(pid) => (
                format!(
                    "process {pid} ({})",
                    listening.command.split_whitespace().next().unwrap_or("unknown")
                ),
                Mend::Do(format!("end process {pid}, or give `{name}` another `port` in the fleet file")),
            ),
            None => (
                "a process that cannot be seen from here".to_owned(),
                Mend::Type(format!("sudo ss -ltnp 'sport = :{port}'")),
            ),
        };
        let is_gateway = port == patient.block.base;
        let (severity, why) = match is_gateway {
            true => (Severity::Error, "the gateway cannot listen, and its clients reach somebody else"),
            false => (Severity::Warning, "a browser or canvas of the instance will miss its port"),
        };
        let what = format!("port {port} of `{name}` is held by {who}, which is not its own");
        found.push(Finding::new("port.squatted", severity, what, why, mend).of(name));
    }
    found
}

/// Blocks from which the kernel takes ports for outgoing connections.
pub(super) fn ephemeral(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let Some((from, to)) = settings::ephemeral_ports() else { return Vec::new() };
    let reserved =
        fs::read_to_string(scene.at("/proc/sys/net/ipv4/ip_local_reserved_ports")).unwrap_or_default();
    let kept = ranges(&reserved);
    let exposed = |block: Block| {
        (block.base.max(from)..=block.last().min(to))
            .any(|port| !kept.iter().any(|(first, last)| (*first..=*last).contains(&port)))
    };
    let blocks: Vec<&Patient> = scene.patients.iter().filter(|patient| exposed(patient.block)).collect();
    let (Some(first), Some(last)) = (
        blocks.iter().map(|patient| patient.block.base).min(),
        blocks.iter().map(|patient| patient.block.last()).max(),
    ) else {
        return Vec::new();
    };
    let what = format!(
        "the ports of {} lie between {from} and {to}, from which the kernel takes those of outgoing connections",
        count(blocks.len(), "instance", "instances")
    );
    let why = "any outgoing connection of this host may take a gateway's port before the gateway does";
    let mend = format!("sudo sysctl -w net.ipv4.ip_local_reserved_ports={}", joined(&kept, (first, last)));
    let mend = Mend::Type(mend);
    let finding = Finding::new("port.ephemeral", Severity::Warning, what, why, mend);
    vec![blocks.into_iter().fold(finding, |finding, patient| finding.of(&patient.name))]
}

/// As the kernel writes them: `8080,9000-9100`.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.trim().split(',').filter_map(range).collect()
}

fn joined(kept: &[(u16, u16)], more: (u16, u16)) -> String {
    let all = kept.iter().chain([&more]).map(|(first, last)| format!("{first}-{last}"));
    all.collect::<Vec<_>>().join(",")
}

/// A pool with hardly a block left.
pub(super) fn pool(scene: &Scene, _: &Budget) -> Vec<Finding> {
    /// A fleet that grows by one or two should not meet a refusal unawares.
    const FEW: usize = 2;
    let Pool { first, last } = scene.pool;
    let free = free_blocks(scene.pool, scene.patients.iter().map(|patient| patient.block));
    let severity = match free {
        0 => Severity::Warning,
        1..=FEW => Severity::Note,
        _ => return Vec::new(),
    };
    let what = format!(
        "{} left between {first} and {last}",
        count(free, "block of ports is", "blocks of ports are")
    );
    let why = "without a free block no instance can be created";
    let mend = format!("widen `pool` in {}", scene.data_dir().join(settings::FILE).display());
    vec![Finding::new("port.pool", severity, what, why, Mend::Do(mend))]
}

/// How many more blocks fit.
fn free_blocks(pool: Pool, held: impl Iterator<Item = Block>) -> usize {
    let mut held: Vec<Block> =
        held.filter(|block| block.last() >= pool.first && block.base <= pool.last).collect();
    held.sort_unstable();
    let (mut next, mut free) = (u32::from(pool.first), 0);
    for (base, after) in held
        .iter()
        .map(|block| (u32::from(block.base), u32::from(block.last()) + 1))
        .chain([(u32::from(pool.last) + 1, 0)])
    {
        free += base.saturating_sub(next) / u32::from(BLOCK);
        next = next.max(after);
    }
    usize::try_from(free).unwrap_or(usize::MAX)
}

/// A port that a configuration names.
fn port(declared: &Declared) -> Option<u16> {
    declared.value.parse().ok()
}

fn is_cdp_port(declared: &Declared) -> bool {
    declared.is(&["browser", "profiles", "*", "cdpPort"])
}

fn is_cdp_url(declared: &Declared) -> bool {
    declared.is(&["browser", "cdpUrl"]) || declared.is(&["browser", "profiles", "*", "cdpUrl"])
}

/// Ports in configurations that are another instance's, or nobody's.
pub(super) fn declared(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut found = Vec::new();
    for patient in &scene.patients {
        for declared in scene.config(patient) {
            let is_gateway = declared.is(&["gateway", "port"]);
            if !is_gateway && !is_cdp_port(declared) && !declared.is(&["canvasHost", "port"]) {
                continue;
            }
            let Some(port) = port(declared) else { continue };
            let own = if is_gateway { port == patient.block.base } else { contains(patient.block, port) };
            let before = patient.previous_base.and_then(Block::at);
            // What named the block before is moved at the next start.
            if !own && !before.is_some_and(|before| contains(before, port)) {
                found.push(outside(scene, patient, declared, port));
            }
        }
    }
    found
}

fn outside(scene: &Scene, patient: &Patient, declared: &Declared, port: u16) -> Finding {
    let (name, block) = (&patient.name, patient.block);
    let owner = scene.holder_of(port).filter(|other| other.name != *name);
    let whose = owner.map_or_else(String::new, |other| format!(", and {port} is one of `{}`", other.name));
    let what = format!("`{}` is {port}, but the ports of `{name}` are {block}{whose}", declared.shown());
    let why = "the next start refuses it: one gateway would take the port of another";
    let mend = match declared.is(&["gateway", "port"]) {
        true => format!("write {} there", block.base),
        false => format!("write a port of {block} there, or remove the key"),
    };
    let finding = Finding::new("port.outside", Severity::Error, what, why, Mend::Do(mend))
        .of(name)
        .in_file(&patient.directories.config, Some(declared.place));
    owner.into_iter().fold(finding, |finding, other| finding.of(&other.name))
}

/// Browsers that two instances would drive.
pub(super) fn browsers(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let mut first: BTreeMap<String, (&Patient, &Declared)> = BTreeMap::new();
    let mut found = Vec::new();
    for patient in &scene.patients {
        for declared in scene.config(patient) {
            let key = match (is_cdp_port(declared), is_cdp_url(declared)) {
                (true, _) => format!("localhost:{}", declared.value),
                (_, true) => endpoint(&declared.value),
                (false, false) => continue,
            };
            let (holder, other) = *first.entry(key).or_insert((patient, declared));
            if holder.name == patient.name {
                continue;
            }
            let what = format!(
                "`{}` of `{}` is the browser of `{}`, too (`{}`, line {})",
                declared.shown(),
                patient.name,
                holder.name,
                other.shown(),
                other.place.line
            );
            let why = "two agents would drive one browser, with one set of logins";
            let mend = "give each instance a browser of its own, or remove the key";
            found.push(
                Finding::new("port.browser-shared", Severity::Error, what, why, Mend::Do(mend.into()))
                    .in_file(&patient.directories.config, Some(declared.place))
                    .of(&patient.name)
                    .of(&holder.name),
            );
        }
    }
    found
}

/// Host and port of a URL, without secrets; all names of this host are one.
fn endpoint(url: &str) -> String {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let default = if matches!(scheme, "https" | "wss") { "443" } else { "80" };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        Some(_) | None => (address.as_str(), default),
    };
    let host = host.trim_matches(['[', ']']);
    let local =
        host == "::1" || host == "0.0.0.0" || host.starts_with("127.") || host.ends_with(".localhost");
    format!("{}:{port}", if local { "localhost" } else { host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_are_counted_between_those_held() {
        let pool = Pool { first: 20_000, last: 20_099 };
        let held = |bases: &[u16]| free_blocks(pool, bases.iter().filter_map(|base| Block::at(*base)));
        assert_eq!(held(&[]), 5);
        assert_eq!(held(&[20_000, 20_020, 20_040, 20_060, 20_080]), 0);
        assert_eq!(held(&[20_010, 20_050]), 2, "between two blocks, and after them");
        assert_eq!(held(&[30_000, 19_990]), 4);
        assert_eq!(
            free_blocks(Pool { first: 65_000, last: 65_535 }, [Block { base: 65_516 }].into_iter()),
            25
        );
    }

    #[test]
    fn a_browser_is_the_same_whatever_it_is_called() {
        for url in ["http://127.0.0.1:9222", "ws://user:word@localhost:9222/x", "http://[::1]:9222/"] {
            assert_eq!(endpoint(url), "localhost:9222", "{url}");
        }
        assert_eq!(endpoint("https://Browser.example/a"), "browser.example:443");
    }

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(ranges("8080,9000-9100\n"), [(8080, 8080), (9000, 9100)]);
        assert_eq!(ranges("\n"), []);
        assert_eq!(joined(&[(1, 2)], (5, 6)), "1-2,5-6");
    }
}
