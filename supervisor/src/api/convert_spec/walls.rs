//! The parts of a spec that are about what the kernel holds an instance to.

use std::path::PathBuf;

use supervisor_proto::v1;

use super::set;
use crate::spec::{Bytes, Limits, Walls};

pub(super) const WALLS: [&str; 6] = ["files", "ports", "apart", "privileges", "read", "write"];

pub(super) const LIMITS: [&str; 4] = ["files", "processes", "core", "cpu_permille"];

pub(super) fn walls(walls: &v1::WallPolicy) -> Walls {
    let v1::WallPolicy { files, ports, apart, privileges, read, write } = walls;
    let paths = |paths: &[String]| paths.iter().map(PathBuf::from).collect();
    Walls {
        files: *files,
        ports: *ports,
        apart: *apart,
        privileges: *privileges,
        read: paths(read),
        write: paths(write),
    }
}

pub(super) fn limits(limits: &v1::LimitPolicy) -> Limits {
    let v1::LimitPolicy { files, processes, core, cpu_permille } = limits;
    let count = |count: u64| (count != 0).then_some(count);
    Limits {
        files: count(*files),
        processes: count(*processes),
        core: core.map(Bytes),
        cpu_permille: (*cpu_permille != 0).then_some(*cpu_permille),
    }
}

pub(super) fn to_proto(walls: &Walls) -> Option<v1::WallPolicy> {
    let Walls { files, ports, apart, privileges, read, write } = walls;
    let shown = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    set(v1::WallPolicy {
        files: *files,
        ports: *ports,
        apart: *apart,
        privileges: *privileges,
        read: shown(read),
        write: shown(write),
    })
}

pub(super) fn limits_to_proto(limits: &Limits) -> Option<v1::LimitPolicy> {
    let Limits { files, processes, core, cpu_permille } = limits;
    set(v1::LimitPolicy {
        files: files.unwrap_or_default(),
        processes: processes.unwrap_or_default(),
        core: core.map(|core| core.0),
        cpu_permille: cpu_permille.unwrap_or_default(),
    })
}
