//! What each event does in each phase: the whole table, compared with the one in the documentation.
//!
//! `UPDATE=1 cargo test -p supervisor-core phases` writes the table anew. Read the difference before you keep it.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use supervisor_core::{
    action::Action,
    event::{Adoption, Command, Event, ExitStatus, Found, LaunchFailure, Manner, Process, Report},
    ids::Incarnation,
    instance::Boot,
    policy::Policy,
    time::Why,
};

use crate::support::{
    tell,
    world::{Disk, World, good, name, not_ready, plain, silent, with},
};

type Scene = (&'static str, fn() -> World);
type Happening = (&'static str, fn(&mut World));

/// Each phase, and how an instance gets there. The names are those of [`tell::phase`].
const SCENES: [Scene; 13] = [
    ("stopped", || {
        let mut world = World::of(&[("main", policy())]);
        world.up("main");
        world.stop("main").expect("it can be stopped");
        world.exits("main", 0);
        world
    }),
    ("adopting", || {
        let mut world = World::ready(policy());
        world.crash(Boot::Same);
        world
    }),
    ("spawning (held)", || {
        let mut world = World::empty();
        world.create("main", policy()).expect("it is allowed");
        world.disk(Disk::Stuck);
        world.submit(Command::Start { name: name("main"), otherwise: None });
        world
    }),
    ("spawning", || World::of(&[("main", policy())])),
    ("starting", || {
        let mut world = World::of(&[("main", policy())]);
        world.launched("main");
        world
    }),
    ("ready", || World::ready(policy())),
    ("unhealthy", || {
        let mut world = World::ready(policy());
        while world.phase("main") == "ready" {
            let next = world.core.next_deadline().expect("it is watched").at;
            world.after(next.since(world.now));
            world.probed("main", not_ready());
        }
        world
    }),
    ("stopping", || {
        let mut world = World::ready(policy());
        world.stop("main").expect("it can be stopped");
        world
    }),
    ("stopping (kill)", || {
        let mut world = World::ready(policy());
        world
            .ask(Command::Restart { name: name("main"), manner: Manner::Force })
            .expect("it can be restarted");
        world
    }),
    ("stopping (sweep)", || {
        let mut world = World::ready(policy());
        world.worker_lost("main");
        world
    }),
    ("backoff", || {
        let mut world = World::ready(policy());
        world.exits("main", 1);
        world
    }),
    ("failed (fatal)", || {
        let mut world = World::ready(policy());
        world.exits("main", 78);
        world
    }),
    ("failed (launch, retried)", || {
        let mut world = World::of(&[("main", policy())]);
        world.launch_fails("main", LaunchFailure::Refused("no token".into()));
        world
    }),
];

/// Everything that can happen to one instance.
const HAPPENINGS: [Happening; 24] = [
    ("start", |world| submit(world, Command::Start { name: name("main"), otherwise: None })),
    ("stop", |world| submit(world, Command::Stop { name: name("main"), manner: Manner::Graceful })),
    ("stop by force", |world| submit(world, Command::Stop { name: name("main"), manner: Manner::Force })),
    ("restart", |world| submit(world, Command::Restart { name: name("main"), manner: Manner::Graceful })),
    ("recycle", |world| {
        let life = world.one("main").incarnation();
        submit(world, Command::Recycle { name: name("main"), life });
    }),
    ("update", |world| {
        let definition = world.definition("main", policy());
        world.submit(Command::Update { definition, generation: None });
    }),
    ("delete", |world| {
        let files = supervisor_core::event::Files::Keep;
        world.submit(Command::Delete { name: name("main"), generation: None, files });
    }),
    ("halt", |world| submit(world, Command::Halt)),
    ("stored", |world| world.disk(Disk::Prompt)),
    ("deadline", |world| {
        if let Some(due) = world.core.next_deadline() {
            world.after(due.at.since(world.now));
        }
    }),
    ("adopted: running", |world| {
        let found = Found::Running {
            incarnation: world.one("main").incarnation(),
            process: process(world),
            notified: true,
            stopping: false,
        };
        world.tell(Event::Adopted(name("main"), Adoption { found, exits: vec![] }));
    }),
    ("adopted: idle", |world| {
        world.dies_unseen_if_adopting();
        let found = Found::Idle { incarnation: world.one("main").incarnation() };
        world.tell(Event::Adopted(name("main"), Adoption { found, exits: vec![] }));
    }),
    ("adopted: nothing", |world| {
        world.dies_unseen_if_adopting();
        world.tell(Event::Adopted(name("main"), Adoption { found: Found::Nothing, exits: vec![] }));
    }),
    ("launched", |world| {
        let incarnation = world.one("main").incarnation();
        world.tell(Event::Launched(name("main"), incarnation, process(world)));
    }),
    ("launch failed", |world| {
        let incarnation = world.one("main").incarnation();
        let failure = LaunchFailure::Spawn("no such file".into());
        world.tell(Event::LaunchFailed(name("main"), incarnation, failure));
    }),
    ("port taken", |world| {
        let incarnation = world.one("main").incarnation();
        let failure = LaunchFailure::PortTaken { port: 18_789, holder: "pid 7 (nc)".into() };
        world.tell(Event::LaunchFailed(name("main"), incarnation, failure));
    }),
    ("notified", |world| world.tell(Event::Notified(name("main"), world.one("main").incarnation()))),
    ("probed well", |world| probe(world, good)),
    ("probed: not ready", |world| probe(world, not_ready)),
    ("probed: silent", |world| probe(world, silent)),
    ("exited", |world| world.exits("main", 1)),
    ("exited, stale", |world| {
        let mut exit = world.exit("main", ExitStatus::Code(1));
        exit.incarnation = Incarnation(exit.incarnation.0 + 1);
        world.tell(Event::Exited(name("main"), exit));
    }),
    ("worker lost", |world| world.worker_lost("main")),
    ("swept", |world| world.swept("main")),
];

fn submit(world: &mut World, command: Command) {
    world.submit(command);
}

/// Answers like this for as long as it takes to count, or once if nobody asks.
fn probe(world: &mut World, report: fn() -> Report) {
    let before = world.phase("main");
    for _ in 0..3 {
        let Some(due) = world.core.next_deadline().filter(|due| due.why == Why::Probe) else { break };
        world.after(due.at.since(world.now));
        world.probed("main", report());
        if world.phase("main") != before {
            return;
        }
    }
    world.probed("main", report());
}

fn policy() -> Policy {
    with(plain(), |p| {
        p.health.watch = Policy::default().health.watch;
        p.restart.fatal_codes = vec![78];
    })
}

fn process(world: &World) -> Process {
    Process { pid: 100, worker_pid: 99, started: world.now }
}

struct Outcome {
    phase: String,
    actions: Vec<String>,
}

fn play((expected, scene): Scene, (_, happen): Happening) -> Outcome {
    let mut world = scene();
    assert_eq!(world.phase("main"), expected);
    world.actions.clear();
    happen(&mut world);
    let phase = if world.knows("main") { world.phase("main") } else { "gone".into() };
    let actions = world.actions.iter().map(|action: &Action| tell::action(action)).collect();
    Outcome { phase, actions }
}

fn documentation() -> String {
    let mut text = String::from(
        "# Each event in each phase\n\n\
         What an event makes of each phase; `·` leaves it as it is. Written by the test `phases`, which also holds\n\
         the actions that go with each cell.\n\n| |",
    );
    for (phase, _) in SCENES {
        let _ = write!(text, " {phase} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(SCENES.len()));
    for happening in HAPPENINGS {
        let _ = write!(text, "\n| **{}** |", happening.0);
        for scene in SCENES {
            let outcome = play(scene, happening);
            let cell = if outcome.phase == scene.0 { "·" } else { &outcome.phase };
            let _ = write!(text, " {cell} |");
        }
    }
    text + "\n"
}

fn golden() -> String {
    let mut text = String::from("What each event does in each phase, and what it asks of the world.\n");
    for scene in SCENES {
        let _ = writeln!(text, "\n{}", scene.0);
        for happening in HAPPENINGS {
            let Outcome { phase, actions } = play(scene, happening);
            let stays = if phase == scene.0 { "·" } else { &phase };
            let _ = writeln!(text, "  {:17} -> {stays}", happening.0);
            for action in actions {
                let _ = writeln!(text, "      {action}");
            }
        }
    }
    text
}

fn compare(path: &str, now: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, now).expect("the table can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    for (line, (kept, now)) in kept.lines().zip(now.lines()).enumerate() {
        assert_eq!(kept, now, "{}:{}: run with UPDATE=1, and read what changes", path.display(), line + 1);
    }
    assert_eq!(kept.len(), now.len(), "{}: run with UPDATE=1, and read what changes", path.display());
}

#[test]
fn the_phases_in_the_documentation_are_those_of_the_code() {
    compare("src/phases.md", &documentation());
}

#[test]
fn each_event_in_each_phase_asks_for_what_it_is_known_to() {
    compare("tests/machine/phases.golden", &golden());
}
