//! Trust as of when the certificates were last whole: they may be replaced at any time, and a replacement that is
//! damaged changes nothing but what the supervisor says about it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task, time::sleep};
use tracing::{info, warn};

use super::{Files, PkiError, trust::Trust};

/// How soon new certificates are seen.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// What is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// `None` until there were whole certificates.
    pub(crate) trust: Option<Arc<Trust>>,
    /// Why what is there now is not in force, a sentence without its full stop.
    pub(crate) trouble: Option<String>,
}

/// Keeps it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    files: Files,
    kept: Arc<watch::Sender<Kept>>,
    /// Of the files that were last looked at. Held while they are, so that an older look never wins.
    seen: Arc<Mutex<Option<Stamp>>>,
}

/// Which files there are: inode, size and time of change of each.
type Stamp = [Option<(u64, u64, i64, i64)>; 3];

impl Keeper {
    /// Of these files, which are not looked at yet.
    pub(crate) fn new(files: Files) -> Self {
        Self { files, kept: Arc::new(watch::Sender::default()), seen: Arc::default() }
    }

    /// What is kept, and is told when that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Kept> {
        self.kept.subscribe()
    }

    /// What is kept.
    pub(crate) fn kept(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// Looks at the files, and says what is kept then.
    pub(crate) async fn look(&self) -> Kept {
        let keeper = self.clone();
        // A look that panics leaves what is kept.
        let _ = task::spawn_blocking(move || keeper.look_now()).await;
        self.kept()
    }

    /// Looks again and again; never ends.
    pub(crate) async fn look_after(self) {
        loop {
            self.look().await;
            sleep(LOOK_AFTER).await;
        }
    }

    fn look_now(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp();
        if *seen == Some(stamp) {
            return;
        }
        let loaded = Trust::load(&self.files);
        // What is replaced while it is read is read again.
        if self.stamp() == stamp {
            *seen = Some(stamp);
        }
        let (trust, trouble) = match loaded {
            Ok(trust) => {
                info!("the certificates were read");
                (Some(Arc::new(trust)), None)
            }
            Err(error) => (self.kept().trust, Some(told(&error))),
        };
        if let Some(trouble) = trouble.as_ref().filter(|_| trust.is_some()) {
            warn!(%trouble, "the certificates cannot be read; those read before stay in force");
        }
        self.kept.send_replace(Kept { trust, trouble });
    }

    fn stamp(&self) -> Stamp {
        [self.files.ca(), self.files.crl(), self.files.server()].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
        })
    }
}

/// An error with its causes.
fn told(error: &PkiError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
