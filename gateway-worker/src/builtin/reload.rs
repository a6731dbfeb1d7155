//! Edits of the configuration while the gateway runs, treated as OpenClaw treats them: a broken one is skipped,
//! and who may connect follows a good one. What else has changed waits for the next start.
//!
//! OpenClaw watches the file. Here it is looked at when a client introduces itself, which is when it matters:
//! a watch of its own for each of a thousand gateways would be more than the kernel grants one user
//! (`fs.inotify.max_user_instances`), and a timer would wake an idle gateway.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::config::{Auth, Config, Environment, Location};
use crate::failure::chain;
use crate::gateway::Gateway;
use crate::log;

/// How long a look may take before the client is judged by what was known: a dead disk must not lock it out.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// Who may connect, and the content of the file that was looked at last.
pub(crate) struct Accepted(Mutex<(Option<Stamp>, Arc<Auth>)>);

/// A file's identity, size and time of change: two contents differ in one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stamp(u64, u64, SystemTime);

/// What came of a look at a file that has changed.
enum Change {
    Missing,
    Broken(String),
    Good(Auth),
}

impl Accepted {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Mutex::new((config.stamp, Arc::clone(&config.auth))))
    }

    /// Who may connect, as far as is known.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        let (_, auth) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(auth)
    }

    fn stamp(&self) -> Option<Stamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn take(&self, stamp: Option<Stamp>, change: Change) {
        let accepted = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two clients may have looked at once.
        if std::mem::replace(&mut accepted.0, stamp) == stamp {
            return;
        }
        match change {
            Change::Missing => log::warn(format_args!("config reload skipped (config file not found)")),
            Change::Broken(fault) => {
                log::warn(format_args!("config reload skipped (invalid config): {fault}"));
            }
            Change::Good(auth) if auth == *accepted.1 => {}
            Change::Good(auth) => {
                accepted.1 = Arc::new(auth);
                log::info(format_args!("config hot reload applied (gateway.auth)"));
            }
        }
    }
}

/// The content of the file at `path`, by its looks; `None` if there is none.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp(metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// Who may connect now.
pub(crate) async fn auth(gateway: &Gateway) -> Arc<Auth> {
    let accepted = &gateway.accepted;
    let Config { path, state_dir, .. } = &gateway.config;
    let (location, known) = (Location { path: path.clone(), state_dir: state_dir.clone() }, accepted.stamp());
    // Off the loop: the disk may be slow.
    let look = tokio::task::spawn_blocking(move || look(location, known));
    if let Ok(Ok(Some((stamp, change)))) = timeout(LOOK_TIME, look).await {
        accepted.take(stamp, change);
    }
    accepted.auth()
}

/// What has changed since the file looked like `known`.
fn look(location: Location, known: Option<Stamp>) -> Option<(Option<Stamp>, Change)> {
    let stamp = stamp(&location.path);
    if stamp == known {
        return None;
    }
    if stamp.is_none() {
        return Some((stamp, Change::Missing));
    }
    let change = match Config::load_from(location, &Environment::read(), None) {
        Ok(Config { auth, .. }) => Arc::into_inner(auth).map(Change::Good)?,
        Err(error) => Change::Broken(chain(&error)),
    };
    Some((stamp, change))
}
