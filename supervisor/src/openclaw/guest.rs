//! What a person runs in an instance: whose it is, and what it may open.

use std::{collections::BTreeMap, path::Path};

use supervisor_core::{ids::Name, ports::Block};
use supervisor_proto::worker;

use super::{
    layout::{Directories, Neighbour},
    prepare::{Host, filled_in},
    runtime,
    walls::{self, Ground, Trees},
};
use crate::{
    registry,
    spec::InstanceSpec,
    user::{self, User, UserError},
};

/// In which instance.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) name: Name,
    pub(crate) spec: InstanceSpec,
    pub(crate) block: Block,
    /// All instances; this one may be among them.
    pub(crate) neighbours: Vec<Neighbour>,
    /// What it is given.
    pub(crate) environment: BTreeMap<String, String>,
}

/// What is around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    /// Whom it runs as.
    pub(crate) user: User,
    pub(crate) walls: worker::Walls,
    /// By which it is known.
    pub(crate) mark: String,
}

/// Whom a guest runs as, if not as the supervisor's own user, and what it may open: what the gateway would, if it were
/// started now. Looks at files, and makes what OpenClaw has in /tmp.
pub(crate) fn place(host: &Host, guest: &Guest) -> Result<(Option<User>, Option<Trees>), UserError> {
    let Guest { name, spec, block, neighbours, environment } = guest;
    let user = user::of(spec.user.as_ref())?;
    let directories = Directories::of(&host.control.data_dir, name, spec);
    // What is nowhere is installed nowhere.
    let runtime = runtime::resolve(spec, host).ok();
    let args = runtime.as_ref().map_or(&[][..], |runtime| &runtime.args);
    let args: Vec<String> =
        args.iter().map(|argument| filled_in(argument, name, *block, &directories)).collect();
    let ground = Ground {
        host,
        name,
        spec,
        directories: &directories,
        neighbours,
        kind: runtime.as_ref().map_or_else(|| registry::kind(spec, host), |runtime| runtime.kind),
        program: runtime.as_ref().map_or(Path::new("/"), |runtime| &runtime.program),
        args: &args,
        environment,
        uid: user.as_ref().map_or_else(|| User::own().uid, |user| user.uid),
    };
    // Without its locks OpenClaw says so itself.
    let (trees, _) = walls::stand(&ground);
    Ok((user, trees))
}
