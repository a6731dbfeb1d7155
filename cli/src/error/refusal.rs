//! The supervisor's refusals: from the wire to a kind of end and a hint.
//!
//! Both maps name every [`Reason`], so that a new refusal cannot be added to the contract without deciding
//! here how it is told.

use std::error::Error as _;

use supervisor_proto::v1::{ERROR_DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{ASK_OWNER, Cause, Kind, REPORT};

/// A refusal, as it came over the wire.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    /// `None` if the supervisor gave none, or is newer and gave one unknown here.
    pub(crate) reason: Option<Reason>,
    /// One sentence.
    pub(crate) message: String,
    /// `BadRequest.field_violations`: path and description.
    pub(crate) violations: Vec<(String, String)>,
    /// The known instance whose name is nearest to the unknown one.
    pub(crate) nearest: Option<String>,
}

impl From<Status> for Cause {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        // A status that this side made up has the transport's error as its source; one that came over the
        // wire has none.
        if info.is_none()
            && let Some(source) = status.source()
        {
            return Self::Broken(deepest(source));
        }
        let violations = status
            .get_details_bad_request()
            .map(|request| {
                request.field_violations.into_iter().map(|each| (each.field, each.description)).collect()
            })
            .unwrap_or_default();
        Self::Refused(Box::new(Refusal {
            code: status.code(),
            reason: info.and_then(|info| Reason::from_str_name(&format!("REASON_{}", info.reason))),
            message: message(&status),
            violations,
            nearest: None,
        }))
    }
}

fn message(status: &Status) -> String {
    let message = status.message().trim().trim_end_matches('.');
    if message.is_empty() { status.code().description().to_owned() } else { message.to_owned() }
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

impl Refusal {
    /// What kind of end this is: by its reason, or by the canonical code where there is none.
    pub(super) fn kind(&self) -> Kind {
        match self.reason {
            None | Some(Reason::Unspecified) => kind_of_code(self.code),
            Some(reason) => kind_of_reason(reason),
        }
    }

    /// What to type next. `subject` is the instance the call was about.
    pub(super) fn hint(&self, subject: Option<&str>) -> Option<String> {
        if let Some(nearest) = &self.nearest {
            return Some(format!("did you mean `{nearest}`?"));
        }
        let hint = match self.reason {
            None | Some(Reason::Unspecified) => hint_for_code(self.code).map(str::to_owned),
            // It is about no instance, and its sentence says what to do.
            Some(Reason::OutcomeFailed) if subject.is_none() => None,
            Some(reason) => hint_for_reason(reason, subject.unwrap_or("NAME")),
        };
        // The supervisor's sentence often says it already.
        hint.filter(|_| !self.message.contains("openclawctl "))
    }

    /// The violations that the sentence does not tell already, a line each.
    pub(super) fn untold(&self) -> impl Iterator<Item = String> {
        let untold = self.violations.iter().filter(|(_, what)| !self.message.contains(what.as_str()));
        untold.map(|(path, what)| format!("  {path}: {what}"))
    }

    /// Whether the same call may succeed in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.code == Code::Unavailable || self.reason == Some(Reason::ReaderTooSlow)
    }
}

fn kind_of_reason(reason: Reason) -> Kind {
    match reason {
        Reason::UnknownInstance
        | Reason::UnknownSnapshot
        | Reason::UnknownIncident
        | Reason::UnknownSink
        | Reason::UnknownCertificate => Kind::NotFound,
        Reason::NotPermitted | Reason::InsideInstance => Kind::NotPermitted,
        Reason::ShuttingDown => Kind::Unreachable,
        // This program makes request ids, page tokens and filters itself.
        Reason::RequestIdReused | Reason::InvalidPageToken | Reason::InvalidFilter => Kind::Bug,
        Reason::Unspecified
        | Reason::InstanceExists
        | Reason::InvalidName
        | Reason::InvalidSpec
        | Reason::InvalidFleet
        | Reason::EtagMismatch
        | Reason::PoolExhausted
        | Reason::PortOverlap
        | Reason::PortOutsidePool
        | Reason::PortInUse
        | Reason::RescueOfItself
        | Reason::RescueCycle
        | Reason::UnknownPrimary
        | Reason::NotARescue
        | Reason::RescueDown
        | Reason::NotFailedOver
        | Reason::AlreadyFailedOver
        | Reason::PrimaryNotReady
        | Reason::InstanceRunning
        | Reason::InstanceDown
        | Reason::InstanceDeleting
        | Reason::OutcomeFailed
        | Reason::RevisionCompacted
        | Reason::ReaderTooSlow
        | Reason::RequestTooSlow
        | Reason::TooManyInstances
        | Reason::Storage
        | Reason::PathOverlap
        | Reason::InvalidCursor
        | Reason::Overloaded
        | Reason::AmbiguousSnapshot
        | Reason::NoGoodConfig
        | Reason::NoConfig
        | Reason::BadConfig
        | Reason::BadCertificates
        | Reason::NoDashboard => Kind::Refused,
    }
}

