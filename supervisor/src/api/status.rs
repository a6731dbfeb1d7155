//! From refusals to gRPC statuses: a code, a reason by name, a sentence that says what to do next.

mod brief;
mod denied;
mod unmet;

use std::{collections::HashMap, time::Duration};

use supervisor_core::{denied::Denied, ids::InvalidName};
use supervisor_proto::v1::{ERROR_DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, StatusExt};

pub(super) use self::brief::keep_brief;
pub(crate) use self::unmet::Unmet;
use super::inside::Insider;
use crate::{
    events::JournalError, handle::SubmitError, logs::LogError, openclaw::layout::Clash, problem::Problem,
    role::Role, spec::Violation,
};

/// A full queue of commands is empty again after some milliseconds.
const OVERLOADED: Duration = Duration::from_millis(100);

/// A supervisor that is replaced is back after about this long; a disk that failed may be, too.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// What a label of a refusal is called in its metadata, and its value.
type Label = (&'static str, String);

/// Why a call is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    /// Core refused it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// About a configuration or an incident.
    #[error(transparent)]
    Unmet(#[from] Unmet),
    /// Not a name.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// Fields of the request hold what they may not.
    #[error("{}", sentences(.0))]
    InvalidFields(Vec<Fault>),
    /// The fleet file cannot be taken.
    #[error("{}", problems(.0))]
    InvalidFleet(Vec<Problem>),
    /// Two instances would share a directory or file.
    #[error(transparent)]
    PathOverlap(#[from] Clash),
    /// Another request had this `request_id`.
    #[error("the request_id `{0}` was used for another request")]
    RequestIdReused(String),
    /// The outcome waited for cannot come any more.
    #[error("{sentence}")]
    OutcomeFailed {
        /// Of which instance.
        instance: String,
        /// What came instead.
        sentence: String,
        /// What to do about it.
        next: String,
    },
    /// What is wanted is not kept any more.
    #[error("what happened up to revision {kept} is not kept any more")]
    Compacted {
        /// The last revision that is not kept.
        kept: u64,
    },
    /// The reader did not keep up.
    #[error("the reader did not take anything for {} seconds", .0.as_secs())]
    ReaderTooSlow(Duration),
    /// The request did not come.
    #[error("the request did not arrive within {} seconds", .0.as_secs())]
    RequestTooSlow(Duration),
    /// The supervisor ends.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// Not for this caller.
    #[error("{who} has {}, and {what} takes {needs}", role(has.as_deref()))]
    NotPermitted {
        /// Who it is.
        who: String,
        /// Its role, if it has one.
        has: Option<String>,
        /// What it asked for.
        what: String,
        /// The role that this takes.
        needs: Role,
    },
    /// Not from inside this instance.
    #[error("{0}")]
    Inside(Insider),
    /// Where the caller runs cannot be told.
    #[error("{}", untraced(*.0))]
    Untraced(i32),
    /// Not a page token of this list.
    #[error("the page token is not one that this list gave")]
    InvalidPageToken,
    /// The filter cannot be read.
    #[error("{0}")]
    InvalidFilter(String),
    /// Not a cursor of this log.
    #[error("the cursor does not belong to the log of `{0}`")]
    InvalidCursor(String),
    /// The disk.
    #[error("{0}")]
    Storage(String),
    /// Too many commands.
    #[error("too many commands are waiting")]
    Overloaded,
}

/// One field that holds what it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its path in the request, e.g. `spec.restart.max_delay`.
    pub(crate) field: String,
    /// What is wrong, without a full stop.
    pub(crate) message: String,
    /// What to do about it, without a full stop.
    pub(crate) mend: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), mend: mend.into() }
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::new(format!("spec.{}", violation.path), violation.message, violation.mend)
    }
}

fn role(has: Option<&str>) -> String {
    has.map_or_else(|| "no role here".into(), |has| format!("the role {has}"))
}

fn sentences(faults: &[Fault]) -> String {
    let each = |Fault { field, message, mend }: &Fault| match &**field {
        "" => format!("{message}; {mend}"),
        field => format!("`{field}`: {message}; {mend}"),
    };
    faults.iter().map(each).collect::<Vec<_>>().join(". ")
}

