//! What callers may do.
//!
//! ```text
//!   rescue     sees one instance and its primaries, and mends those: what a caller inside it may do
//!   viewer     sees everything, changes nothing
//!   operator   starts, stops, mends and upgrades what there is
//!   admin      says what there is, and with that which programs run; changes and ends the supervisor itself
//! ```
//!
//! Whoever says what is run has all the rights of the user it runs as. So that is not an operator's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use supervisor_core::ids::Name;

/// How much somebody may do, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What a caller inside one instance may do: it goes with the name of that.
    Rescue,
    /// Sees everything.
    Viewer,
    /// Starts, stops, mends and upgrades what there is.
    Operator,
    /// Says what there is.
    Admin,
}

/// Not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: use viewer, operator, admin or rescue")]
pub struct InvalidRole(pub String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rescue, Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rescue => "rescue",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or_else(|| InvalidRole(text.into()))
    }
}

/// A role that somebody has, the least first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// That of a rescue, of this instance.
    Rescue(Name),
    /// That of a viewer.
    Viewer,
    /// That of an operator.
    Operator,
    /// That of an admin.
    Admin,
}

/// A role and an instance that do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// A rescue is one of an instance.
    #[error("the role rescue is that of one instance")]
    NoInstance,
    /// All other roles are for everything.
    #[error("the role {0} is not for one instance")]
    Instance(Role),
}

impl Grant {
    /// The role, if it goes together with the instance.
    pub fn new(role: Role, instance: Option<Name>) -> Result<Self, GrantError> {
        match (role, instance) {
            (Role::Rescue, Some(instance)) => Ok(Self::Rescue(instance)),
            (Role::Rescue, None) => Err(GrantError::NoInstance),
            (Role::Viewer, None) => Ok(Self::Viewer),
            (Role::Operator, None) => Ok(Self::Operator),
            (Role::Admin, None) => Ok(Self::Admin),
            (Role::Viewer | Role::Operator | Role::Admin, Some(_)) => Err(GrantError::Instance(role)),
        }
    }

    /// Which it is.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Rescue(_) => Role::Rescue,
            Self::Viewer => Role::Viewer,
            Self::Operator => Role::Operator,
            Self::Admin => Role::Admin,
        }
    }

    /// Whose, if it is for one instance.
    #[must_use]
    pub const fn instance(&self) -> Option<&Name> {
        match self {
            Self::Rescue(name) => Some(name),
            Self::Viewer | Self::Operator | Self::Admin => None,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rescue(name) => write!(f, "rescue of `{name}`"),
            Self::Viewer | Self::Operator | Self::Admin => self.role().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written_and_ordered_by_what_they_may() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!("root".parse::<Role>(), Err(InvalidRole("root".into())));
        assert!(Role::ALL.is_sorted());
    }

    #[test]
    fn a_rescue_is_one_of_an_instance_and_nobody_else_is() {
        let main = Name::new("main").unwrap();
        let rescue = Grant::new(Role::Rescue, Some(main.clone())).unwrap();
        assert_eq!((rescue.role(), rescue.instance()), (Role::Rescue, Some(&main)));
        assert!(rescue < Grant::Viewer && Grant::Viewer < Grant::Operator && Grant::Operator < Grant::Admin);
        assert_eq!(Grant::new(Role::Rescue, None), Err(GrantError::NoInstance));
        assert_eq!(Grant::new(Role::Admin, Some(main)), Err(GrantError::Instance(Role::Admin)));
    }
}
