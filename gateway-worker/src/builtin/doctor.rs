//! `doctor` and `config validate`: what OpenClaw's do as far as a supervisor builds on it. A broken
//! configuration is replaced by the last good one that lies beside it, and kept; no file is ever lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::args::Treatment;
use crate::config::{Config, Environment, Location};
use crate::failure::chain;
use crate::fault::ConfigError;
use crate::gateway::now_ms;
use crate::misbehave::{Doctor, Misbehaviour};
use crate::mischief;

/// Why the doctor could not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    /// There is no telling where the configuration is.
    #[error(transparent)]
    Location(#[from] ConfigError),
    /// It is broken, and was not to be mended.
    #[error("{fault}; run `doctor --fix`")]
    Broken {
        /// What is wrong with it.
        fault: String,
    },
    /// It is broken, and there is nothing to mend it with.
    #[error("{fault}; cannot be repaired: {why}. The file remains unchanged")]
    Hopeless {
        /// What is wrong with it.
        fault: String,
        /// Why the last good one is no help.
        why: String,
    },
    /// A file could not be written.
    #[error("failed to put `{}` in place", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// As asked for.
    #[error("misbehaving: the doctor fails")]
    Misbehaves,
}

/// Looks for a fault, treats it, and says in a sentence what came of it.
pub(crate) fn treat(
    environment: &Environment,
    misbehaviour: &Misbehaviour,
    treatment: Treatment,
) -> Result<String, DoctorError> {
    let location = Location::find(environment)?;
    match misbehaviour.doctor {
        None => {}
        Some(Doctor::Hangs) => mischief::stand_still(),
        Some(Doctor::Fails) => return Err(DoctorError::Misbehaves),
        Some(Doctor::Mends) if treatment == Treatment::Fix => {
            Misbehaviour::mend(&location.state_dir)
                .map_err(|source| DoctorError::Write { path: location.state_dir.clone(), source })?;
        }
        Some(Doctor::Mends) => {}
    }
    let Some(fault) = fault(location.clone(), environment, misbehaviour) else {
        return Ok(format!("`{}` has no faults", location.path.display()));
    };
    match treatment {
        Treatment::Diagnose => Err(DoctorError::Broken { fault }),
        Treatment::Fix => restore(location, environment, misbehaviour, fault),
    }
}

/// What is wrong with the configuration at this place.
fn fault(location: Location, environment: &Environment, misbehaviour: &Misbehaviour) -> Option<String> {
    let path = location.path.clone();
    match Config::load_from(location, environment, None) {
        Err(error) => Some(chain(&error)),
        Ok(_) if misbehaviour.doctor != Some(Doctor::Mends) && misbehaviour.spoils(&path) => {
            Some(format!("`{}` has what the gateway exits over", path.display()))
        }
        Ok(_) => None,
    }
}

fn restore(
    location: Location,
    environment: &Environment,
    misbehaviour: &Misbehaviour,
    fault: String,
) -> Result<String, DoctorError> {
    let path = location.path;
    let good = beside(&path, ".last-good");
    let candidate = Location { path: good.clone(), state_dir: location.state_dir };
    if let Some(why) = self::fault(candidate, environment, misbehaviour) {
        return Err(DoctorError::Hopeless { fault, why });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DoctorError::Write { path, source }
    };
    let (draft, kept) = (beside(&path, ".restoring"), beside(&path, &format!(".clobbered.{}", now_ms())));
    fs::copy(&good, &draft).map_err(failed(&draft))?;
    // Beside, not instead: between the two calls the configuration is there.
    match fs::copy(&path, &kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        copied => copied.map(drop).map_err(failed(&kept))?,
    }
    fs::rename(&draft, &path).map_err(failed(&path))?;
    Ok(format!("restored `{}` from its last good copy: {fault}", path.display()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The answer of `config validate --json`, field by field as OpenClaw prints it.
#[derive(Serialize)]
pub(crate) struct Verdict {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<CliError>,
    /// Whether the gateway could start with the configuration.
    pub(crate) valid: bool,
    path: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<Issue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[String; 0]>,
}

#[derive(Serialize)]
struct CliError {
    r#type: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Issue {
    path: String,
    message: String,
}

/// Judges the configuration.
pub(crate) fn validate(environment: &Environment) -> Result<Verdict, ConfigError> {
    let location = Location::find(environment)?;
    let path = location.path.clone();
    let fault = match Config::load_from(location, environment, None) {
        Ok(_) => {
            let (ok, error, issues) = (None, None, vec![]);
            return Ok(Verdict { ok, error, valid: true, path, issues, warnings: Some([]) });
        }
        Err(fault) => fault,
    };
    let (message, issues) = if path.exists() {
        let issue = Issue { path: fault.key().unwrap_or("<root>").to_owned(), message: chain(&fault) };
        (format!("OpenClaw config is invalid: {}", path.display()), vec![issue])
    } else {
        ("file not found".to_owned(), vec![])
    };
    let error = Some(CliError { r#type: "cli_error", message });
    Ok(Verdict { ok: Some(false), error, valid: false, path, issues, warnings: None })
}