fn problems(problems: &[Problem]) -> String {
    match problems {
        [] => "the fleet file cannot be taken".into(),
        [only] => format!("{}; {}", only.sentence(), only.mend),
        [first, rest @ ..] => format!("{}; {} (and {} more)", first.sentence(), first.mend, rest.len()),
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Denied(Denied::ShuttingDown) | SubmitError::Gone => Self::ShuttingDown,
            SubmitError::Denied(denied) => Self::Denied(denied),
            SubmitError::Overloaded => Self::Overloaded,
        }
    }
}

impl From<Insider> for Refusal {
    fn from(insider: Insider) -> Self {
        Self::Inside(insider)
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::storage(&error)
    }
}

/// The number of a process is 0 where it has none here.
fn untraced(pid: i32) -> String {
    let told = "and whether it runs inside an instance cannot be told";
    match pid {
        0 => format!("a process of another PID namespace called, {told}"),
        pid => format!("process {pid} called, {told}"),
    }
}

impl Refusal {
    /// What is wrong with one field.
    pub(crate) fn field(field: &str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::InvalidFields(vec![Fault::new(field, message, mend)])
    }

    /// An error of the disk, with its causes.
    pub(crate) fn storage(error: &dyn std::error::Error) -> Self {
        let mut sentence = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            sentence.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Storage(sentence)
    }

    /// Why the log of `instance` cannot be read.
    pub(crate) fn log(error: &LogError, instance: &str) -> Self {
        match error {
            LogError::InvalidCursor => Self::InvalidCursor(instance.into()),
            LogError::List { .. } | LogError::Open { .. } | LogError::Read { .. } => Self::storage(error),
        }
    }

