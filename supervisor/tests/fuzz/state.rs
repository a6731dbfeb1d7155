//! The stored state: records as the store holds them, up to the supervisor that goes on from them.

use std::{collections::BTreeMap, path::PathBuf};

use openclaw_supervisor::{
    openclaw::{environment::Control, prepare::Host},
    registry,
};
use supervisor_core::{
    Origin, Supervisor,
    action::Action,
    event::{Adoption, Event, Found, Handoff},
    ids::{Incarnation, Revision},
    instance::Boot,
    invariant,
    ports::Pool,
    record::Record,
    time::Moment,
};

use crate::{Bound, corpus, fuzz};

/// A day after the records of the corpus were stored.
const NOW: Moment = Moment(1_795_353_166_000_000_000);

/// Deadlines that are waited for: some restarts, and the minute after which a failback may come.
const DEADLINES: usize = 20;

const TOKENS: &[&str] = &[
    "null",
    "true",
    "\"Up\"",
    "\"Down\"",
    "0",
    "-1",
    "1e9",
    "18446744073709551615",
    "65535",
    "1024",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"Own\"",
    "\"Forget\"",
    "\"rescue\"",
    "\"main\"",
    "\\\"rescues\\\":[\\\"main\\\"]",
    "\\\"rescues\\\":[\\\"old\\\"]",
    "\\\"runtime\\\":\\\"openclaw\\\"",
    "\"wish\":",
    "\"launched\":",
    "\"seen\":",
    "\"reserved\":",
    "\"base\":",
    "\"at\":",
    "\"since\":",
    "\"recent\":[",
    "\n",
];

fn host() -> Host {
    Host {
        control: Control { data_dir: "/data".into(), socket: "/data/control.sock".into() },
        environment: BTreeMap::new(),
        beside_daemon: PathBuf::from("/nowhere"),
    }
}

/// Goes on from `records`: nobody is found, everything that is begun fails to answer.
fn live(records: Vec<Record>, host: &Host, boot: Boot) {
    let Ok(records) = registry::restore(records, host) else { return };
    let origin = Origin {
        records,
        pool: Pool::default(),
        max_instances: 100,
        revision: Revision(10_036),
        boot,
        seed: 7,
    };
    let mut actions = Vec::new();
    let mut core = Supervisor::restore(origin, NOW, &mut actions);
    let mut now = NOW;
    for _ in 0..DEADLINES {
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                let event = match action {
                    Action::Adopt(name) => {
                        Event::Adopted(name, Adoption { found: Found::Nothing, exits: Vec::new() })
                    }
                    Action::Persist(batch) => Event::Stored(batch.revision),
                    Action::AskHandoff { name, incarnation, .. } => {
                        Event::Handoff(name, incarnation, Handoff::Nothing)
                    }
                    Action::Restore { name, to, .. } => Event::Restored(name, to),
                    Action::Sweep { name, incarnation } => Event::Swept(name, incarnation),
                    Action::Launch(launch) => Event::WorkerLost(launch.name, launch.incarnation),
                    Action::Reply(..)
                    | Action::Stop { .. }
                    | Action::Kill { .. }
                    | Action::Probe { .. }
                    | Action::Acknowledge { .. }
                    | Action::Release { .. }
                    | Action::Inform { .. }
                    | Action::Examine { .. }
                    | Action::Forget { .. } => continue,
                };
                core.handle(now, event, &mut actions);
                invariant::check(&core).unwrap();
            }
        }
        let Some(next) = core.next_deadline() else { return };
        now = now.max(next.at);
        core.handle(now, Event::Tick, &mut actions);
    }
}

#[test]
fn stored_records_of_any_content_are_refused_or_gone_on_from() {
    let host = host();
    fuzz("record", TOKENS, Bound { fixed: 4 << 20, per_byte: 1_000 }, |bytes| {
        let mut records = BTreeMap::new();
        // One record to a line; the store has one of each name.
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Ok(record) = serde_json::from_slice::<Record>(line) {
                records.insert(record.name.clone(), record);
            }
        }
        for boot in [Boot::Same, Boot::New] {
            live(records.values().cloned().collect(), &host, boot);
        }
    });
}

#[test]
fn records_that_no_version_can_have_written_are_refused() {
    let text = String::from_utf8(corpus("record").concat()).unwrap();
    let line = text.lines().next().unwrap();
    let records = |line: &str| serde_json::from_str::<Record>(line).map(|record| record.name);
    assert!(records(line).is_ok());
    assert!(records(&line.replace("\"seen\":1", "\"seen\":3")).is_err());
    assert!(records(&line.replace("\"base\":30000", "\"base\":65517")).is_err());
    let twice = [line, &line.replace("\"name\":\"main\"", "\"name\":\"second\"")];
    let twice = twice.map(|line| serde_json::from_str::<Record>(line).unwrap()).into();
    let refused = registry::restore(twice, &host()).unwrap_err().to_string();
    assert_eq!(refused, "the stored ports 30000-30019 of `second` overlap those of `main`");
}

/// Records of a backup, after a gateway was found running whose number they had not reserved yet.
#[test]
fn numbers_that_ran_are_reserved_whatever_was_stored() {
    let text = String::from_utf8(corpus("record").concat()).unwrap();
    let line = text.lines().find(|line| line.contains("\"reserved\":100,\"launched\":250")).unwrap();
    let record: Record = serde_json::from_str(line).unwrap();
    assert_eq!((record.launched, record.reserved), (Incarnation(250), Incarnation(250)));
}
