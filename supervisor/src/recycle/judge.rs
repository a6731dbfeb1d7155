//! Whether an instance takes too much, and whether this is the moment to end its life.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    figures::Figure,
    spec::{Bytes, Memory, Span},
};

/// A gateway that has used less of a core than this, in thousandths, had nothing to do.
const IDLE_PERMILLE: u128 = 100;

/// For so many spans between two looks in a row.
const IDLE_SPANS: usize = 4;

/// What it had running at its calmest is looked for in this time: helpers that stay are no work.
const CALM_FOR: Duration = Duration::from_secs(3600);

/// What was seen of one life.
#[derive(Debug, Default)]
pub(super) struct Scales {
    /// Processor time in milliseconds, at each of the last looks.
    used: VecDeque<(Instant, u64)>,
    processes: u32,
    /// The fewest processes in the hour that began then, and in the one before.
    calmest: Option<(Instant, u32, u32)>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing.
    Fine,
    /// It takes too much, as `over` says, and is left alone until then.
    Waits { over: String, until: String },
    /// Its life is to be ended; `short` says why within a sentence of the history.
    Due { over: String, short: String },
}

impl Scales {
    pub(super) fn weigh(&mut self, now: Instant, figure: &Figure) {
        self.used.push_back((now, figure.cpu_ms));
        if self.used.len() > IDLE_SPANS + 1 {
            self.used.pop_front();
        }
        self.processes = figure.processes;
        let fewest = figure.processes;
        self.calmest = Some(match self.calmest {
            None => (now, fewest, fewest),
            Some((since, this, _)) if now - since >= CALM_FOR => (now, fewest, this),
            Some((since, this, last)) => (since, this.min(fewest), last),
        });
    }

    fn is_quiet(&self) -> bool {
        let mut spans = self.used.iter().zip(self.used.iter().skip(1));
        let idle = |((then, before), (now, after)): (&(Instant, u64), &(Instant, u64))| {
            u128::from(after.saturating_sub(*before)) * 1_000 < (*now - *then).as_millis() * IDLE_PERMILLE
        };
        let calm = self.calmest.is_none_or(|(_, this, last)| self.processes <= this.min(last));
        self.used.len() > IDLE_SPANS && spans.all(idle) && calm
    }

    /// What to do about a life that takes `rss`, has lasted for `uptime`, and goes on at this minute of the day.
    pub(super) fn judge(&self, memory: &Memory, rss: u64, uptime: Duration, minute: u16) -> Judgement {
        let exceeded = |limit: Option<Bytes>| limit.filter(|limit| rss > limit.0);
        let (which, limit, hard) = match (exceeded(memory.hard_limit), exceeded(memory.soft_limit)) {
            (Some(limit), _) => ("hard", limit, true),
            (None, Some(limit)) => ("soft", limit, false),
            (None, None) => return Judgement::Fine,
        };
        let mib = rss >> 20;
        let over = format!("its memory, {mib}MiB, is over its {which} limit, {limit}");
        let until = if uptime < memory.min_uptime() {
            format!("once it has run for {}", Span(memory.min_uptime()))
        } else if let Some(window) = memory.window.filter(|window| !hard && !window.contains(minute)) {
            format!("in a quiet moment within {window}")
        } else if !hard && !self.is_quiet() {
            "in a quiet moment".to_owned()
        } else {
            let short = format!("its memory ({mib}MiB, over its {which} limit of {limit})");
            return Judgement::Due { over, short };
        };
        Judgement::Waits { over, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(7_200);

    fn memory() -> Memory {
        Memory { soft_limit: Some(Bytes::mib(100)), hard_limit: Some(Bytes::mib(200)), ..Memory::default() }
    }

    fn figure(cpu_ms: u64, processes: u32) -> Figure {
        Figure { cpu_percent: 0.0, cpu_ms, rss_bytes: 0, growth: None, processes }
    }

    /// Looks every ten seconds; each time it has used so much more.
    fn scales(looks: &[(u64, u32)]) -> Scales {
        let (mut scales, mut now, mut used) = (Scales::default(), Instant::now(), 0);
        for (cpu_ms, processes) in looks {
            now += Duration::from_secs(10);
            used += cpu_ms;
            scales.weigh(now, &figure(used, *processes));
        }
        scales
    }

    fn quiet() -> Scales {
        scales(&[(10, 1); 5])
    }

    /// What it waits for, if it does.
    fn waits(scales: &Scales, memory: &Memory, mib: u64, uptime: Duration) -> Option<String> {
        match scales.judge(memory, mib << 20, uptime, 720) {
            Judgement::Waits { until, .. } => Some(until),
            Judgement::Fine | Judgement::Due { .. } => None,
        }
    }

    fn due(scales: &Scales, memory: &Memory, mib: u64, uptime: Duration) -> bool {
        matches!(scales.judge(memory, mib << 20, uptime, 720), Judgement::Due { .. })
    }

    #[test]
    fn what_stays_within_its_limits_is_left_alone() {
        assert_eq!(quiet().judge(&memory(), 100 << 20, LONG, 720), Judgement::Fine);
        assert_eq!(quiet().judge(&Memory::default(), 1 << 40, LONG, 720), Judgement::Fine);
    }

    #[test]
    fn over_the_soft_limit_it_is_ended_in_a_quiet_moment_and_over_the_hard_one_at_once() {
        let busy = scales(&[(5_000, 1); 5]);
        assert_eq!(waits(&busy, &memory(), 101, LONG).as_deref(), Some("in a quiet moment"));
        assert!(due(&quiet(), &memory(), 101, LONG));
        assert!(due(&busy, &memory(), 201, LONG));
    }

    #[test]
    fn it_is_quiet_once_it_has_been_idle_for_four_spans_and_has_no_more_running_than_at_its_calmest() {
        assert!(!scales(&[(10, 1); 4]).is_quiet(), "it is not known for long enough");
        assert!(!scales(&[(10, 1), (10, 1), (5_000, 1), (10, 1), (10, 1)]).is_quiet());
        assert!(scales(&[(5_000, 1), (10, 1), (10, 1), (10, 1), (10, 1)]).is_quiet());
        assert!(!scales(&[(10, 1), (10, 1), (10, 1), (10, 1), (10, 2)]).is_quiet(), "a tool runs");
        let hours = scales(&[[(10, 1)].as_slice(), &[(10, 2); 800]].concat());
        assert!(hours.is_quiet(), "what has been there for an hour is a helper that stays");
    }

    #[test]
    fn the_soft_limit_waits_for_its_window_and_the_hard_one_does_not() {
        let at_night = Memory { window: Some("03:00-05:00".parse().unwrap()), ..memory() };
        let waits = waits(&quiet(), &at_night, 101, LONG);
        assert_eq!(waits.as_deref(), Some("in a quiet moment within 03:00-05:00"));
        assert!(due(&quiet(), &at_night, 201, LONG));
        assert!(matches!(quiet().judge(&at_night, 101 << 20, LONG, 200), Judgement::Due { .. }));
    }

    #[test]
    fn no_life_is_ended_before_its_time() {
        let young = Duration::from_secs(3_599);
        assert_eq!(waits(&quiet(), &memory(), 201, young).as_deref(), Some("once it has run for 1h"));
        assert!(due(&quiet(), &memory(), 201, Duration::from_secs(3_600)));
    }
}
