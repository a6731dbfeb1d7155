//! What a group is bound to, in the words of the kernel's files (Documentation/admin-guide/cgroup-v2.rst).

use crate::{openclaw::walls::limits::OWN_PROCESSES, spec::InstanceSpec};

/// A controller of the kernel that bounds are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Processes,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Processes];

    /// As the kernel calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
        }
    }
}

/// The kernel counts memory in pages, and no architecture has larger ones by default.
const PAGE: u64 = 64 << 10;

/// Processor time is handed out anew so often, in microseconds: the kernel's own choice.
const PERIOD: u64 = 100_000;

/// No bound.
const NONE: &str = "max";

/// One bound, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    /// The file that takes it, and tells it.
    pub(super) file: &'static str,
    /// What is written.
    pub(super) value: String,
    /// Whose it is, if the instance is promised it: it is missed where it is not in force.
    pub(super) promised: Option<Controller>,
}

/// The bounds of a spec, in the order in which they are to be written.
///
/// Not among them is `memory.high`, at the soft limit or short of the hard one: whoever is over it stands still more than
/// it runs, and where all that can be taken from it are its own programs, for minutes. That is no quiet moment to be
/// started anew in, and worse than to be killed. Nor is `memory.oom.group`: what takes too much is mostly a tool or a page of a browser, which the kernel finds, and
/// the gateway can do without.
pub(super) fn of(spec: &InstanceSpec) -> Vec<Bound> {
    let memory = spec.memory.hard_limit.map(|limit| limit.0 / PAGE * PAGE);
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| NONE.to_owned(), |bytes| bytes.to_string());
    let cpu = spec.limits.cpu_permille.map(|permille| u64::from(permille) * PERIOD / 1_000);
    let processes = spec.limits.processes.unwrap_or(OWN_PROCESSES);
    let beside = |file, value| Bound { file, value, promised: None };
    let bound =
        |file, value, asked: bool, controller| Bound { file, value, promised: asked.then_some(controller) };
    vec![
        // Nobody below divides any further.
        beside("cgroup.max.descendants", "0".to_owned()),
        // A bound that can be swapped away is none.
        beside("memory.swap.max", bytes(memory.map(|_| 0))),
        bound("memory.max", bytes(memory), memory.is_some(), Controller::Memory),
        bound("cpu.max", format!("{} {PERIOD}", bytes(cpu)), cpu.is_some(), Controller::Cpu),
        bound("pids.max", processes.to_string(), true, Controller::Processes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Bytes, Limits, Memory};

    fn told(spec: &InstanceSpec) -> Vec<(&'static str, String, bool)> {
        of(spec).into_iter().map(|bound| (bound.file, bound.value, bound.promised.is_some())).collect()
    }

    #[test]
    fn what_a_spec_limits_is_written_and_promised() {
        let memory = Memory { hard_limit: Some(Bytes::mib(64)), ..Memory::default() };
        let limits = Limits { processes: Some(300), cpu_permille: Some(1_500), ..Limits::default() };
        let told = told(&InstanceSpec { memory, limits, ..InstanceSpec::default() });
        let expected = [
            ("cgroup.max.descendants", "0", false),
            ("memory.swap.max", "0", false),
            ("memory.max", "67108864", true),
            ("cpu.max", "150000 100000", true),
            ("pids.max", "300", true),
        ];
        assert_eq!(told, expected.map(|(file, value, promised)| (file, value.to_owned(), promised)));
    }

    #[test]
    fn what_a_spec_does_not_limit_is_let_go_but_for_processes() {
        let told = told(&InstanceSpec::default());
        let values: Vec<&str> = told.iter().map(|(_, value, _)| value.as_str()).collect();
        assert_eq!(values, ["0", "max", "max", "max 100000", "4096"]);
        assert_eq!(told.iter().filter(|(_, _, promised)| *promised).count(), 1);
    }

    #[test]
    fn the_soft_limit_is_not_the_kernels() {
        let memory = Memory { soft_limit: Some(Bytes::mib(64)), ..Memory::default() };
        assert_eq!(told(&InstanceSpec { memory, ..InstanceSpec::default() }), told(&InstanceSpec::default()));
    }

    #[test]
    fn a_bound_reads_back_as_it_was_written_whatever_the_size_of_a_page() {
        let memory = Memory { hard_limit: Some(Bytes(100_000_001)), ..Memory::default() };
        let bounds = of(&InstanceSpec { memory, ..InstanceSpec::default() });
        let most = bounds.iter().find(|bound| bound.file == "memory.max").unwrap();
        assert_eq!(most.value.parse::<u64>().unwrap() % PAGE, 0);
    }
}
