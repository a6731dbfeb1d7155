//! What holds and marks what a person runs in an instance: the same as its gateway.

use super::{Groups, walls::walls};
use crate::{
    openclaw::{
        guest::{self, Guest, Held},
        prepare::Host,
    },
    user::{User, UserError},
};

/// What is around a guest. Its control group is joined if its gateway has had one.
pub(crate) fn hold(groups: &Groups, host: &Host, guest: &Guest) -> Result<Held, UserError> {
    let (user, trees) = guest::place(host, guest)?;
    let Guest { name, spec, block, .. } = guest;
    Ok(Held {
        walls: walls(spec, trees, *block, user.clone(), groups.existing(name)),
        mark: groups.mark(name),
        user: user.unwrap_or_else(User::own),
    })
}
