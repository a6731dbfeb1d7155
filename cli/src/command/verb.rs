//! What all verbs share: ask for every name, wait for all together, show what came of it.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use supervisor_proto::v1::Instance;

use crate::{
    connect::Supervisor,
    context::{Context, Show},
    error::{Cause, Error, Failure, Operation},
    render::{
        notes, status,
        style::{INDENT, clause, phase_told, stdout_width, wrapped},
    },
    view,
    wait::{self, End, Goal, Patience, Target, Tracker},
};

/// Wishes under way at once. Each costs the supervisor one durable write, which several share.
const AT_ONCE: usize = 64;

/// What an answer may take to travel, on the busiest of hosts.
pub(crate) const TRAVEL: Duration = Duration::from_secs(10);

/// Names shown in a question or an error.
const FEW: usize = 8;

/// What the supervisor answered to one wish.
pub(crate) type Answer = Result<Target, Error>;

/// Asks for every name at once; the answers come in the names' order.
pub(crate) async fn ask_all(names: &[String], ask: impl AsyncFn(&str) -> Answer) -> Vec<Answer> {
    let ask = &ask;
    stream::iter(names).map(|name| ask(name)).buffered(AT_ONCE).collect().await
}

/// Names as they go into a question: all of a few, of many the first and how many more.
pub(crate) fn few(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(FEW).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A target from the parts of an answer.
pub(crate) fn target(instance: Option<Instance>, revision: u64, operation: &Operation) -> Answer {
    let instance = instance.ok_or(Cause::Incomplete("instance")).map_err(|cause| cause.during(operation))?;
    Ok(Target { instance, revision, goal: Goal::Settled })
}

/// Waits for what was accepted and shows it; then fails with everything that went wrong.
pub(crate) async fn finish(
    context: &Context,
    supervisor: &Supervisor,
    verb: &str,
    answers: Vec<Answer>,
    patience: Patience,
) -> Result<(), Failure> {
    let outcome = settle(supervisor, verb, answers, patience).await;
    if !outcome.instances.is_empty() {
        show(context, &outcome.instances, outcome.revision, &Operation::new("show the instances"))?;
    }
    Failure::from_all(outcome.errors)
}

/// What came of several wishes.
pub(crate) struct Outcome {
    /// As they were last seen.
    pub(crate) instances: Vec<Instance>,
    /// The latest wish's revision.
    pub(crate) revision: u64,
    /// What was refused, failed or did not come.
    pub(crate) errors: Vec<Error>,
}

/// Waits for what was accepted.
pub(crate) async fn settle(
    supervisor: &Supervisor,
    verb: &str,
    answers: Vec<Answer>,
    patience: Patience,
) -> Outcome {
    let mut errors = Vec::new();
    let mut targets = Vec::new();
    for answer in answers {
        match answer {
            Ok(target) => targets.push(target),
            Err(error) => errors.push(error),
        }
    }
    let revision = targets.iter().map(|target| target.revision).max().unwrap_or_default();
    let answered = targets.iter().map(|target| target.instance.clone()).collect();
    let waited = match patience {
        Patience::Until(patience) if !targets.is_empty() => {
            Some(wait::wait(supervisor, targets, patience, &Operation::new("watch the instances")).await)
        }
        Patience::Until(_) | Patience::None => None,
    };
    let instances = match waited {
        None => answered,
        Some(Ok((tracker, end))) => {
            errors.extend(judge(&tracker, end, verb));
            tracker.each().filter_map(|each| each.seen.cloned()).collect()
        }
        Some(Err(error)) => {
            errors.push(error);
            answered
        }
    };
    Outcome { instances, revision, errors }
}

/// What went wrong for each instance.
pub(crate) fn judge(tracker: &Tracker, end: End, verb: &str) -> Vec<Error> {
    let mut errors = Vec::new();
    for each in tracker.each() {
        let operation = Operation::on(verb, each.name);
        let cause = match (each.seen, end) {
            (None, _) => Some(Cause::Removed),
            (Some(instance), _) if each.done => match each.goal {
                Goal::Settled => failed(instance),
                // A primary is failed over because it is not well.
                Goal::FailedOver | Goal::InPlace => None,
            },
            (Some(_), End::Done) => None,
            (Some(instance), End::TimedOut(after)) => {
                let state = format!("it {}", state(instance));
                Some(Cause::NotSettled { state, after, hint: view::status(instance).hint.clone() })
            }
            (Some(_), End::Interrupted) => Some(Cause::Interrupted),
        };
        errors.extend(cause.map(|cause| cause.during(&operation)));
    }
    errors
}

/// Why an instance that has settled is not what was wished.
fn failed(instance: &Instance) -> Option<Cause> {
    let status = view::status(instance);
    let hint = if status.hint.is_empty() {
        format!("openclawctl logs {}", instance.name)
    } else {
        status.hint.clone()
    };
    view::is_unwell(status.phase())
        .then(|| Cause::Outcome { reason: format!("it {}", state(instance)), hint })
}

/// An instance's phase and why it is in it.
fn state(instance: &Instance) -> String {
    let status = view::status(instance);
    let word = phase_told(status.phase());
    let reason = clause(&status.reason);
    if reason.is_empty() { word.to_owned() } else { format!("{word} ({reason})") }
}

/// Shows instances in the form that was asked for.
pub(crate) fn show(
    context: &Context,
    instances: &[Instance],
    revision: u64,
    operation: &Operation,
) -> Result<(), Error> {
    match context.show {
        Show::Encoded(encoding) => context.print_instances(operation, encoding, instances.to_vec(), revision),
        Show::Text(breadth) => {
            let mut text = String::new();
            status::table(instances, breadth, context.marks, &mut text);
            let width = stdout_width();
            for line in notes::failovers(instances).into_iter().chain(notes::runtimes(instances)) {
                text.push_str(&wrapped(&line, width, INDENT));
                text.push('\n');
            }
            context.print(operation, &text)
        }
    }
}
