//! What processes have used lately, as a line of small bars.

use std::collections::VecDeque;

use supervisor_proto::v1::Resources;

use super::style::Marks;

/// Looks that are remembered: what there is room for on a line.
const KEPT: usize = 30;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in ASCII.
const PLAIN_BARS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
/// The scale of processors goes at least so far, in percent of one: less is noise.
const LEAST_CPU: f64 = 10.0;
/// The scale of memory is at least this part of its greatest value.
const LEAST_PART: f64 = 0.1;

/// The last looks, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Trend(VecDeque<(f64, f64)>);

impl Trend {
    /// Remembers one more look.
    pub(crate) fn take(&mut self, used: &Resources) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "it is a bar of eight heights")]
        self.0.push_back((used.cpu_percent, used.rss_bytes as f64));
    }

    /// What ran has ended: its bars say nothing about the next.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Processor time, from nothing up. Empty until there are two looks.
    pub(crate) fn cpu(&self, marks: Marks) -> String {
        let most = self.0.iter().map(|(cpu, _)| *cpu).fold(LEAST_CPU, f64::max);
        self.bars(|(cpu, _)| cpu / most, marks)
    }

    /// Memory, from its least up. Empty until there are two looks.
    pub(crate) fn memory(&self, marks: Marks) -> String {
        let each = || self.0.iter().map(|(_, memory)| *memory);
        let (least, most) = (each().fold(f64::MAX, f64::min), each().fold(0.0, f64::max));
        let span = (most - least).max(most * LEAST_PART).max(1.0);
        self.bars(|(_, memory)| (memory - least) / span, marks)
    }

    fn bars(&self, part: impl Fn(&(f64, f64)) -> f64, marks: Marks) -> String {
        if self.0.len() < 2 {
            return String::new();
        }
        let bars = if marks == Marks::Shown { BARS } else { PLAIN_BARS };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 7")]
        let bar = |look: &(f64, f64)| bars[(part(look).clamp(0.0, 1.0) * 7.0).round() as usize];
        self.0.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(looks: impl IntoIterator<Item = (f64, u64)>) -> Trend {
        let mut trend = Trend::default();
        for (cpu_percent, rss_bytes) in looks {
            trend.take(&Resources { cpu_percent, rss_bytes, ..Resources::default() });
        }
        trend
    }

    #[test]
    fn bars_rise_with_what_is_used() {
        let trend = of([(0.0, 100), (50.0, 150), (100.0, 200)]);
        assert_eq!([trend.cpu(Marks::Shown), trend.memory(Marks::Hidden)], ["▁▅█", "_=#"]);
    }

    #[test]
    fn noise_is_flat_and_one_look_is_no_trend() {
        let still = of([(0.1, 1_000_000), (0.2, 1_000_010), (0.1, 1_000_000)]);
        assert_eq!([still.cpu(Marks::Shown), still.memory(Marks::Shown)], ["▁▁▁", "▁▁▁"]);
        assert_eq!(of([(5.0, 5)]).cpu(Marks::Shown), "");
        let mut many = of((0..99).map(|_| (100.0, 5)));
        assert_eq!(many.cpu(Marks::Hidden), "#".repeat(KEPT));
        many.forget();
        assert_eq!(many.memory(Marks::Shown), "");
    }
}
