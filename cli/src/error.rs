//! What can go wrong, how it is said, and with which code the process ends.
//!
//! Every failure is told in the same form: `error: failed to <operation>: <cause>`, then, where one helps,
//! `hint: <what to type>`. The exit codes are a contract with scripts: [`Kind`] is their only source, and
//! [`refusal`] the only place that maps the supervisor's refusals to them.

use std::{error::Error as _, fmt, io, path::PathBuf, process::ExitStatus, time::Duration};

use anstyle::Style;

pub(crate) use self::refusal::Refusal;
use crate::{
    connect::RemoteError,
    contexts::ContextError,
    explain,
    render::{style, time::humane},
};

mod refusal;

/// When everything fails at once, the first ones tell enough.
const MAX_TOLD: usize = 10;
const START_ONE: &str = "`openclawctl supervisor start` starts one, which adopts what runs; `openclawctl up main` makes a \
                         first gateway, too";
const ASK_OWNER: &str = "run it as the user the supervisor runs as, or as root";
const STATUS_INSTEAD: &str =
    "openclawctl status, or with -o json for programs; openclawctl events -f goes on";
const REPORT: &str = "this is a bug: please report it with the output of `openclawctl version`";

/// What kind of end a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The supervisor or this program is wrong.
    Bug,
    /// The command line cannot be carried out as it stands.
    Usage,
    /// The supervisor refused, or the instance came to another end than the one asked for.
    Refused,
    /// There is no such instance, file or program.
    NotFound,
    /// The outcome did not come in time.
    TimedOut,
    /// No supervisor answers.
    Unreachable,
    /// The caller may not do this.
    NotPermitted,
    /// Ctrl-C while waiting.
    Interrupted,
    /// The reader of our output has gone; nobody is left to be told.
    ReaderGone,
}

impl Kind {
    /// The exit code, as the manual lists it.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::TimedOut => 5,
            Self::Unreachable => 6,
            Self::NotPermitted => 7,
            Self::Interrupted => 130,
        }
    }
}

/// What was being done, and to which instance: the middle of every error.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    words: String,
    subject: Option<String>,
}