    /// Its name in the contract.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Denied(denied) => denied::reason(denied),
            Self::Unmet(unmet) => unmet.reason(),
            Self::InvalidName(_) => Reason::InvalidName,
            Self::InvalidFields(_) => Reason::InvalidSpec,
            Self::InvalidFleet(_) => Reason::InvalidFleet,
            Self::PathOverlap(_) => Reason::PathOverlap,
            Self::RequestIdReused(_) => Reason::RequestIdReused,
            Self::OutcomeFailed { .. } => Reason::OutcomeFailed,
            Self::Compacted { .. } => Reason::RevisionCompacted,
            Self::ReaderTooSlow(_) => Reason::ReaderTooSlow,
            Self::RequestTooSlow(_) => Reason::RequestTooSlow,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::NotPermitted { .. } | Self::Untraced(_) => Reason::NotPermitted,
            Self::Inside(insider) if insider.is_inside() => Reason::InsideInstance,
            Self::Inside(_) => Reason::NotPermitted,
            Self::InvalidPageToken => Reason::InvalidPageToken,
            Self::InvalidFilter(_) => Reason::InvalidFilter,
            Self::InvalidCursor(_) => Reason::InvalidCursor,
            Self::Storage(_) => Reason::Storage,
            Self::Overloaded => Reason::Overloaded,
        }
    }

    /// What to do next, without a full stop; empty where the sentence says it.
    fn next(&self) -> String {
        match self {
            Self::Denied(denied) => denied::next(denied),
            Self::Unmet(unmet) => unmet.next(),
            Self::InvalidName(_) | Self::InvalidFields(_) | Self::InvalidFleet(_) => String::new(),
            Self::PathOverlap(clash) => clash.mend(),
            Self::RequestIdReused(_) => "take a fresh one for each request".into(),
            Self::OutcomeFailed { next, .. } => next.clone(),
            Self::Compacted { .. } => "begin with a new snapshot".into(),
            Self::ReaderTooSlow(_) | Self::RequestTooSlow(_) => "begin again".into(),
            Self::ShuttingDown => "try again when it is back".into(),
            Self::NotPermitted { .. } => {
                "ask for that role in `access` of the supervisor's settings, or call as the user it runs as, or as root"
                    .into()
            }
            Self::Inside(_) => "leave the rest to an operator".into(),
            Self::Untraced(0) => {
                "type it in the supervisor's container, or call by TCP: `openclawctl cert issue NAME --role ROLE` there, \
                 `openclawctl context add NAME --from NAME` here"
                    .into()
            }
            Self::Untraced(_) => {
                "type it in a login of this host, where it lives until the answer has come; what is behind walls of its \
                 own (seccomp, no_new_privs), as a hardened service or a container, calls by TCP: `openclawctl cert \
                 issue NAME --role ROLE` here, `openclawctl context add NAME --from NAME` there"
                    .into()
            }
            Self::InvalidPageToken => "begin with the first page".into(),
            Self::InvalidFilter(_) => {
                "write e.g. `name = \"ma*\" AND phase != READY`; `name`, `phase`, `wish` and `role` are known"
                    .into()
            }
            Self::InvalidCursor(_) => "begin with `tail` or `since`".into(),
            Self::Storage(_) => "see that the disk has room and works, then try again".into(),
            Self::Overloaded => "try again".into(),
        }
    }

    fn labels(&self) -> Vec<Label> {
        match self {
            Self::Denied(denied) => denied::labels(denied),
            Self::Unmet(unmet) => unmet.labels(),
            Self::InvalidName(invalid) => vec![("instance", invalid.0.clone())],
            Self::PathOverlap(clash) => {
                let other = clash.other.iter().map(|other| ("other", other.to_string()));
                let paths = [("path", clash.mine.display().to_string())];
                [("instance", clash.name.to_string())].into_iter().chain(other).chain(paths).collect()
            }
            Self::RequestIdReused(id) => vec![("requestId", id.clone())],
            Self::OutcomeFailed { instance, .. } => vec![("instance", instance.clone())],
            Self::Compacted { kept } => vec![("compactedRevision", kept.to_string())],
            Self::InvalidCursor(instance) => vec![("instance", instance.clone())],
            Self::Inside(insider) => vec![("instance", insider.name.to_string())],
            Self::NotPermitted { has, needs, .. } => {
                let has = has.iter().map(|has| ("role", has.clone()));
                has.chain([("needs", needs.to_string())]).collect()
            }
            Self::InvalidFields(_)
            | Self::InvalidFleet(_)
            | Self::ReaderTooSlow(_)
            | Self::RequestTooSlow(_)
            | Self::ShuttingDown
            | Self::Untraced(_)
            | Self::InvalidPageToken
            | Self::InvalidFilter(_)
            | Self::Storage(_)
            | Self::Overloaded => Vec::new(),
        }
    }

    fn details(&self) -> ErrorDetails {
        let reason = name(self.reason());
        let mut details = ErrorDetails::with_error_info(
            reason,
            ERROR_DOMAIN,
            self.labels().into_iter().map(brief::label).collect::<HashMap<_, _>>(),
        );
        match self {
            Self::InvalidFields(faults) => {
                let violation =
                    |fault: &Fault| (fault.field.clone(), format!("{}; {}", fault.message, fault.mend));
                details.set_bad_request(brief::violations(faults.iter().map(violation)));
            }
            Self::InvalidFleet(problems) => {
                let violation = |problem: &Problem| (problem.path.clone(), problem.to_string());
                details.set_bad_request(brief::violations(problems.iter().map(violation)));
            }
            Self::Overloaded => {
                details.set_retry_info(Some(OVERLOADED));
            }
            Self::ShuttingDown | Self::Storage(_) => {
                details.set_retry_info(Some(UNAVAILABLE));
            }
            Self::Denied(_)
            | Self::Unmet(_)
            | Self::InvalidName(_)
            | Self::PathOverlap(_)
            | Self::RequestIdReused(_)
            | Self::OutcomeFailed { .. }
            | Self::Compacted { .. }
            | Self::ReaderTooSlow(_)
            | Self::RequestTooSlow(_)
            | Self::NotPermitted { .. }
            | Self::Inside(_)
            | Self::Untraced(_)
            | Self::InvalidPageToken
            | Self::InvalidFilter(_)
            | Self::InvalidCursor(_) => {}
        }
        if code(self.reason()) == Code::FailedPrecondition {
            let subject = self.labels().into_iter().find(|(label, _)| *label == "instance");
            let subject = subject.map(|(_, instance)| format!("instance/{instance}")).unwrap_or_default();
            let violation = PreconditionViolation::new(reason, subject, brief::sentence(&self.to_string()));
            details.set_precondition_failure(vec![violation]);
        }
        details
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let sentence = refusal.to_string();
        let next = refusal.next();
        let message = match (sentence.ends_with('.'), next.is_empty()) {
            (true, true) => sentence,
            (_, true) => format!("{sentence}."),
            (_, false) => format!("{sentence}; {next}."),
        };
        Self::with_error_details(code(refusal.reason()), brief::sentence(&message), refusal.details())
    }
}

