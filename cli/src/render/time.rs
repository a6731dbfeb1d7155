//! Durations and times as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use prost_types::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in its two largest units, e.g. "340ms", "12s", "3m 5s", "2h", "4d 3h".
pub(crate) fn humane(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, unit: char, small: u64, lesser: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{lesser}") }
    };
    match seconds {
        0 => format!("{}ms", duration.subsec_millis()),
        1..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => two(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        HOUR..DAY => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        DAY.. => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
    }
}

/// The present.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(since)
}

/// The time `ago` before now.
pub(crate) fn before_now(ago: Duration) -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(since.saturating_sub(ago))
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or_default(),
    }
}

/// How long `earlier` was before `later`; zero if it was not.
pub(crate) fn between(earlier: &Timestamp, later: &Timestamp) -> Duration {
    let nanos = |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let difference = u64::try_from(nanos(later) - nanos(earlier)).unwrap_or_default();
    Duration::from_nanos(difference)
}

/// How long ago, e.g. "12s ago".
pub(crate) fn ago(time: &Timestamp) -> String {
    let elapsed = between(time, &now());
    if elapsed < Duration::from_secs(1) { "just now".to_owned() } else { format!("{} ago", humane(elapsed)) }
}

/// In how long, e.g. "in 3s".
pub(crate) fn until(time: &Timestamp) -> String {
    let left = between(&now(), time);
    if left.is_zero() { "now".to_owned() } else { format!("in {}", humane(left)) }
}

/// Local times, with the zone read once.
#[derive(Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    today: Option<jiff::civil::Date>,
}

impl Clock {
    /// A clock of this host's time zone.
    pub(crate) fn local() -> Self {
        let zone = TimeZone::system();
        let today = instant(&now()).map(|now| now.to_zoned(zone.clone()).date());
        Self { zone, today }
    }

    /// "08:15:02" today, "2026-03-01 08:15:02" otherwise.
    pub(crate) fn time(&self, time: &Timestamp) -> String {
        let Some(zoned) = instant(time).map(|at| at.to_zoned(self.zone.clone())) else {
            return "-".to_owned();
        };
        let format = if Some(zoned.date()) == self.today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        zoned.strftime(format).to_string()
    }

    /// RFC 3339 with milliseconds and the zone's offset, which sorts and parses.
    pub(crate) fn stamp(&self, time: &Timestamp) -> String {
        instant(time).map_or_else(
            || "-".to_owned(),
            |at| at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        )
    }
}

fn instant(time: &Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_its_two_largest_units() {
        let told = |seconds| humane(Duration::from_secs(seconds));
        assert_eq!(humane(Duration::from_millis(340)), "340ms");
        assert_eq!(told(12), "12s");
        assert_eq!(told(59), "59s");
        assert_eq!(told(60), "1m");
        assert_eq!(told(185), "3m 5s");
        assert_eq!(told(2 * 3600), "2h");
        assert_eq!(told(2 * 3600 + 59), "2h");
        assert_eq!(told(4 * 86_400 + 3 * 3600 + 59), "4d 3h");
    }

    #[test]
    fn a_time_in_the_future_is_no_time_ago() {
        let (early, late) =
            (Timestamp { seconds: 5, nanos: 0 }, Timestamp { seconds: 6, nanos: 500_000_000 });
        assert_eq!(between(&early, &late), Duration::from_millis(1500));
        assert_eq!(between(&late, &early), Duration::ZERO);
    }
}