impl Operation {
    /// An operation on the supervisor or the whole fleet, e.g. `list the instances`.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), subject: None }
    }

    /// An operation on one instance: `Operation::on("start", "main")` reads "start `main`".
    pub(crate) fn on(verb: &str, name: &str) -> Self {
        Self { words: format!("{verb} `{name}`"), subject: Some(name.to_owned()) }
    }

    /// The instance, if it is about one.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("no supervisor is listening on {}", .socket.display())]
    NoListener { socket: PathBuf },
    #[error("cannot connect to {}", .socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "Linux reaches long paths by descriptor"))]
    #[error("the socket's path {} is longer than the {limit} bytes that a Unix socket takes", .socket.display())]
    SocketPath { socket: PathBuf, limit: usize },
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    #[error("the connection to the supervisor broke: {0}")]
    Broken(String),
    #[error("the supervisor has not answered for {}", humane(*.0))]
    NoAnswer(Duration),
    #[error("{reason}")]
    Outcome { reason: String, hint: String },
    #[error("no outcome within {}: {state}", humane(*.after))]
    NotSettled { state: String, after: Duration, hint: String },
    #[error("it was removed meanwhile")]
    Removed,
    #[error("interrupted; the wish stands and is being carried out")]
    Interrupted,
    #[error("neither --data-dir nor $XDG_DATA_HOME nor $HOME says where the supervisor's data is")]
    NoDataDir,
    #[error("this would {what}, and nobody can be asked: standard input is no terminal")]
    Unconfirmed { what: String },
    #[error("{0}")]
    NoScreen(&'static str),
    #[error("nothing was changed")]
    Declined,
    #[error("something is wrong")]
    Unwell,
    #[error("there is no {what}")]
    Nothing { what: &'static str, hint: String },
    #[error("no instance has a rescue")]
    NoRescue,
    #[error("several primaries have a rescue: {}", .0.join(", "))]
    SeveralPrimaries(Vec<String>),
    #[error("not tried, as an earlier one failed")]
    NotTried,
    #[error("cannot read {name}")]
    ReadFile { name: String, source: io::Error },
    #[error("it is longer than {limit} bytes")]
    FileTooLong { limit: u64 },
    #[error("it is not UTF-8 text")]
    FileEncoding,
    #[error("line {line} of the credentials is not NAME=VALUE")]
    NoCredential { line: usize },
    #[error("cannot create {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{} belongs to user {owner}", .path.display())]
    ForeignDirectory { path: PathBuf, owner: u32 },
    #[error("cannot start the runtime")]
    Runtime { source: io::Error },
    #[error("`openclaw-supervisor` is neither beside this program nor on PATH")]
    DaemonMissing,
    #[error("no supervisor is listening, and one started inside `{0}` would end with it")]
    InsideInstance(String),
    #[error("cannot run {}", .path.display())]
    Spawn { path: PathBuf, source: io::Error },
    #[error("the supervisor ended at once ({status}); its log {} says", .log.display())]
    DaemonDied { status: ExitStatus, log: PathBuf },
    #[error("the supervisor (pid {pid}) is not listening after {}", humane(*.after))]
    DaemonSilent { pid: u32, after: Duration, log: PathBuf },
    #[error("it has not ended after {}", humane(*.after))]
    NotEnded { after: Duration },
    #[error("cannot enter {}", .path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot become user {uid}")]
    Become { uid: u32, source: io::Error },
    #[error("what runs as it has to be user {uid}, and user {me} cannot become that")]
    NotItsUser { uid: u32, me: u32 },
    #[error(
        "this supervisor is user {owner}'s, who is not root, and names user {uid}: it may name nobody else than itself"
    )]
    NotItsToName { uid: u32, owner: u32 },
    #[error("this supervisor is {}, and this user's shell is not to take exports from it", whose(*.owner))]
    ForeignExports { owner: Option<u32> },
    #[error("`gateway-worker`, which builds its walls, is neither beside this program nor on PATH")]
    WorkerMissing,
    #[error("cannot hand its walls over")]
    HandOver { source: io::Error },
    #[error("cannot run `{program}`")]
    Exec { program: String, source: io::Error },
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("the answer has no {0}")]
    Incomplete(&'static str),
    #[error("cannot show the answer as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot show the answer as YAML")]
    Yaml(#[from] serde_yaml::Error),
    #[error("cannot read the contract's descriptors")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("cannot decode the answer by the contract's descriptors")]
    Decode(#[from] prost::DecodeError),
    #[error("the contract has no message {0}")]
    UnknownMessage(&'static str),
}

/// Who has a supervisor; `None`: it is known by its certificate alone.
fn whose(owner: Option<u32>) -> String {
    owner.map_or_else(|| "on another host, or may be".to_owned(), |owner| format!("user {owner}'s"))
}

impl Cause {
    /// Names the operation that this ended.
    pub(crate) fn during(self, operation: &Operation) -> Error {
        Error { operation: operation.clone(), cause: Box::new(self), detail: Vec::new() }
    }

    /// Whether the same call may succeed in a moment, and does no harm if it was carried out already.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Broken(_)) || matches!(self, Self::Refused(refusal) if refusal.is_passing())
    }

    fn kind(&self) -> Kind {
        match self {
            Self::NoListener { .. } | Self::Broken(_) | Self::DaemonDied { .. } => Kind::Unreachable,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::NotPermitted
            }
            Self::Connect { .. } => Kind::Unreachable,
            Self::Refused(refusal) => refusal.kind(),
            Self::Remote(error) => error.kind(),
            Self::Context(error) => error.kind(),
            Self::NoAnswer(_)
            | Self::NotSettled { .. }
            | Self::DaemonSilent { .. }
            | Self::NotEnded { .. } => Kind::TimedOut,
            Self::Outcome { .. }
            | Self::Removed
            | Self::Declined
            | Self::Unwell
            | Self::NoRescue
            | Self::NotTried => Kind::Refused,
            Self::Interrupted => Kind::Interrupted,
            Self::SocketPath { .. }
            | Self::NoDataDir
            | Self::Unconfirmed { .. }
            | Self::NoScreen(_)
            | Self::SeveralPrimaries(_)
            | Self::FileTooLong { .. }
            | Self::FileEncoding
            | Self::NoCredential { .. } => Kind::Usage,
            Self::DaemonMissing | Self::WorkerMissing | Self::Nothing { .. } => Kind::NotFound,
            Self::NotItsUser { .. }
            | Self::NotItsToName { .. }
            | Self::ForeignDirectory { .. }
            | Self::ForeignExports { .. } => Kind::NotPermitted,
            Self::InsideInstance(_) => Kind::Unreachable,
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => Kind::ReaderGone,
            Self::ReadFile { source, .. }
            | Self::Create { source, .. }
            | Self::Spawn { source, .. }
            | Self::Runtime { source }
            | Self::Enter { source, .. }
            | Self::HandOver { source }
            | Self::Become { source, .. }
            | Self::Exec { source, .. }
            | Self::Output(source) => kind_of_io(source),
            Self::Incomplete(_)
            | Self::Key(_)
            | Self::Json(_)
            | Self::Yaml(_)
            | Self::Descriptors(_)
            | Self::Decode(_)
            | Self::UnknownMessage(_) => Kind::Bug,
        }
    }

    /// What it says itself about what to type next.
    fn own_hint(&self) -> Option<String> {
        let (Self::Outcome { hint, .. } | Self::NotSettled { hint, .. } | Self::Nothing { hint, .. }) = self
        else {
            return None;
        };
        Some(hint.clone()).filter(|hint| !hint.is_empty())
    }

    /// What to type next where it does not say so itself. `subject` is the instance in question.
    fn usual_hint(&self, subject: Option<&str>) -> Option<String> {
        let status = || format!("openclawctl status {}", subject.unwrap_or_default()).trim_end().to_owned();
        match self {
            Self::NoListener { .. } => Some(START_ONE.to_owned()),
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(ASK_OWNER.to_owned())
            }
            Self::Refused(refusal) => refusal.hint(subject),
            Self::Remote(error) => error.hint(),
            Self::Context(error) => error.hint(),
            Self::NotSettled { .. } | Self::Outcome { .. } | Self::Interrupted => Some(status()),
            Self::SocketPath { .. } | Self::NoDataDir => Some("name one with --data-dir DIR".to_owned()),
            Self::Unconfirmed { .. } => Some("add --yes".to_owned()),
            Self::NoScreen(_) => Some(STATUS_INSTEAD.to_owned()),
            Self::NoRescue => Some(
                "give an instance `rescues: [main]` in the fleet file, then openclawctl apply -f FILE"
                    .to_owned(),
            ),
            Self::SeveralPrimaries(_) => Some("name one with --from NAME".to_owned()),
            Self::DaemonMissing => Some(
                "install `openclaw-supervisor` beside `openclawctl`, or add its directory to PATH".to_owned(),
            ),
            Self::WorkerMissing => {
                Some("install `gateway-worker` beside `openclawctl`, or add its directory to PATH".to_owned())
            }
            Self::ForeignDirectory { owner, .. } => Some(format!("run it as user {owner}, or name another")),
            Self::ForeignExports { owner: Some(owner) } => Some(format!("run it as user {owner}")),
            Self::ForeignExports { owner: None } => Some("type it there; -o json shows it here".to_owned()),
            Self::NotItsUser { uid, .. } => Some(format!("run it as user {uid} or as root")),
            Self::NotItsToName { owner, .. } => Some(format!(
                "see with `openclawctl supervisor status` whether user {owner}'s is the one you mean; in a container, run \
                 this in there"
            )),
            Self::InsideInstance(_) => {
                Some("run `openclawctl supervisor start` outside of the instance".to_owned())
            }
            Self::DaemonDied { log, .. } | Self::DaemonSilent { log, .. } => {
                Some(format!("the whole log: {}", log.display()))
            }
            Self::Broken(_) | Self::NoAnswer(_) | Self::NotEnded { .. } => {
                Some("openclawctl supervisor status".to_owned())
            }
            Self::Incomplete(_)
            | Self::Key(_)
            | Self::Json(_)
            | Self::Yaml(_)
            | Self::Descriptors(_)
            | Self::Decode(_)
            | Self::UnknownMessage(_) => Some(REPORT.to_owned()),
            Self::Connect { .. }
            | Self::Removed
            | Self::Declined
            | Self::Unwell
            | Self::NotTried
            | Self::Nothing { .. }
            | Self::ReadFile { .. }
            | Self::FileTooLong { .. }
            | Self::FileEncoding
            | Self::NoCredential { .. }
            | Self::Create { .. }
            | Self::Spawn { .. }
            | Self::Runtime { .. }
            | Self::Enter { .. }
            | Self::HandOver { .. }
            | Self::Become { .. }
            | Self::Exec { .. }
            | Self::Output(_) => None,
        }
    }
}

