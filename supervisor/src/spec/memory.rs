//! How much memory an instance may take, and when it is started anew to give it back.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Bytes, FieldPath, InstanceSpec, Span, check::Checker, or};

/// How often its processes are looked at unless the spec says otherwise.
const INTERVAL: Duration = Duration::from_secs(30);

/// No life is ended before, unless the spec says otherwise: a limit below what a gateway needs anyway costs a restart
/// an hour, and not its work.
const MIN_UPTIME: Duration = Duration::from_secs(3600);

/// No gateway does with less; a smaller limit is a mistake of unit.
const LEAST: Bytes = Bytes::mib(8);

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// What an instance may take, in resident memory of all its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Over it, it is started anew in a quiet moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_limit: Option<Bytes>,
    /// Over it, at once. In a control group with a controller of memory it does not get over it: what is largest in it is
    /// killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard_limit: Option<Bytes>,
    /// When the soft limit counts; any time unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// No life is ended before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_uptime: Option<Span>,
    /// How often it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

impl Memory {
    pub(super) fn merged(&self, defaults: &Self) -> Self {
        Self {
            soft_limit: or(&self.soft_limit, &defaults.soft_limit),
            hard_limit: or(&self.hard_limit, &defaults.hard_limit),
            window: or(&self.window, &defaults.window),
            min_uptime: or(&self.min_uptime, &defaults.min_uptime),
            interval: or(&self.interval, &defaults.interval),
        }
    }

    /// Whether there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.soft_limit.is_some() || self.hard_limit.is_some()
    }

    /// No life is ended before.
    #[must_use]
    pub fn min_uptime(&self) -> Duration {
        self.min_uptime.map_or(MIN_UPTIME, |span| span.0)
    }

    /// How often it is looked at.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval.map_or(INTERVAL, |span| span.0)
    }
}

/// A part of every day, in the host's local time: `03:00-05:00`. It may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first minute.
    from: u16,
    /// The minute after its last.
    to: u16,
}

impl Window {
    /// Whether this minute of the day is in it.
    #[must_use]
    pub fn contains(self, minute: u16) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let two =
                |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2 && !text.starts_with('+'));
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let ends =
            text.split_once('-').and_then(|(from, to)| Some((minute(from.trim())?, minute(to.trim())?)));
        match ends {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            Some(_) | None => Err(format!("`{text}` is not a part of the day; write it like `03:00-05:00`")),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [self.from % DAY, self.to % DAY];
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What is wrong with this part of a spec.
pub(super) fn check(spec: &InstanceSpec, checker: &mut Checker) {
    let Memory { soft_limit, hard_limit, window: _, min_uptime, interval } = &spec.memory;
    for (field, limit) in [("soft_limit", soft_limit), ("hard_limit", hard_limit)] {
        if let Some(limit) = limit.filter(|limit| *limit < LEAST) {
            let message = format!("{limit} is less than any gateway needs");
            checker.add(FieldPath::of(&["memory", field]), message, format!("choose {LEAST} or more"));
        }
    }
    if let (Some(soft), Some(hard)) = (soft_limit, hard_limit)
        && hard < soft
    {
        let message = format!("{hard} is less than `soft_limit`, {soft}");
        let mend = format!("make it at least {soft}, or lower `soft_limit`");
        checker.add(FieldPath::of(&["memory", "hard_limit"]), message, mend);
    }
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    checker.span(&["memory", "min_uptime"], *min_uptime, Duration::ZERO, 30 * 24 * hour);
    checker.span(&["memory", "interval"], *interval, second, hour);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_as_it_is_written_and_may_go_over_midnight() {
        let window: Window = "03:00-05:30".parse().unwrap();
        assert_eq!(window.to_string(), "03:00-05:30");
        assert!(window.contains(180) && window.contains(329));
        assert!(!window.contains(179) && !window.contains(330));
        let night: Window = "22:15 - 04:00".parse().unwrap();
        assert_eq!(night.to_string(), "22:15-04:00");
        assert!(night.contains(1_335) && night.contains(0) && night.contains(239));
        assert!(!night.contains(1_334) && !night.contains(240));
    }

    #[test]
    fn what_is_no_window_is_refused_with_how_it_is_written() {
        for wrong in ["", "03:00", "3-5", "03:00-24:00", "03:60-05:00", "03:00-03:00", "+3:00-05:00", "a-b"] {
            let refused = wrong.parse::<Window>().unwrap_err();
            assert!(refused.contains("write it like `03:00-05:00`"), "{refused}");
        }
    }
}
