//! An agent in the hands of a test: a gateway that runs whatever script is put into its home.

use std::{cell::Cell, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use supervisor_proto::v1::{
    InstanceSpec, InstanceStatus, WallPolicy, WallStatus,
    wall_status::{Kind, State},
};

use super::{Host, shell, until};

/// Takes what is put there, and runs it aside. Without its quotes a pattern that has met nothing would be looked up again,
/// and then meet what has come since.
const SCRIPT: &str = "while :; do for o in *.order; do [ -e \"$o\" ] || continue; n=${o%.order}; mv \"$o\" $n.sh; \
                      (sh ./$n.sh >$n.out 2>$n.err; echo $? >$n.tmp; mv $n.tmp $n.status) & done; sleep 0.05; done";

/// A gateway that runs whatever script is put into its home.
pub(crate) struct Agent {
    pub(crate) home: PathBuf,
    next: Cell<u32>,
}

/// What became of a script.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Whether all these walls stand around it; says so if not.
pub(crate) fn stand(status: &InstanceStatus, kinds: &[Kind]) -> bool {
    // A manager of services is asked for nothing here, so the wall holds all that is tried.
    let aside = |wall: &WallStatus| wall.reason.starts_with("who asks") && !wall.reason.contains("; ");
    kinds.iter().all(|kind| {
        let wall = status.walls.iter().find(|wall| wall.kind() == *kind);
        let stands = wall.is_some_and(|wall| wall.state() == State::Enforced || aside(wall));
        if !stands {
            eprintln!("nothing is tried here: {kind:?} is {wall:?}");
        }
        stands
    })
}

impl Agent {
    /// A running instance with an agent in it.
    pub(crate) async fn start(host: &Host, name: &str, spec: InstanceSpec) -> (Self, InstanceStatus) {
        host.create(name, spec).await;
        let status = host.up(name).await;
        let home = host.data_dir().join("instances").join(name).join("home");
        (Self { home, next: Cell::new(0) }, status)
    }

    /// Behind all walls, unless `walls` leaves some out.
    pub(crate) fn spec(walls: WallPolicy) -> InstanceSpec {
        InstanceSpec { walls: Some(walls), ..shell(SCRIPT) }
    }

    /// Lets the instance begin with `script`, and does not wait for its end. Answers its number.
    pub(crate) fn begin(&self, script: &str) -> u32 {
        let number = self.next.replace(self.next.get() + 1);
        let at = |kind: &str| self.home.join(format!("{number}.{kind}"));
        fs::write(at("new"), script).unwrap();
        fs::set_permissions(at("new"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(at("new"), at("order")).unwrap();
        number
    }

    /// Runs `script` inside the instance.
    pub(crate) async fn run(&self, script: &str) -> Ran {
        let number = self.begin(script);
        let at = |kind: &str| self.home.join(format!("{number}.{kind}"));
        let status = until(script, async || fs::read_to_string(at("status")).ok()).await;
        let read = |kind: &str| fs::read_to_string(at(kind)).unwrap();
        Ran { status: status.trim().parse().unwrap(), out: read("out"), err: read("err") }
    }

    /// The same of one that must do what it says.
    pub(crate) async fn done(&self, script: &str) -> String {
        let ran = self.run(script).await;
        assert_eq!(ran.status, 0, "{script}: {ran:?}");
        ran.out
    }

    /// The same of one that must be refused by the kernel.
    pub(crate) async fn refused(&self, script: &str) {
        let ran = self.run(script).await;
        assert_ne!(ran.status, 0, "{script}: {ran:?}");
        let words = ["ermission denied", "not permitted"];
        assert!(words.iter().any(|word| ran.err.contains(word)), "{script}: {ran:?}");
    }
}
