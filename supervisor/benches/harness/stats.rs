//! Medians and percentiles.

use std::time::Duration;

/// Measurements of one thing.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// At least one; none is a mistake of the row.
    pub(crate) fn new(mut samples: Vec<Duration>) -> anyhow::Result<Self> {
        anyhow::ensure!(!samples.is_empty(), "nothing was measured");
        samples.sort_unstable();
        Ok(Self(samples))
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The one that `percent` of all do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}
