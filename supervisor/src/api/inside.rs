//! What those may do who call from inside an instance.
//!
//! An agent in a gateway has the supervisor's user id, and is refused by default: an instance sees itself, and no
//! more. A rescue sees its primaries, too, and may mend them. What an RPC is to such callers stands beside it in
//! [`METHODS`](super::access::METHODS); the gate turns them away from what is closed, and attaches a [`Scope`] to
//! all other requests. It knows whom the RPC may be about, and the service asks it about each name.

use std::{collections::BTreeSet, fmt};

use supervisor_core::{event::Asker, ids::Name, view::View};
use tonic::Request;
use tracing::debug;

use super::status::Refusal;
use crate::{handle::Handle, role::Role};

/// What an RPC is to a caller inside an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Not for it.
    Closed,
    /// It is about no instance, and for everyone.
    Open,
    /// About itself and its primaries.
    See,
    /// About its primaries.
    Mend,
}

/// Whom a request may be about, and what it may ask for.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    narrow: Option<Narrow>,
    who: String,
    role: Role,
}

#[derive(Debug, Clone)]
struct Narrow {
    insider: Insider,
    what: Inside,
    handle: Handle,
}

impl Scope {
    /// About everyone, for `who`, who has this role.
    pub(super) fn whole(who: String, role: Role) -> Self {
        Self { narrow: None, who, role }
    }

    /// For `who`, who is confined to what `insider` may, and to whom the RPC is `what`.
    pub(super) fn narrow(who: String, insider: Insider, what: Inside, handle: Handle) -> Self {
        Self { narrow: Some(Narrow { insider, what, handle }), who, role: Role::Rescue }
    }

    /// Of a request that has passed the gate, which attaches one to each. None means no right.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or(Refusal::Untraced(0))
    }

    /// Whether it allows all that `older` did.
    pub(super) fn covers(&self, older: &Self) -> bool {
        match (&self.narrow, &older.narrow) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(narrow), Some(older)) => narrow.insider.name == older.insider.name,
        }
    }

    /// Who calls, for the history.
    pub(super) fn asker(&self) -> Asker {
        let insider =
            self.narrow.as_ref().map(|narrow| &narrow.insider).filter(|insider| insider.is_inside());
        insider.map_or(Asker::Operator, |insider| Asker::Inside(insider.name.clone()))
    }

    /// Refuses `what`, a part of an RPC, unless the caller has this role.
    pub(super) fn needs(&self, needs: Role, what: &str) -> Result<(), Refusal> {
        if self.role >= needs {
            return Ok(());
        }
        let has = Some(self.role.to_string());
        Err(Refusal::NotPermitted { who: self.who.clone(), has, what: what.into(), needs })
    }

    /// Refuses a request about `name`, unless it may be about that.
    pub(super) fn may(&self, name: &str) -> Result<(), Refusal> {
        match &self.narrow {
            Some(narrow) if !self.contains(name) => {
                let Insider { name: instance, how, .. } = &narrow.insider;
                debug!(%instance, name, "a caller confined to an instance asked about another");
                Err(Insider::new(instance.clone(), *how, &narrow.handle.view()).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a list may show `name`.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names().is_none_or(|names| names.contains(name))
    }

    /// All that the request may be about; `None`: about anyone. An instance's relations may change at any time.
    pub(super) fn names(&self) -> Option<BTreeSet<Name>> {
        let Narrow { insider, what, handle } = self.narrow.as_ref()?;
        let mut names = primaries(&handle.view(), &insider.name);
        match what {
            Inside::See => {
                names.insert(insider.name.clone());
            }
            Inside::Mend => {}
            Inside::Closed | Inside::Open => names.clear(),
        }
        Some(names)
    }
}

fn primaries(view: &View, who: &Name) -> BTreeSet<Name> {
    let rescues = view.instances.get(who).map(|instance| instance.policy().rescues.iter().cloned());
    rescues.into_iter().flatten().collect()
}

/// A caller that is confined to an instance, and what it may do. As a sentence, why it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Insider {
    /// The instance.
    pub(crate) name: Name,
    how: How,
    primaries: Vec<Name>,
}

/// What confines a caller to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It runs inside.
    Inside,
    /// Its role is that of what runs inside.
    Role,
}

impl Insider {
    pub(super) fn new(name: Name, how: How, view: &View) -> Self {
        let primaries = primaries(view, &name).into_iter().collect();
        Self { name, how, primaries }
    }

    /// Whether it runs inside, and has not only the role of that.
    pub(crate) fn is_inside(&self) -> bool {
        match self.how {
            How::Inside => true,
            How::Role => false,
        }
    }
}

impl fmt::Display for Insider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, how, primaries } = self;
        match how {
            How::Inside => write!(f, "this was called from inside `{name}`, which may ")?,
            How::Role => write!(f, "this was called with the role of `{name}` as a rescue, which may ")?,
        }
        let primaries: Vec<String> = primaries.iter().map(|primary| format!("`{primary}`")).collect();
        match primaries.join(" and ") {
            none if none.is_empty() => f.write_str("only see its own status, events and logs"),
            whom => write!(
                f,
                "only see itself and {whom}, start or restart {whom}, and put an older configuration of \
                 {whom} back"
            ),
        }
    }
}
