//! What can be wrong with contexts, and what to do about it.

use std::{io, path::PathBuf};

use super::{COPIES, READY};
use crate::{error::Kind, render::style::quoted};

/// Why contexts cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("neither $XDG_CONFIG_HOME nor $HOME says where contexts are kept")]
    NoHome,
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("others can write to {}", .path.display())]
    Exposed { path: PathBuf },
    #[error("{}{}: {what}", .path.display(), shown(*.place))]
    Wrong { path: PathBuf, place: Option<(usize, usize)>, what: String },
    #[error("{0}")]
    Unfit(String),
    #[error("no context is called `{name}`")]
    Unknown { name: String, nearest: Option<String> },
    #[error("the context `{0}` exists already")]
    Exists(String),
    #[error("{} says not where the supervisor is: there is no {READY} in it", .0.display())]
    Nowhere(PathBuf),
    #[error("no context is the current one")]
    NoCurrent,
    #[error("{} exists already", .0.display())]
    InTheWay(PathBuf),
    #[error("{} is a link, which may lead anywhere", .0.display())]
    LedAway(PathBuf),
}

fn shown(place: Option<(usize, usize)>) -> String {
    place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default()
}

impl ContextError {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } | Self::NoCurrent => Kind::NotFound,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Exists(_)
            | Self::InTheWay(_)
            | Self::LedAway(_)
            | Self::Nowhere(_) => Kind::Refused,
            Self::NoHome | Self::Exposed { .. } | Self::Wrong { .. } | Self::Unfit(_) => Kind::Usage,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { .. } | Self::NoCurrent => Some("openclawctl context list".into()),
            Self::Exposed { path } => Some(format!("chmod go-w {}", quoted(&path.to_string_lossy()))),
            Self::Exists(name) => Some(format!("remove it first with openclawctl context rm {name}")),
            Self::Nowhere(path) => Some(format!(
                "name its address: openclawctl context add NAME --tcp HOST:PORT{}",
                ["--ca", "--cert", "--key"]
                    .iter()
                    .zip(COPIES)
                    .map(|(option, file)| format!(" {option} {}", quoted(&path.join(file).to_string_lossy())))
                    .collect::<String>()
            )),
            Self::InTheWay(_) => Some("choose another directory, or add --force".into()),
            Self::LedAway(_) => Some("name the directory itself: --dir DIR".into()),
            Self::NoHome | Self::Read { .. } | Self::Write { .. } | Self::Wrong { .. } | Self::Unfit(_) => {
                None
            }
        }
    }
}