fn kind_of_code(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Kind::NotPermitted,
        Code::DeadlineExceeded => Kind::TimedOut,
        Code::Unavailable => Kind::Unreachable,
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Cancelled
        | Code::Unimplemented => Kind::Refused,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Kind::Bug,
    }
}

fn hint_for_reason(reason: Reason, name: &str) -> Option<String> {
    let hint = match reason {
        Reason::UnknownInstance | Reason::NotARescue | Reason::NotFailedOver | Reason::UnknownPrimary => {
            "openclawctl status".to_owned()
        }
        Reason::InstanceExists | Reason::PrimaryNotReady | Reason::OutcomeFailed => {
            format!("openclawctl status {name}")
        }
        Reason::InvalidFleet => "mend the file, then try it with --dry-run".to_owned(),
        Reason::EtagMismatch
        | Reason::InstanceDeleting
        | Reason::Overloaded
        | Reason::ReaderTooSlow
        | Reason::RequestTooSlow => "run the command again".to_owned(),
        Reason::PortOverlap | Reason::PortOutsidePool | Reason::PoolExhausted => {
            "openclawctl ports".to_owned()
        }
        Reason::PortInUse | Reason::InstanceRunning => format!("openclawctl down {name}"),
        Reason::RescueOfItself | Reason::RescueCycle | Reason::PathOverlap => {
            "mend the fleet file, then openclawctl apply -f FILE".to_owned()
        }
        Reason::RescueDown => "start the rescue first with openclawctl up".to_owned(),
        Reason::InstanceDown => format!("openclawctl up {name}"),
        Reason::AlreadyFailedOver => format!("openclawctl failback --from {name}"),
        Reason::RevisionCompacted => "openclawctl events, without --after".to_owned(),
        Reason::InvalidCursor => format!("openclawctl logs {name}"),
        Reason::ShuttingDown => "openclawctl supervisor start, once it has ended".to_owned(),
        Reason::Storage => "openclawctl supervisor status".to_owned(),
        Reason::NotPermitted => ASK_OWNER.to_owned(),
        Reason::InsideInstance => "openclawctl status".to_owned(),
        Reason::TooManyInstances => "openclawctl rm NAME, or a higher limit in the settings".to_owned(),
        Reason::UnknownSnapshot | Reason::AmbiguousSnapshot | Reason::NoGoodConfig | Reason::BadConfig => {
            format!("openclawctl config snapshots {name}")
        }
        Reason::NoConfig => format!("openclawctl up {name}"),
        Reason::UnknownIncident => "openclawctl incidents".to_owned(),
        Reason::UnknownSink => "openclawctl alerts".to_owned(),
        Reason::UnknownCertificate => "openclawctl cert list".to_owned(),
        Reason::BadCertificates => "openclawctl cert init".to_owned(),
        Reason::NoDashboard => "openclawctl supervisor stop; openclawctl supervisor start".to_owned(),
        Reason::RequestIdReused | Reason::InvalidPageToken | Reason::InvalidFilter => REPORT.to_owned(),
        Reason::Unspecified | Reason::InvalidName | Reason::InvalidSpec => return None,
    };
    Some(hint)
}

fn hint_for_code(code: Code) -> Option<&'static str> {
    match code {
        Code::NotFound => Some("openclawctl status"),
        Code::PermissionDenied | Code::Unauthenticated => Some(ASK_OWNER),
        Code::DeadlineExceeded | Code::Unavailable => Some("openclawctl supervisor status"),
        Code::Unimplemented => Some("the supervisor is older than this openclawctl: see openclawctl version"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Some(REPORT),
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Cancelled => None,
    }
}