/// The canonical code that belongs to a reason.
pub(crate) fn code(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified => Code::Unknown,
        Reason::UnknownInstance
        | Reason::UnknownSnapshot
        | Reason::UnknownIncident
        | Reason::UnknownCertificate
        | Reason::UnknownSink => Code::NotFound,
        Reason::InstanceExists => Code::AlreadyExists,
        Reason::InvalidName
        | Reason::InvalidSpec
        | Reason::InvalidFleet
        | Reason::RequestIdReused
        | Reason::PortOutsidePool
        | Reason::RescueOfItself
        | Reason::RescueCycle
        | Reason::InvalidPageToken
        | Reason::InvalidFilter
        | Reason::InvalidCursor
        | Reason::AmbiguousSnapshot => Code::InvalidArgument,
        Reason::EtagMismatch => Code::Aborted,
        Reason::PoolExhausted | Reason::ReaderTooSlow | Reason::TooManyInstances | Reason::Overloaded => {
            Code::ResourceExhausted
        }
        Reason::PortOverlap
        | Reason::PortInUse
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
        | Reason::PathOverlap
        | Reason::NoGoodConfig
        | Reason::NoConfig
        | Reason::BadConfig
        | Reason::BadCertificates
        | Reason::NoDashboard => Code::FailedPrecondition,
        Reason::RequestTooSlow => Code::DeadlineExceeded,
        Reason::RevisionCompacted => Code::OutOfRange,
        Reason::ShuttingDown | Reason::Storage => Code::Unavailable,
        Reason::NotPermitted | Reason::InsideInstance => Code::PermissionDenied,
    }
}

/// As it stands in `ErrorInfo`.
pub(crate) fn name(reason: Reason) -> &'static str {
    let whole = reason.as_str_name();
    whole.strip_prefix("REASON_").unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = include_str!("../../../proto/openclaw/supervisor/v1/reason.proto");

    #[test]
    fn every_reason_has_the_code_that_the_contract_names() {
        let mut seen = 0;
        let mut bracket = "";
        for line in CONTRACT.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("//") {
                bracket = comment.rsplit_once('[').map_or("", |(_, code)| code.trim_end_matches(']'));
            } else if let Some((reason, _)) = line.split_once(" = ")
                && let Some(reason) = Reason::from_str_name(reason)
                && reason != Reason::Unspecified
            {
                let named = format!("{:?}", code(reason));
                assert_eq!(named.to_uppercase(), bracket.replace('_', ""), "{reason:?}");
                seen += 1;
            }
        }
        assert_eq!(seen, 46);
    }

    #[test]
    fn a_refusal_says_what_to_do_next_and_has_its_details() {
        let status = Status::from(Refusal::from(Denied::RescueCycle("a rescues b rescues a".into())));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "the rescues form a circle: a rescues b rescues a; let one of them rescue nobody."
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("RESCUE_CYCLE", "openclaw.supervisor"));
        assert_eq!(info.metadata["circle"], "a rescues b rescues a");
    }

    #[test]
    fn a_wrong_field_is_named_in_bad_request_and_a_wrong_state_in_precondition_failure() {
        let status = Status::from(Refusal::field("spec.port", "it is odd", "make it even"));
        assert_eq!(status.message(), "`spec.port`: it is odd; make it even.");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "spec.port");
        let name = supervisor_core::ids::Name::new("main").unwrap();
        let status = Status::from(Refusal::from(Denied::InstanceDown(name)));
        let violation = &status.get_details_precondition_failure().unwrap().violations[0];
        assert_eq!(
            (violation.r#type.as_str(), violation.subject.as_str()),
            ("INSTANCE_DOWN", "instance/main")
        );
    }

    #[test]
    fn who_may_try_again_is_told_when() {
        let status = Status::from(Refusal::Overloaded);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(OVERLOADED));
    }
}
