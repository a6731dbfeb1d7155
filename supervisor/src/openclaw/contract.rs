//! What an OpenClaw that is supervised from outside says about its restarts.
//!
//! Status 0 says "I was stopped" and "run me again" both. A gateway that wants to be run again leaves a handoff in its
//! state, which its own command line hands out once, to whoever names the pid that wrote it. Whether a runtime does so
//! is asked of that very runtime, never read off its version. Where it does, `OPENCLAW_NO_RESPAWN` has to be left
//! out: with it the gateway restarts within its process instead.

use serde::Deserialize;
use supervisor_core::{event::Handoff, fence::Channels, ids::Name, ports::Block};
use supervisor_proto::worker::Walls;

use super::{
    config::Discovery,
    environment::{Ingredients, environment},
    incident,
    layout::{Directories, Neighbour},
    prepare::{Host, Refusal},
    runtime::{self, Resolved},
    walls::{self, Ground},
};
use crate::{
    spec::InstanceSpec,
    tool::{Inside, Tool},
    user::{self, User},
};

/// The program of workers, beside this one. Processes that carry a mark are held against its name.
pub(crate) const WORKER: &str = "gateway-worker";

/// The protocol, in both answers.
const PROTOCOL: &str = "openclaw.gateway.restart-handoff";

/// The version of it that is spoken here.
const VERSION: u64 = 1;

/// The longest reason passed on, in bytes.
const REASON: usize = 160;

/// Whether a runtime hands its restarts over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contract {
    /// It does.
    Handoff,
    /// It does not, or that is not known yet.
    #[default]
    None,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    ok: bool,
    protocol: String,
    protocol_version: u64,
    operations: Vec<String>,
}

#[derive(Deserialize)]
struct Consumed {
    protocol: String,
    status: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    handoff: Option<Note>,
}

#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    source: Option<String>,
}

/// The arguments that ask what a runtime can do.
pub(crate) const CAPABILITIES: [&str; 4] = ["gateway", "restart-handoff", "capabilities", "--json"];

/// The arguments that ask for the handoff of the gateway that had this pid.
pub(crate) fn consume(pid: i32) -> Vec<String> {
    ["gateway", "restart-handoff", "consume", "--expected-pid", &pid.to_string(), "--json"]
        .map(str::to_owned)
        .to_vec()
}

/// What a runtime can do, by its answer. A version that does not know the question prints something else.
pub(crate) fn capable(answer: &str) -> Contract {
    match serde_json::from_str::<Capabilities>(answer) {
        Ok(Capabilities { ok: true, protocol, protocol_version: VERSION, operations })
            if protocol == PROTOCOL && operations.iter().any(|operation| operation == "consume") =>
        {
            Contract::Handoff
        }
        Ok(_) | Err(_) => Contract::None,
    }
}

/// What a gateway left, by the answer to [`consume`].
pub(crate) fn left(answer: &str) -> Handoff {
    let Ok(consumed) = serde_json::from_str::<Consumed>(answer) else {
        return Handoff::Unknown("the runtime's answer cannot be read".into());
    };
    let said = |text: Option<String>| text.map(|text| incident::shortened(&text, REASON).to_owned());
    match consumed.status.as_str() {
        "accepted" if consumed.protocol == PROTOCOL => {
            let note = consumed.handoff.unwrap_or(Note { reason: None, source: None });
            let reason = said(note.reason).or(said(note.source));
            Handoff::Restart(reason.unwrap_or_else(|| "it does not say why".into()))
        }
        // Of another life: this one left none.
        "none" | "rejected" => Handoff::Nothing,
        status => {
            let reason =
                said(consumed.reason).unwrap_or_else(|| incident::shortened(status, REASON).to_owned());
            Handoff::Unknown(format!("the runtime says `{reason}`"))
        }
    }
}

/// The runtime's own command line within an instance's surroundings, and within its walls: an agent has written what it
/// reads, plugins included. Makes nothing but what OpenClaw has in /tmp. Blocks on the disk.
pub(crate) fn tool(
    host: &Host,
    (name, block, mark): (&Name, Block, &str),
    (spec, neighbours): (&InstanceSpec, &[Neighbour]),
    args: Vec<String>,
) -> Result<Tool, Refusal> {
    let directories = Directories::of(&host.control.data_dir, name, spec);
    let runtime: Resolved = runtime::resolve(spec, host)?;
    let environment = environment(&Ingredients {
        host: &host.environment,
        name,
        directories: &directories,
        block,
        added: &spec.env,
        runtime: &runtime,
        mark,
        control: &host.control,
        discovery: Discovery::Quiet,
        incidents: &[],
        incident_file: &incident::file(&directories.root),
        contract: Contract::None,
        channels: Channels::On,
    });
    let user = user::of(spec.user.as_ref())?;
    // Without its locks it says that it cannot answer.
    let (trees, _) = walls::stand(&Ground {
        host,
        name,
        spec,
        directories: &directories,
        neighbours,
        kind: runtime.kind,
        program: &runtime.program,
        args: &args,
        environment: &environment,
        uid: user.as_ref().map_or_else(|| User::own().uid, |user| user.uid),
    });
    Ok(Tool {
        program: runtime.program,
        args,
        environment: Some(environment),
        directory: Some(directories.home),
        inside: Some(inside(host, walls::around(spec, trees, block, user))),
    })
}

/// Behind these walls, which the worker beside this program builds.
pub(crate) fn inside(host: &Host, walls: Walls) -> Inside {
    Inside { worker: host.beside_daemon.join(WORKER), walls }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As printed by 2026.9.6.
    const ACCEPTED: &str = r#"{"ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1,
        "status":"accepted","handoff":{"kind":"gateway-supervisor-restart-handoff","version":1,"intentId":"80cb",
        "pid":29673,"processInstanceId":"bbc5","createdAt":153,"expiresAt":60153,"reason":"gateway.restart",
        "source":"operator-restart","restartKind":"full-process","supervisorMode":"external"}}"#;

    fn answered(rest: &str) -> Handoff {
        left(&format!(
            r#"{{"ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1,{rest}}}"#
        ))
    }

    #[test]
    fn what_a_runtime_can_do_is_read_from_its_own_answer() {
        let answer = r#"{"ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1,"operations":["consume"]}"#;
        assert_eq!(capable(answer), Contract::Handoff);
        assert_eq!(capable(&answer.replace("\"consume\"", "")), Contract::None);
        assert_eq!(capable(&answer.replace(":1,", ":2,")), Contract::None);
        assert_eq!(capable("error: unknown command 'restart-handoff'"), Contract::None);
        assert_eq!(capable(""), Contract::None);
    }

    #[test]
    fn a_handoff_is_told_from_its_absence_and_from_trouble() {
        assert_eq!(left(ACCEPTED), Handoff::Restart("gateway.restart".into()));
        assert_eq!(answered(r#""status":"none","reason":"missing""#), Handoff::Nothing);
        assert_eq!(
            answered(r#""status":"rejected","reason":"pid-mismatch","handoffPid":29673"#),
            Handoff::Nothing
        );
        assert_eq!(
            answered(r#""status":"error","reason":"store-unavailable""#),
            Handoff::Unknown("the runtime says `store-unavailable`".into())
        );
        assert!(matches!(left("Segmentation fault"), Handoff::Unknown(_)));
    }
}
