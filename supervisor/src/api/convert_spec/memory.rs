//! The part of a spec that is about memory.

use supervisor_proto::v1;

use super::{Reader, duration, set};
use crate::spec::{Bytes, FieldPath, InstanceSpec, Memory};

pub(super) const MEMORY: [&str; 5] = ["soft_limit", "hard_limit", "window", "min_uptime", "interval"];

impl Reader {
    pub(super) fn memory(&mut self, memory: &v1::MemoryPolicy) -> Memory {
        let bytes = |count: u64| (count != 0).then_some(Bytes(count));
        let window = (!memory.window.is_empty()).then(|| memory.window.parse());
        Memory {
            soft_limit: bytes(memory.soft_limit),
            hard_limit: bytes(memory.hard_limit),
            window: window.and_then(|window| {
                let path = FieldPath::of(&["memory", "window"]);
                window.map_err(|wrong| self.refuse(path, wrong, "or leave it out")).ok()
            }),
            min_uptime: self.span(&["memory", "min_uptime"], memory.min_uptime.as_ref()),
            interval: self.span(&["memory", "interval"], memory.interval.as_ref()),
        }
    }
}

pub(super) fn memory(spec: &InstanceSpec) -> Option<v1::MemoryPolicy> {
    let Memory { soft_limit, hard_limit, window, min_uptime, interval } = spec.memory;
    set(v1::MemoryPolicy {
        soft_limit: soft_limit.map_or(0, |limit| limit.0),
        hard_limit: hard_limit.map_or(0, |limit| limit.0),
        window: window.map(|window| window.to_string()).unwrap_or_default(),
        min_uptime: duration(min_uptime),
        interval: duration(interval),
    })
}
