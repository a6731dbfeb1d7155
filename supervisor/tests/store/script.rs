//! The commands that every supervisor under torture is given, and what must be true after each.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_proto::v1::{self, InstanceStatus, Role, Wish};

use crate::support::{Host, until};

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Creates main and its rescue: both or none.
    Create,
    /// Starts one.
    Start(&'static str),
    /// Changes both and creates a third: all or nothing.
    Apply,
    FailOver,
    FailBack,
    Down,
    Remove,
}

pub(crate) const STEPS: [Step; 9] = [
    Step::Create,
    Step::Start("main"),
    Step::Start("rescue"),
    Step::Apply,
    Step::Start("lab"),
    Step::FailOver,
    Step::FailBack,
    Step::Down,
    Step::Remove,
];

/// What is promised of one instance.
type Promise = (u64, Wish, Role);

/// What is promised of all.
pub(crate) type Promises = BTreeMap<String, Promise>;

/// What is promised once the first `done` steps are answered.
pub(crate) fn promised(done: usize) -> Promises {
    let mut fleet = Promises::new();
    for step in &STEPS[..done] {
        let mut set = |name: &str, promise| fleet.insert(name.to_owned(), promise);
        match step {
            Step::Create => {
                set("main", (1, Wish::Down, Role::Primary));
                set("rescue", (1, Wish::Down, Role::Standby));
            }
            Step::Start(name) => fleet.get_mut(*name).unwrap().1 = Wish::Up,
            Step::Apply => {
                set("main", (2, Wish::Up, Role::Primary));
                set("rescue", (2, Wish::Up, Role::Standby));
                set("lab", (1, Wish::Down, Role::Single));
            }
            Step::FailOver => {
                set("main", (2, Wish::Up, Role::Rescued));
                set("rescue", (2, Wish::Up, Role::Active));
            }
            Step::FailBack => {
                set("main", (2, Wish::Up, Role::Primary));
                set("rescue", (2, Wish::Up, Role::Standby));
            }
            Step::Down => {
                set("lab", (1, Wish::Down, Role::Single));
            }
            Step::Remove => {
                fleet.remove("lab");
            }
        }
    }
    fleet
}

impl Step {
    /// Whose processes the step begins or ends.
    pub(crate) fn touches(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Apply | Self::FailOver | Self::FailBack => &["main", "rescue"],
            Self::Start("main") => &["main"],
            Self::Start("rescue") => &["rescue"],
            Self::Start(_) | Self::Down | Self::Remove => &["lab"],
        }
    }

    /// Gives the command, and says whether it was answered.
    pub(crate) async fn give(self, host: &Host) -> Result<(), String> {
        let said = |status: tonic::Status| format!("{self:?}: {status}");
        let lost = |error: tonic::transport::Error| format!("{self:?}: {error}");
        let mut instances = host.try_instances().await.map_err(lost)?;
        match self {
            Self::Create => apply(host, 0).await,
            Self::Start(name) => {
                let request = v1::StartInstanceRequest { name: name.into(), ..Default::default() };
                instances.start_instance(request).await.map(drop).map_err(said)
            }
            Self::Apply => apply(host, 1).await,
            Self::FailOver => {
                let request = v1::FailOverRequest { primary: "main".into(), ..Default::default() };
                instances.fail_over(request).await.map(drop).map_err(said)
            }
            Self::FailBack => {
                let request = v1::FailBackRequest { primary: "main".into(), ..Default::default() };
                instances.fail_back(request).await.map(drop).map_err(said)
            }
            Self::Down => {
                let request =
                    v1::StopInstanceRequest { name: "lab".into(), wait: true, ..Default::default() };
                instances.stop_instance(request).await.map(drop).map_err(said)
            }
            Self::Remove => {
                let request = v1::DeleteInstanceRequest { name: "lab".into(), ..Default::default() };
                instances.delete_instance(request).await.map(drop).map_err(said)
            }
        }
    }
}

async fn apply(host: &Host, version: u32) -> Result<(), String> {
    let common =
        format!("runtime: builtin, restart: {{ initial_delay: 0s }}, env: {{ VERSION: '{version}' }}");
    let lab = if version == 0 { String::new() } else { format!("  lab: {{ {common} }}\n") };
    let content = format!(
        "version: 1\ninstances:\n  main: {{ {common} }}\n  rescue: {{ rescues: [main], rescue: {{ failback: manual }}, \
         {common} }}\n{lab}"
    );
    let request = v1::ApplyFleetRequest { content, ..Default::default() };
    let mut fleet = host.try_fleet().await.map_err(|error| error.to_string())?;
    fleet.apply_fleet(request).await.map(drop).map_err(|status| format!("apply: {status}"))
}

/// All instances, unless the supervisor is gone.
pub(crate) async fn statuses(host: &Host) -> Option<BTreeMap<String, InstanceStatus>> {
    let mut client = host.try_instances().await.ok()?;
    let answer = client.list_instances(v1::ListInstancesRequest::default()).await.ok()?;
    let named = |instance: v1::Instance| Some((instance.name, instance.status?));
    answer.into_inner().instances.into_iter().map(named).collect()
}

/// All instances, once nothing is under way; `None` if the supervisor dies before that.
pub(crate) async fn settled(host: &mut Host) -> Option<BTreeMap<String, InstanceStatus>> {
    until("everything is settled", async || {
        if host.supervisor_has_ended() {
            return Some(None);
        }
        let all = statuses(host).await?;
        all.values().all(|status| status.settled).then_some(Some(all))
    })
    .await
}

/// What is so of all.
pub(crate) fn actual(all: &BTreeMap<String, InstanceStatus>) -> Promises {
    let promise = |status: &InstanceStatus| {
        let role = status.failover.as_ref().map_or(Role::Unspecified, |failover| failover.role());
        (status.generation, status.wish(), role)
    };
    all.iter().map(|(name, status)| (name.clone(), promise(status))).collect()
}

/// What holds whatever happened: everything that runs runs once, on ports of its own, in a life of its own.
pub(crate) async fn assert_sound(host: &Host, all: &BTreeMap<String, InstanceStatus>, story: &str) {
    let mut blocks: Vec<(u32, &str)> = Vec::new();
    for (name, status) in all {
        let base = status.ports.unwrap().base;
        if let Some((_, other)) = blocks.iter().find(|(held, _)| held.abs_diff(base) < 20) {
            panic!("{story}: {name} and {other} have the same ports");
        }
        blocks.push((base, name));
        let expected = match status.wish() {
            Wish::Up => BTreeSet::from([status.pid, status.worker_pid]),
            Wish::Down | Wish::Unspecified => BTreeSet::new(),
        };
        until(&format!("{story}: of {name} only {expected:?}"), async || {
            (host.processes_of(name) == expected).then_some(())
        })
        .await;
    }
    let mut lives = BTreeSet::new();
    for event in host.events().await.iter().filter(|event| event.r#type == "instance.started") {
        let life = (event.instance.clone(), event.incarnation);
        assert!(lives.insert(life), "{story}: a number is used twice: {event:?}");
    }
}