/// What kind of end an error of the operating system is.
fn kind_of_io(source: &io::Error) -> Kind {
    if source.kind() == io::ErrorKind::NotFound {
        Kind::NotFound
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        Kind::NotPermitted
    } else {
        Kind::Refused
    }
}

/// An operation that failed, and why.
#[derive(Debug)]
pub(crate) struct Error {
    operation: Operation,
    cause: Box<Cause>,
    detail: Vec<String>,
}

impl Error {
    /// Adds lines between the cause and the hint, e.g. the source line at fault.
    pub(crate) fn with_detail(mut self, lines: Vec<String>) -> Self {
        self.detail = lines;
        self
    }

    /// The refusal that caused this, if one did.
    pub(crate) fn refusal_mut(&mut self) -> Option<&mut Refusal> {
        if let Cause::Refused(refusal) = &mut *self.cause { Some(refusal) } else { None }
    }

    /// Why it failed.
    pub(crate) fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What kind of end this is.
    pub(crate) fn kind(&self) -> Kind {
        self.cause.kind()
    }

    /// What to type next, if anything helps.
    pub(crate) fn hint(&self) -> Option<String> {
        self.cause.own_hint().or_else(|| self.cause.usual_hint(self.operation.subject()))
    }

    /// Tells it on standard error.
    pub(crate) fn tell(&self) {
        // Standard output has told what is wrong.
        if self.kind() == Kind::ReaderGone || matches!(&*self.cause, Cause::Unwell) {
            return;
        }
        if matches!(&*self.cause, Cause::Declined) {
            return style::talk(&self.cause.to_string());
        }
        let (label, plain) = (style::ERROR.render(), Style::new().render_reset());
        let width = style::stderr_width();
        let mut text = style::wrapped(
            &format!("{label}error:{plain} {}", style::printable(&self.to_string())),
            width,
            style::INDENT,
        );
        for line in self.detail_lines() {
            text.push('\n');
            text.push_str(&style::printable_styled(&line));
        }
        if let Some(hint) = self.hint() {
            let line = format!("{}hint:{plain} {}", style::HINT.render(), style::printable(&hint));
            // A command on one line, however long, so that it can be copied.
            let width = width.filter(|_| !hint.starts_with("openclawctl "));
            text.push_str(&format!("\n{}", style::wrapped(&line, width, style::INDENT)));
        }
        if let Some(word) = self.worth_reading() {
            text.push_str(&format!("\n{}more:{plain} openclawctl explain {word}", style::FAINT.render()));
        }
        style::tell(&text);
    }

    /// Of what more can be read than is told here.
    fn worth_reading(&self) -> Option<&'static str> {
        let Cause::Refused(refusal) = &*self.cause else { return None };
        explain::worth_reading(refusal.reason?)
    }

    fn detail_lines(&self) -> Vec<String> {
        if let Cause::Refused(refusal) = &*self.cause
            && self.detail.is_empty()
        {
            return refusal.untold().map(|line| style::printable(&line)).collect();
        }
        self.detail.clone()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.operation, self.cause)?;
        let mut source = self.cause.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Everything that went wrong in one command, in order. The first decides the exit code.
#[derive(Debug)]
pub(crate) struct Failure(Vec<Error>);

impl Failure {
    /// Success if `errors` is empty.
    pub(crate) fn from_all(errors: Vec<Error>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// Tells all of it and gives the exit code.
    pub(crate) fn tell(&self) -> u8 {
        for error in self.0.iter().take(MAX_TOLD) {
            error.tell();
        }
        let more = self.0.len().saturating_sub(MAX_TOLD);
        if more > 0 {
            style::talk(&format!("and {more} more of the kind"));
        }
        self.0.first().map_or(Kind::Bug, Error::kind).exit_code()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}
