//! What holds for every sequence of events, not only for those that somebody thought of.
//!
//! The rules of core itself are checked by the world after every event.

use std::time::Duration;

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest},
    sample::select,
    test_runner::{Config, TestCaseError},
};
use supervisor_core::{
    event::{ApplyMode, Change, Command, Files, LaunchFailure, Manner},
    failover::{Cause, Standing},
    instance::{Boot, Phase},
    policy::{Failback, OnPrimaryDeath, Policy, Standby},
    record::Wish,
    time::Moment,
};

use crate::support::world::{World, name, plain, seconds, warm, with};

const NAMES: [&str; 3] = ["main", "rescue", "second"];

/// One thing that happens in a failover. What cannot happen at the time does not.
#[derive(Debug, Clone, Copy)]
enum Step {
    Up(&'static str),
    Dies(&'static str),
    LaunchFails(&'static str),
    WorkerLost(&'static str),
    Swept(&'static str),
    Start(&'static str),
    Stop(&'static str),
    Restart(&'static str),
    FailOver(&'static str, Option<&'static str>),
    FailBack(&'static str),
    Pass(u64),
    NextSupervisor(Boot),
}

fn who() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => who().prop_map(Step::Up),
        4 => who().prop_map(Step::Dies),
        1 => who().prop_map(Step::LaunchFails),
        1 => who().prop_map(Step::WorkerLost),
        2 => who().prop_map(Step::Swept),
        1 => who().prop_map(Step::Start),
        1 => who().prop_map(Step::Stop),
        1 => who().prop_map(Step::Restart),
        1 => (who(), proptest::option::of(who())).prop_map(|(who, by)| Step::FailOver(who, by)),
        1 => who().prop_map(Step::FailBack),
        4 => (0u64..70).prop_map(Step::Pass),
        1 => select(&[Boot::Same, Boot::Same, Boot::New][..]).prop_map(Step::NextSupervisor),
    ]
}

fn rescue_policy(primaries: &'static [&'static str]) -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(move |(cold, alone, manual)| {
        with(warm(primaries), |p| {
            p.rescue.failback_after = seconds(10);
            if cold {
                p.rescue.standby = Standby::Cold;
            }
            if alone {
                p.rescue.on_primary_death = OnPrimaryDeath::EnsureRunning;
            }
            if manual {
                p.rescue.failback = Failback::Manual;
            }
        })
    })
}

impl World {
    fn alive(&self, who: &str) -> bool {
        self.one(who).process().is_some()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Up(who) if self.launch(who).is_some() => self.up(who),
            Step::LaunchFails(who) if self.launch(who).is_some() => {
                self.launch_fails(who, LaunchFailure::Spawn("no such file".into()));
            }
            Step::Dies(who) if self.knows(who) && self.alive(who) && !self.one(who).is_being_swept() => {
                self.exits(who, 1);
            }
            Step::WorkerLost(who) if self.alive(who) => self.worker_lost(who),
            Step::Swept(who) if self.one(who).is_being_swept() => self.swept(who),
            Step::Up(_) | Step::LaunchFails(_) | Step::Dies(_) | Step::WorkerLost(_) | Step::Swept(_) => {}
            Step::Start(who) => drop(self.start(who)),
            Step::Stop(who) => drop(self.stop(who)),
            Step::Restart(who) => drop(self.restart(who)),
            Step::FailOver(who, by) => drop(self.fail_over(who, by)),
            Step::FailBack(who) => drop(self.fail_back(who)),
            Step::Pass(span) => self.after(seconds(span)),
            Step::NextSupervisor(boot) => {
                self.crash(boot);
                NAMES.iter().for_each(|who| self.adopt_as_it_is(who));
            }
        }
    }

    /// Everything that is asked for works, for long enough for every backoff and failback.
    fn goes_well(&mut self) {
        for _ in 0..100 {
            for who in NAMES {
                while self.one(who).is_being_swept() || self.launch(who).is_some() || self.is_stopping(who) {
                    self.take(Step::Swept(who));
                    self.take(Step::Up(who));
                    if self.is_stopping(who) {
                        self.take(Step::Dies(who));
                    }
                }
            }
            self.after(seconds(10));
        }
    }

    fn is_stopping(&self, who: &str) -> bool {
        matches!(self.one(who).phase(), Phase::Stopping { .. }) && self.alive(who)
    }
}

/// Who has come to stand in since the last look was ready to.
fn check_promotions(world: &World, before: &mut [String; 3]) -> Result<(), TestCaseError> {
    for (primary, before) in NAMES.iter().zip(before) {
        let now = world.standing(primary);
        if let Some(rescue) = now.strip_prefix("away ")
            && *before != now
        {
            prop_assert!(world.phase(rescue) == "ready", "{rescue} is {}", world.phase(rescue));
        }
        *before = now;
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 256, ..Config::default() })]

    #[test]
    fn whatever_happens_who_stands_in_was_ready_and_in_the_end_each_has_its_place(
        first in rescue_policy(&["main"]),
        second in rescue_policy(&["main", "rescue"]),
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::of(&[("main", plain()), ("rescue", first), ("second", second)]);
        let mut before = NAMES.map(|who| world.standing(who));
        for step in steps {
            world.take(step);
            check_promotions(&world, &mut before)?;
        }
        world.goes_well();
        for who in NAMES {
            let one = world.one(who);
            prop_assert!(one.settled(), "{} is {}", who, world.phase(who));
            let due = matches!(one.phase(), Phase::Ready);
            match &one.record().standing {
                Standing::Own => {}
                Standing::Promoting(by) => prop_assert!(false, "{} is still on its way to {}", by.rescue, who),
                Standing::Away(by) => {
                    let rescue = world.one(&by.rescue);
                    let manual = rescue.policy().rescue.failback == Failback::Manual;
                    prop_assert!(!due || manual || by.incident.cause == Cause::ByHand, "{who} lost its place");
                    prop_assert!(*rescue.phase() == Phase::Ready);
                }
            }
        }
    }

    #[test]
    fn what_is_stopped_stays_stopped_whatever_happens_to_the_others(
        first in rescue_policy(&["main"]),
        second in rescue_policy(&["main", "rescue"]),
        stopped in who(),
        steps in vec(step(), 1..60),
    ) {
        let mut world = World::of(&[("main", plain()), ("rescue", first), ("second", second)]);
        NAMES.iter().for_each(|who| world.take(Step::Up(who)));
        world.stop(stopped).expect("it can be stopped");
        world.take(Step::Dies(stopped));
        for step in steps {
            if !matches!(step, Step::Start(who) if who == stopped) {
                world.orders(stopped);
                world.take(step);
                let orders = world.orders(stopped);
                prop_assert!(!orders.iter().any(|order| order.starts_with("launch")), "{orders:?}");
                prop_assert!(world.one(stopped).record().wish == Wish::Down);
            }
        }
    }

    #[test]
    fn no_window_holds_more_restarts_than_the_budget(
        (budget, window, delay) in (0u32..5, 1u64..100, 0u64..20),
        lives in vec(0u64..40, 1..60),
    ) {
        let mut world = World::ready(with(plain(), |p| {
            p.restart.budget = budget;
            p.restart.window = seconds(window);
            p.restart.initial_delay = seconds(delay);
            p.restart.reset_after = Duration::from_secs(30);
        }));
        let mut restarts: Vec<Moment> = Vec::new();
        for life in lives {
            world.after(seconds(life));
            if world.alive("main") {
                world.exits("main", 1);
            }
            // Longer than any backoff and any window here, so that no launch is noticed late.
            for _ in 0..200 {
                if world.launch("main").is_some() {
                    restarts.push(world.now);
                    world.up("main");
                    break;
                }
                world.after(seconds(1));
            }
            let end = restarts.iter().rev().take_while(|at| world.now.since(**at) < seconds(window)).count();
            prop_assert!(end <= usize::try_from(budget).expect("small"), "{end} within {window} s");
        }
    }
}

/// One thing that somebody does to the registry.
#[derive(Debug, Clone)]
enum Doing {
    Put(u8, Option<u16>),
    Remove(u8),
    Up(u8),
    Down(u8),
    Ends(u8),
    Apply(Vec<(u8, Option<Option<u16>>)>),
    Again,
}

fn base() -> impl Strategy<Value = Option<u16>> {
    proptest::option::of(select(&[18_789u16, 18_799, 18_809, 20_000, 20_010, 20_020, 32_760][..]))
}

fn change() -> impl Strategy<Value = Doing> {
    let id = || 0u8..5;
    prop_oneof![
        4 => (id(), base()).prop_map(|(who, base)| Doing::Put(who, base)),
        2 => id().prop_map(Doing::Remove),
        2 => id().prop_map(Doing::Up),
        2 => id().prop_map(Doing::Down),
        4 => id().prop_map(Doing::Ends),
        2 => vec((id(), proptest::option::of(base())), 1..5).prop_map(Doing::Apply),
        1 => Just(Doing::Again),
    ]
}

proptest! {
    #[test]
    fn blocks_stay_apart_whatever_is_created_moved_and_deleted(changes in vec(change(), 1..80)) {
        let mut world = World::limited(4);
        let called = |who: u8| format!("i{who}");
        for change in changes {
            match change {
                Doing::Put(who, base) => {
                    let policy = with(plain(), |p| p.port = base);
                    let known = world.knows(&called(who));
                    drop(if known { world.update(&called(who), policy) } else { world.create(&called(who), policy) });
                }
                Doing::Remove(who) => drop(world.delete(&called(who))),
                Doing::Up(who) => drop(world.start(&called(who))),
                Doing::Down(who) => drop(world.stop(&called(who))),
                Doing::Ends(who) => {
                    let who = called(who);
                    if world.launch(&who).is_some() {
                        world.up(&who);
                    } else if world.knows(&who) && world.alive(&who) {
                        world.exits(&who, 1);
                    }
                }
                Doing::Apply(changes) => {
                    let changes = changes.into_iter().map(|(who, put)| match put {
                        Some(base) => Change::Put(world.definition(&called(who), with(plain(), |p| p.port = base))),
                        None => Change::Remove(name(&called(who))),
                    });
                    let changes: Vec<_> = changes.collect();
                    drop(world.ask(Command::Apply { changes, pool: None, mode: ApplyMode::Do }));
                }
                Doing::Again => {
                    world.crash(Boot::Same);
                    for who in (0..5).map(called) {
                        if world.knows(&who) {
                            world.adopt_as_it_is(&who);
                        }
                    }
                }
            }
            let mut blocks: Vec<_> = world.durable.records.values().map(|record| record.block).collect();
            blocks.sort_unstable();
            prop_assert!(blocks.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
            // What is being deleted makes room before it is gone, so that a fleet can be renamed.
            let kept = world.durable.records.values().filter(|record| record.deleting.is_none());
            prop_assert!(kept.count() <= 4);
        }
    }

    #[test]
    fn every_command_on_a_stuck_disk_is_answered_once_it_is_not(
        commands in vec((0u8..2, 0u8..6), 1..60),
    ) {
        let mut world = World::pair(warm(&["main"]));
        world.disk(crate::support::world::Disk::Stuck);
        let mut asked = Vec::new();
        for (who, what) in commands {
            let name = name(NAMES[usize::from(who)]);
            asked.push(world.submit(match what {
                0 => Command::Start { name, otherwise: None },
                1 => Command::Stop { name, manner: Manner::Graceful },
                2 => Command::Restart { name, manner: Manner::Force },
                3 => Command::Delete { name, generation: None, files: Files::Keep },
                4 => Command::FailOver { primary: name, rescue: None },
                _ => Command::FailBack { primary: name },
            }));
            world.take(Step::Dies(NAMES[usize::from(who)]));
        }
        world.disk(crate::support::world::Disk::Prompt);
        prop_assert!(asked.iter().all(|id| world.answer(*id).is_some()));
    }
}
