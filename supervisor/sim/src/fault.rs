//! What goes wrong, drawn for each seed: some faults often, some never, so that every mixture has its turn.

use std::{fmt, time::Duration};

use supervisor_core::rng::Rng;

/// How often something happens, in thousandths.
pub type Permille = u64;

/// The faults of one run.
#[derive(Debug, Clone)]
pub struct Faults {
    /// How long they go on.
    pub span: Duration,
    /// Mean time from a gateway's start to its death by itself.
    pub gateway_dies: Option<Duration>,
    /// Gateways that die before they are ready.
    pub dies_starting: Permille,
    /// Gateways that never become ready.
    pub never_ready: Permille,
    /// Mean time from a gateway's start until it hangs or cannot serve.
    pub gateway_sickens: Option<Duration>,
    /// Gateways that do not heed SIGTERM.
    pub ignores_term: Permille,
    /// Gateways that take long to die when killed.
    pub hard_to_kill: Permille,
    /// Launches that fail: the port is taken, the configuration refused, the program gone.
    pub launch_fails: Permille,
    /// Launches that are never answered.
    pub launch_unanswered: Permille,
    /// Orders that are lost, of those that core repeats.
    pub lost_orders: Permille,
    /// Orders that take long.
    pub slow_orders: Permille,
    /// Mean time from a worker's start to its death.
    pub worker_dies: Option<Duration>,
    /// Workers that cannot be reached by the next supervisor.
    pub unreachable: Permille,
    /// Probes that lie.
    pub probe_lies: Permille,
    /// Probes that are never answered.
    pub probe_stalls: Permille,
    /// Reports that come twice.
    pub duplicates: Permille,
    /// Reports that are overtaken by later ones.
    pub reordered: Permille,
    /// The longest write, usually.
    pub write: Duration,
    /// Writes that fail for a while.
    pub write_fails: Permille,
    /// Mean time between two deaths of the supervisor.
    pub supervisor_dies: Option<Duration>,
    /// Actions before which it dies.
    pub dies_acting: Permille,
    /// Deaths of the supervisor that are restarts of the host.
    pub reboots: Permille,
    /// How late ticks may be.
    pub late_ticks: Duration,
    /// Mean time between two commands.
    pub commands: Duration,
}

impl Faults {
    /// Draws the faults of a run.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut swarm = Swarm(rng);
        Self {
            span: swarm.time(&[20, 120, 600]),
            gateway_dies: swarm.maybe_time(&[1, 10, 100]),
            dies_starting: swarm.maybe(&[50, 300]),
            never_ready: swarm.maybe(&[50, 300]),
            gateway_sickens: swarm.maybe_time(&[5, 50]),
            ignores_term: swarm.maybe(&[100, 500]),
            hard_to_kill: swarm.maybe(&[50, 300]),
            launch_fails: swarm.maybe(&[50, 300, 800]),
            launch_unanswered: swarm.maybe(&[20, 200]),
            lost_orders: swarm.maybe(&[20, 200]),
            slow_orders: swarm.maybe(&[20, 200]),
            worker_dies: swarm.maybe_time(&[5, 60]),
            unreachable: swarm.maybe(&[100, 500]),
            probe_lies: swarm.maybe(&[20, 300]),
            probe_stalls: swarm.maybe(&[20, 300]),
            duplicates: swarm.maybe(&[20, 300]),
            reordered: swarm.maybe(&[20, 300]),
            write: Duration::from_millis(swarm.one_of(&[1, 1, 50, 5_000])),
            write_fails: swarm.maybe(&[20, 300]),
            supervisor_dies: swarm.maybe_time(&[5, 60]),
            dies_acting: swarm.maybe(&[1, 20]),
            reboots: swarm.maybe(&[100, 500]),
            late_ticks: Duration::from_millis(swarm.one_of(&[0, 0, 5, 500])),
            commands: Duration::from_millis(swarm.one_of(&[300, 3_000, 30_000])),
        }
    }

    /// All is well from now on.
    pub(crate) fn none() -> Self {
        Self {
            span: Duration::ZERO,
            gateway_dies: None,
            dies_starting: 0,
            never_ready: 0,
            gateway_sickens: None,
            ignores_term: 0,
            hard_to_kill: 0,
            launch_fails: 0,
            launch_unanswered: 0,
            lost_orders: 0,
            slow_orders: 0,
            worker_dies: None,
            unreachable: 0,
            probe_lies: 0,
            probe_stalls: 0,
            duplicates: 0,
            reordered: 0,
            write: Duration::from_millis(1),
            write_fails: 0,
            supervisor_dies: None,
            dies_acting: 0,
            reboots: 0,
            late_ticks: Duration::ZERO,
            commands: Duration::MAX,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Chance, in the forms that worlds need it.
pub(crate) struct Swarm<'a>(pub(crate) &'a mut Rng);

impl Swarm<'_> {
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap_or(1);
        choices[usize::try_from(self.0.below(count)).unwrap_or(0)]
    }

    /// Off in half of all runs.
    fn maybe(&mut self, choices: &[Permille]) -> Permille {
        if self.often(500) { self.one_of(choices) } else { 0 }
    }

    fn maybe_time(&mut self, seconds: &[u64]) -> Option<Duration> {
        self.often(500).then(|| self.time(seconds))
    }

    pub(crate) fn time(&mut self, seconds: &[u64]) -> Duration {
        Duration::from_secs(self.one_of(seconds))
    }

    pub(crate) fn often(&mut self, permille: Permille) -> bool {
        permille > 0 && self.0.below(1_000) < permille
    }

    /// Up to `most`.
    pub(crate) fn span(&mut self, most: Duration) -> Duration {
        self.0.span(most)
    }

    /// Around `mean`: half of all draws are below 0.7 of it, few above five times.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        let halvings = self.0.draw().trailing_zeros();
        let base = mean.mul_f64(0.7) * halvings;
        base + self.0.span(mean.mul_f64(0.7))
    }
}
