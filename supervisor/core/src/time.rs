//! Time as a number. Core reads no clock: every event brings its moment.

use core::{fmt, ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch as the host's clock had it when the supervisor first ran after boot, and
/// advanced by CLOCK_MONOTONIC since then: it never steps, and means the same to every process on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// How long `self` is after `earlier`; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// When core wants to be called again, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// The moment.
    pub at: Moment,
    /// What is due then.
    pub why: Why,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A launch or an adoption has not been answered.
    Answer,
    /// The backoff is over.
    Backoff,
    /// A failed instance may be tried again.
    Retry,
    /// The startup made no progress, or took too long in all.
    Startup,
    /// A probe is due.
    Probe,
    /// A probe was not answered.
    ProbeAnswer,
    /// The instance has been ready long enough to forget its failures.
    Stable,
    /// The configuration that runs has proven good.
    Trial,
    /// A stop takes longer than its worker should need.
    Stop,
    /// The last poll that kept a gateway from its channels has expired.
    Fence,
    /// The primary has been ready long enough to get its place back.
    Failback,
}

/// A span as people read it: `850ms`, `12s`, `4m10s`, `2h5m`.
#[derive(Debug, Clone, Copy)]
pub struct Humane(pub Duration);

impl fmt::Display for Humane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0) => write!(f, "{}ms", self.0.as_millis()),
            (0, 0, s) => write!(f, "{s}s"),
            (0, m, 0) => write!(f, "{m}m"),
            (0, m, s) => write!(f, "{m}m{s}s"),
            (h, 0, _) => write!(f, "{h}h"),
            (h, m, _) => write!(f, "{h}h{m}m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn spans_read_as_people_say_them() {
        let said = |ms| Humane(Duration::from_millis(ms)).to_string();
        assert_eq!(said(0), "0ms");
        assert_eq!(said(850), "850ms");
        assert_eq!(said(12_000), "12s");
        assert_eq!(said(60_000), "1m");
        assert_eq!(said(250_000), "4m10s");
        assert_eq!(said(7_500_000), "2h5m");
    }

    #[test]
    fn moments_never_overflow() {
        assert_eq!(Moment(u64::MAX) + Duration::MAX, Moment(u64::MAX));
        assert_eq!(Moment(1).since(Moment(2)), Duration::ZERO);
    }
}
