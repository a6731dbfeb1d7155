//! A wish, from the call to its outcome.

use supervisor_proto::v1::{
    FailBackRequest, FailOverRequest, Instance, RestartInstanceRequest, StartInstanceRequest,
    StopInstanceRequest,
};
use tokio::sync::mpsc;

use super::state::{News, Verb};
use crate::{
    command::verb::{self, Answer},
    connect::{Supervisor, request_id},
    error::{Error, Operation},
    render::{
        notes,
        style::{clause, phase_told},
    },
    view,
    wait::{self, Effort, Goal, Target, usual_patience},
};

/// Does it, tells that it is recorded, and waits for what comes of it.
pub(super) async fn act(
    supervisor: &Supervisor,
    verb: Verb,
    name: &str,
    news: &mpsc::Sender<News>,
) -> Result<String, String> {
    let operation = Operation::on(verb.word(), name);
    let target = ask(supervisor, verb, name, &operation).await.map_err(|error| told(&error))?;
    let _ = news
        .send(News::Accepted(format!("{} {name}: asked; it {}", verb.word(), state(&target.instance))))
        .await;
    let patience = match verb {
        Verb::Start | Verb::FailOver => usual_patience(Effort::Start),
        Verb::Restart | Verb::Stop | Verb::FailBack => usual_patience(Effort::Stop),
    };
    let waited = wait::wait_in_silence(supervisor, vec![target], patience, &operation).await;
    let (tracker, end) = waited.map_err(|error| told(&error))?;
    if let Some(error) = verb::judge(&tracker, end, verb.word()).first() {
        return Err(told(error));
    }
    let seen = tracker.each().find_map(|each| each.seen);
    Ok(format!("{} {name}: {}", verb.word(), seen.map(outcome).unwrap_or_default()))
}

async fn ask(supervisor: &Supervisor, verb: Verb, name: &str, operation: &Operation) -> Answer {
    let (name, request_id) = (name.to_owned(), request_id());
    let client = || supervisor.instances();
    let (instance, revision, goal) = match verb {
        Verb::Start => {
            let request = StartInstanceRequest { name, request_id, ..Default::default() };
            let send = async || client().start_instance(request.clone()).await;
            let answer = supervisor.call(operation, send).await?;
            (answer.instance, answer.revision, Goal::Settled)
        }
        Verb::Stop => {
            let request = StopInstanceRequest { name, request_id, ..Default::default() };
            let send = async || client().stop_instance(request.clone()).await;
            let answer = supervisor.call(operation, send).await?;
            (answer.instance, answer.revision, Goal::Settled)
        }
        Verb::Restart => {
            let request = RestartInstanceRequest { name, request_id, ..Default::default() };
            let send = async || client().restart_instance(request.clone()).await;
            let answer = supervisor.call(operation, send).await?;
            (answer.instance, answer.revision, Goal::Settled)
        }
        Verb::FailOver => {
            let request = FailOverRequest { primary: name, request_id, ..Default::default() };
            let send = async || client().fail_over(request.clone()).await;
            let answer = supervisor.call(operation, send).await?;
            (answer.instance, answer.revision, Goal::FailedOver)
        }
        Verb::FailBack => {
            let request = FailBackRequest { primary: name, request_id, ..Default::default() };
            let send = async || client().fail_back(request.clone()).await;
            let answer = supervisor.call(operation, send).await?;
            (answer.instance, answer.revision, Goal::InPlace)
        }
    };
    verb::target(instance, revision, operation).map(|target| Target { goal, ..target })
}

/// An error on one line, as a command would tell it.
fn told(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

/// What came of it: who stands in for it, if somebody does, else how it is.
fn outcome(instance: &Instance) -> String {
    let failover = notes::failovers(std::slice::from_ref(instance)).pop();
    failover.unwrap_or_else(|| format!("it {}", state(instance)))
}

/// Its phase and why it is in it.
fn state(instance: &Instance) -> String {
    let status = view::status(instance);
    let (word, reason) = (phase_told(status.phase()), clause(&status.reason));
    if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") }
}
