//! Tells readers that a log has grown.
//!
//! One inotify instance serves all readers, as the kernel allows a user only 128 of them. A notice is a level,
//! not an edge: it says that something may have changed since the reader last looked, and the reader looks.
//! Where nothing can be watched (no directory yet, no watches left), readers look again by themselves.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::watch;
use tracing::warn;

/// Room for the events read at once; more are read at the next turn.
const BUFFER: usize = 16 << 10;

/// The way to watch logs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notices(Option<Arc<Watches>>);

#[derive(Debug)]
struct Watches {
    inotify: OwnedFd,
    /// By watch descriptor, one for each directory.
    watched: Mutex<HashMap<i32, watch::Sender<()>>>,
}

/// Wakes its holder when the log has changed.
#[derive(Debug)]
pub struct Notice {
    watches: Arc<Watches>,
    descriptor: i32,
    /// `None` only while it is dropped.
    changed: Option<watch::Receiver<()>>,
}

impl Notices {
    /// Starts watching. Without inotify readers go on, only later.
    #[must_use]
    pub fn start() -> Self {
        let started = inotify::init(CreateFlags::CLOEXEC).map_err(Into::into).and_then(|inotify| {
            let watches = Arc::new(Watches { inotify, watched: Mutex::default() });
            let heard = Arc::clone(&watches);
            // Reads for as long as the process lives: it holds nothing that would have to be given back.
            thread::Builder::new().name("log-notices".into()).spawn(move || heard.listen())?;
            Ok(watches)
        });
        let started: Result<_, std::io::Error> = started;
        Self(started.inspect_err(|error| warn!("logs cannot be watched: {error}")).ok())
    }

    /// Watches the log in `directory`, if that can be watched now.
    #[must_use]
    pub fn watch(&self, directory: &Path) -> Option<Notice> {
        let watches = self.0.as_ref()?;
        let mut watched = watches.lock();
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        let descriptor = inotify::add_watch(&watches.inotify, directory, flags).ok()?;
        let sender = watched.entry(descriptor).or_insert_with(|| watch::channel(()).0);
        let changed = Some(sender.subscribe());
        Some(Notice { watches: Arc::clone(watches), descriptor, changed })
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => self.tell(event.wd(), event.events()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return warn!("logs are not watched any more: {error}"),
            }
        }
    }

    fn tell(&self, descriptor: i32, events: ReadFlags) {
        let mut watched = self.lock();
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            watched.values().for_each(|changed| changed.send_modify(|()| ()));
        } else if events.contains(ReadFlags::IGNORED) {
            // The directory is gone; whoever waits learns it from the dropped sender.
            watched.remove(&descriptor);
        } else if let Some(changed) = watched.get(&descriptor) {
            changed.send_modify(|()| ());
        }
    }
}

impl Notice {
    /// What changes from now on will be noticed.
    pub fn mark(&mut self) {
        if let Some(changed) = &mut self.changed {
            changed.mark_unchanged();
        }
    }

    /// Waits until something has changed since [`mark`](Self::mark); an error if nothing can be noticed any more.
    pub async fn changed(&mut self) -> Result<(), Unwatched> {
        match &mut self.changed {
            Some(changed) => changed.changed().await.map_err(|_| Unwatched),
            None => Err(Unwatched),
        }
    }
}

/// The directory is gone.
#[derive(Debug, thiserror::Error)]
#[error("the log's directory is gone")]
pub struct Unwatched;

impl Drop for Notice {
    fn drop(&mut self) {
        let mut watched = self.watches.lock();
        self.changed = None;
        if watched.get(&self.descriptor).is_some_and(|changed| changed.receiver_count() == 0) {
            watched.remove(&self.descriptor);
            // It fails only if the directory is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.watches.inotify, self.descriptor);
        }
    }
}
