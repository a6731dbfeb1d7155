//! What the journal says, as far as the reference model listens.

use supervisor_core::{ids::Name, journal::Kind, ports::Block};

/// What an entry of the journal means here.
pub(crate) enum News<'a> {
    Created(Block),
    Ports(Block),
    Deleted,
    /// This rescue is called.
    Called(&'a Name),
    /// This rescue has taken the place.
    StandsIn(&'a Name),
    /// The place is the primary's again, and this rescue's no more.
    Back(&'a Name),
    /// Nothing.
    Other,
}

impl<'a> News<'a> {
    pub(crate) fn of(kind: &'a Kind) -> Self {
        match kind {
            Kind::Created(block) => Self::Created(*block),
            Kind::Moved { to, .. } => Self::Ports(*to),
            Kind::Deleted => Self::Deleted,
            Kind::FailoverBegan { rescue, .. } => Self::Called(rescue),
            Kind::FailedOver { rescue } => Self::StandsIn(rescue),
            Kind::FailoverCancelled { rescue }
            | Kind::RescueLost { rescue }
            | Kind::FailedBack { rescue } => Self::Back(rescue),
            Kind::Restored { .. }
            | Kind::Halting
            | Kind::PoolChanged(_)
            | Kind::StoreFailing(_)
            | Kind::StoreRecovered
            | Kind::Updated { .. }
            | Kind::Deleting
            | Kind::WishedUp { .. }
            | Kind::WishedDown { .. }
            | Kind::WishedRestart { .. }
            | Kind::Started { .. }
            | Kind::Ready { .. }
            | Kind::Exited(_)
            | Kind::LaunchFailed(_)
            | Kind::BackingOff { .. }
            | Kind::BudgetSpent { .. }
            | Kind::GaveUp(_)
            | Kind::LeftDown(_)
            | Kind::StartupFailed { .. }
            | Kind::Hung { .. }
            | Kind::Unhealthy { .. }
            | Kind::Healthy
            | Kind::NotAsked { .. }
            | Kind::Stopped
            | Kind::StopOverdue
            | Kind::Adopted { .. }
            | Kind::WorkerLost
            | Kind::NoRescue { .. }
            | Kind::Recovery(_)
            | Kind::Channel(_)
            | Kind::StaleReport { .. }
            | Kind::FilesLeft { .. } => Self::Other,
        }
    }
}
