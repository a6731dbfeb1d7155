//! How much an instance may take of what its user's processes share, and who goes first when memory is short.

use std::fs;

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};
use supervisor_proto::worker;

use crate::{spec::InstanceSpec, user::User};

/// Processes and threads of an instance unless its spec says otherwise: OpenClaw has 40, a browser with many tabs 500.
pub(crate) const OWN_PROCESSES: u64 = 4_096;

/// Open files: a gateway with a browser and many channels has some thousand.
const FILES: u64 = 65_536;

/// So much more a gateway has to say for itself when memory is short than the supervisor and the worker, which lose
/// more with it.
const FIRST_TO_GO: i32 = 200;

/// The same of a rescue, which has to be there when its primary is gone.
const SECOND_TO_GO: i32 = 100;

/// The most that can be said (proc_pid_oom_score_adj(5)).
const MOST_TO_SAY: i32 = 1_000;

/// The limits of an instance with this spec.
pub(super) fn limits(spec: &InstanceSpec, user: Option<&User>) -> worker::Limits {
    let most = |resource| getrlimit(resource).map_or(u64::MAX, |(_, most)| most);
    let processes = match user {
        Some(_) => Some(OWN_PROCESSES.min(most(Resource::RLIMIT_NPROC))),
        // The kernel counts none of root's.
        None if geteuid().is_root() => None,
        None => Some(share(&[most(Resource::RLIMIT_NPROC), number("pid_max"), number("threads-max")])),
    };
    worker::Limits {
        files: spec.limits.files.or(Some(FILES.min(most(Resource::RLIMIT_NOFILE)))),
        processes: spec.limits.processes.or(processes),
        core_bytes: Some(spec.limits.core.map_or(0, |core| core.0)),
    }
}

/// What an instance with this spec has to say for itself.
pub(super) fn oom_score(spec: &InstanceSpec) -> i32 {
    to_say(if spec.rescues.is_empty() { FIRST_TO_GO } else { SECOND_TO_GO })
}

/// Of what the user may have, instances leave a quarter to the supervisor and the workers: what an instance fills it
/// with can then still be killed.
fn share(limits: &[u64]) -> u64 {
    let least = limits.iter().copied().min().unwrap_or(u64::MAX);
    least / 4 * 3
}

/// A number that the kernel tells.
fn number(of: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{of}")).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// What a gateway has to say for itself, beside what the supervisor has.
fn to_say(more: i32) -> i32 {
    let mine = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    (mine.trim().parse::<i32>().unwrap_or(0) + more).min(MOST_TO_SAY)
}

#[cfg(test)]
mod tests {
    use supervisor_core::ids::Name;

    use super::*;
    use crate::spec::{Bytes, Limits};

    #[test]
    fn no_core_is_dumped_and_files_are_limited_unless_the_spec_says_otherwise() {
        let usual = limits(&InstanceSpec::default(), None);
        assert_eq!(usual.core_bytes, Some(0));
        assert!(usual.files.is_some_and(|files| files <= FILES));
        let asked =
            Limits { files: Some(500), processes: Some(600), core: Some(Bytes(7)), cpu_permille: None };
        let asked = limits(&InstanceSpec { limits: asked, ..InstanceSpec::default() }, None);
        assert_eq!((asked.files, asked.processes, asked.core_bytes), (Some(500), Some(600), Some(7)));
    }

    #[test]
    fn a_user_of_its_own_has_processes_of_its_own() {
        let user = User { uid: 1_001, gid: 1_001, groups: vec![7] };
        let limits = limits(&InstanceSpec::default(), Some(&user));
        assert!(limits.processes.is_some_and(|processes| processes <= OWN_PROCESSES));
    }

    #[test]
    fn a_quarter_is_left_to_those_who_end_what_fills_the_rest() {
        assert_eq!(share(&[4_000, u64::MAX, 8_000]), 3_000);
        assert!(share(&[]) > 1 << 60);
    }

    #[test]
    fn when_memory_is_short_a_primary_goes_before_its_rescue_and_both_before_the_supervisor() {
        let rescue = InstanceSpec { rescues: vec![Name::new("main").unwrap()], ..InstanceSpec::default() };
        let says = |spec: &InstanceSpec| oom_score(spec);
        assert!(says(&rescue) > to_say(0) || to_say(0) == MOST_TO_SAY);
        assert!(says(&InstanceSpec::default()) > says(&rescue) || says(&rescue) == MOST_TO_SAY);
    }
}
