use std::time::Duration;

use supervisor_core::{
    event::{Asker, Exit, ExitStatus},
    failover::Cause,
    ids::{ConfigId, Incarnation, Name},
    journal::{Kind, Recovery},
    time::Moment,
};

use super::*;

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// A history of `main`, one second after the other, from revision 10 on.
fn history(kinds: &[Kind]) -> Vec<Event> {
    let event = |(at, kind): (usize, &Kind)| {
        let revision = at as u64 + 10;
        Event {
            revision,
            unix_ns: revision * 1_000_000_000,
            instance: "main".into(),
            incarnation: 1,
            kind: kind.name().into(),
            severity: 2,
            message: kind.to_string(),
        }
    };
    kinds.iter().enumerate().map(event).collect()
}

/// What ended, and what is open.
fn told(wanted: Option<u64>, kinds: &[Kind]) -> (Vec<Incident>, Vec<Incident>) {
    let mut ledger = Ledger::looking_for(wanted);
    let ended = history(kinds).iter().filter_map(|event| ledger.take(event)).collect();
    (ended, ledger.open().collect())
}

fn began(rescue: &str) -> Kind {
    let cause = Cause::Hung("no answer; `rescue` is asked".into());
    Kind::FailoverBegan { rescue: named(rescue), cause }
}

fn quarantined() -> Kind {
    Kind::Recovery(Recovery::Quarantined { cause: Cause::WorkerLost })
}

fn gave_up() -> Kind {
    Kind::GaveUp(Exit {
        incarnation: Incarnation(3),
        status: ExitStatus::Code(78),
        at: Moment(0),
        stragglers: 2,
        ordered: false,
    })
}

fn ready() -> Kind {
    Kind::Ready { after: Duration::from_secs(1) }
}

#[test]
fn a_failover_is_an_incident_until_the_place_is_given_back() {
    let rescue = || named("rescue");
    let kinds = [
        ready(),
        began("rescue"),
        Kind::FailedOver { rescue: rescue() },
        ready(),
        Kind::FailedBack { rescue: rescue() },
        ready(),
    ];
    let (ended, open) = told(None, &kinds);
    assert!(open.is_empty());
    let [incident] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((incident.number, incident.instance.as_str()), (11, "main"));
    assert_eq!(incident.cause, "hung: no answer; `rescue` is asked");
    assert_eq!(incident.rescues, ["rescue"]);
    let end = End { revision: 14, unix_ns: 14_000_000_000, outcome: Outcome::FailedBack };
    assert_eq!((incident.end, incident.quarantined), (Some(end), false));
}

#[test]
fn a_primary_that_is_ready_first_ends_its_incident() {
    let (ended, open) = told(None, &[began("rescue"), Kind::FailoverCancelled { rescue: named("rescue") }]);
    assert!(open.is_empty());
    assert_eq!(ended[0].end.unwrap().outcome, Outcome::Cancelled);
}

#[test]
fn a_quarantine_is_an_incident_until_the_instance_is_ready_again_or_deleted() {
    let (ended, open) = told(
        None,
        &[quarantined(), Kind::WishedUp { by: Asker::Operator }, ready(), quarantined(), Kind::Deleted],
    );
    assert!(open.is_empty());
    let outcomes: Vec<Outcome> = ended.iter().map(|incident| incident.end.unwrap().outcome).collect();
    assert_eq!(outcomes, [Outcome::Ready, Outcome::Deleted]);
    assert!(ended.iter().all(|incident| incident.quarantined && incident.rescues.is_empty()));
    assert_eq!(ended[0].cause, "its worker died");
    assert_eq!((ended[0].after, ended[1].after), (0, 12), "what was before belongs to the one before");
}

#[test]
fn one_that_another_start_would_not_mend_is_an_incident_until_it_is_ready_again() {
    let (ended, open) =
        told(None, &[gave_up(), gave_up(), Kind::WishedUp { by: Asker::Operator }, ready(), gave_up()]);
    let [incident] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((incident.number, incident.end.unwrap().outcome), (10, Outcome::Ready));
    assert_eq!((incident.cause.as_str(), incident.quarantined), ("exited with status 78", false));
    assert_eq!(open.len(), 1);
}

#[test]
fn whatever_else_goes_wrong_meanwhile_belongs_to_the_same_incident() {
    let lost = |rescue| Kind::RescueLost { rescue: named(rescue) };
    let kinds = [began("rescue"), lost("rescue"), began("second"), quarantined()];
    let (ended, open) = told(Some(12), &kinds);
    assert!(ended.is_empty());
    let [incident] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((incident.number, incident.quarantined, incident.wanted), (10, true, true));
    assert_eq!(incident.rescues, ["rescue", "second"]);
    let (ended, _) = told(None, &[began("rescue"), lost("rescue"), ready()]);
    assert_eq!(ended[0].end.unwrap().outcome, Outcome::Ready, "nobody is in its place any more");
}

#[test]
fn instances_do_not_end_each_other_s_incidents() {
    let mut ledger = Ledger::default();
    let mut events = history(&[began("rescue"), ready()]);
    events[1].instance = "rescue".into();
    assert!(events.iter().all(|event| ledger.take(event).is_none()));
    assert_eq!(ledger.open().count(), 1);
}

#[test]
fn all_that_is_looked_for_is_what_core_says() {
    let (from, to) = (ConfigId::of_digest(&[0xab; 32]), ConfigId::of_digest(&[0xcd; 32]));
    let why = "could not be started: a: b".to_owned();
    let kind = Kind::Recovery(Recovery::ConfigTakenBack { from, to, why: why.clone() });
    assert_eq!(kind.name(), TAKEN_BACK);
    assert_eq!(taken_back(&kind.to_string()), Some((&*from.short(), &*to.short(), &*why)));
    assert_eq!(taken_back("something else"), None);
    let rescue = || named("rescue");
    let said = [
        began("rescue"),
        Kind::FailedOver { rescue: rescue() },
        Kind::FailoverCancelled { rescue: rescue() },
        Kind::FailedBack { rescue: rescue() },
        Kind::RescueLost { rescue: rescue() },
        quarantined(),
        gave_up(),
        ready(),
        Kind::Deleted,
    ];
    assert_eq!(said.map(|kind| kind.name()), KINDS);
}
