//! The two clocks that reports are stamped with.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

/// Nanoseconds on `CLOCK_MONOTONIC`, which the supervisor on the same host can compare with its own.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}
