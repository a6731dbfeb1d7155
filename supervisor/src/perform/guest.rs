//! What holds and marks what a person runs in an instance: the same as its gateway.

use supervisor_core::{ids::Name, ports::Block};
use supervisor_proto::worker;

use super::{Groups, walls::walls};
use crate::{openclaw::walls::Trees, spec::InstanceSpec, user::User};

/// The walls around a guest of this instance, and its mark. Its control group is joined if its gateway has had one.
pub(crate) fn hold(
    groups: &Groups,
    (name, spec): (&Name, &InstanceSpec),
    trees: Option<Trees>,
    block: Block,
    user: Option<User>,
) -> (worker::Walls, String) {
    (walls(spec, trees, block, user, groups.existing(name)), groups.mark(name))
}
