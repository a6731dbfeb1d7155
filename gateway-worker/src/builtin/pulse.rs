//! How late the event loop is, measured when asked.
//!
//! OpenClaw samples by a periodic timer; a thousand idle gateways doing so would be most of the load of their
//! host. Here each question times a few trips through the loop: a trip takes as long as everything
//! that waits for its turn, which is the lag that a client would meet now.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use tokio::runtime::Handle;

/// Trips timed by one question: enough to meet a busy neighbour, cheap enough for every probe.
const TRIPS: usize = 4;
/// Trips remembered for the percentile: the last 64 questions.
const MEMORY: usize = 256;
/// OpenClaw's own threshold of a degraded loop.
const DEGRADED: Duration = Duration::from_secs(1);

/// The figures as OpenClaw names them. Delays in milliseconds; ratios of one core.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventLoop {
    degraded: bool,
    reasons: &'static [&'static str],
    /// The time since the figures were last asked for, over which utilization and CPU are averaged.
    interval_ms: f64,
    delay_p99_ms: f64,
    delay_max_ms: f64,
    utilization: f64,
    cpu_core_ratio: f64,
}

/// The memory of the measurements.
pub(crate) struct Pulse(Mutex<Samples>);

struct Samples {
    delays: VecDeque<Duration>,
    since: Reading,
}

/// What had been used up at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    busy: Duration,
    cpu: Duration,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let since = Reading { at: Instant::now(), busy: Duration::ZERO, cpu: cpu_time() };
        Self(Mutex::new(Samples { delays: VecDeque::with_capacity(MEMORY), since }))
    }

    /// Measures now.
    pub(crate) async fn measure(&self) -> EventLoop {
        let mut trips = [Duration::ZERO; TRIPS];
        for trip in &mut trips {
            let begun = Instant::now();
            tokio::task::yield_now().await;
            *trip = begun.elapsed();
        }
        let busy = Handle::current().metrics().worker_total_busy_duration(0);
        let reading = Reading { at: Instant::now(), busy, cpu: cpu_time() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(trips, reading)
    }
}

impl Samples {
    fn take(&mut self, trips: [Duration; TRIPS], reading: Reading) -> EventLoop {
        self.delays.drain(..(self.delays.len() + TRIPS).saturating_sub(MEMORY));
        self.delays.extend(trips);
        let mut sorted: Vec<_> = self.delays.iter().copied().collect();
        sorted.sort_unstable();
        let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
        let max = sorted[sorted.len() - 1];
        let since = std::mem::replace(&mut self.since, reading);
        let interval = reading.at - since.at;
        let share = |used: Duration| used.as_secs_f64() / interval.as_secs_f64().max(f64::EPSILON);
        let degraded = max >= DEGRADED;
        EventLoop {
            degraded,
            reasons: if degraded { &["event_loop_delay"] } else { &[] },
            interval_ms: rounded(interval.as_secs_f64() * 1e3),
            delay_p99_ms: rounded(p99.as_secs_f64() * 1e3),
            delay_max_ms: rounded(max.as_secs_f64() * 1e3),
            utilization: rounded(share(reading.busy.saturating_sub(since.busy)).min(1.0)),
            cpu_core_ratio: rounded(share(reading.cpu.saturating_sub(since.cpu))),
        }
    }
}

/// User and system time of the whole process.
fn cpu_time() -> Duration {
    // It fails only for a wrong argument.
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
    })
}

/// To three places: more is noise.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_for(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_task_that_hogs_the_loop_shows_as_delay() {
        let pulse = Pulse::new();
        assert!(!pulse.measure().await.degraded);
        tokio::spawn(async { block_for(Duration::from_millis(1_100)) });
        let figures = pulse.measure().await;
        assert!(figures.degraded, "{figures:?}");
        assert!(figures.delay_max_ms >= 1_000.0, "{figures:?}");
        assert_eq!(figures.reasons, ["event_loop_delay"]);
    }

    #[tokio::test]
    async fn the_memory_of_delays_is_bounded() {
        let pulse = Pulse::new();
        for _ in 0..MEMORY {
            pulse.measure().await;
        }
        assert_eq!(pulse.0.lock().unwrap().delays.len(), MEMORY);
    }
}
