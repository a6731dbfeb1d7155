//! Watches the configurations of all instances, and tells whose has changed.
//!
//! ```text
//!   add, remove ──► what is wanted ──┐
//!   inotify, one for all ────────────┼──► pending ──(quiet)──► settle ──► the name, once
//!   a look every now and then ───────┘
//! ```
//!
//! Not the file is watched but its directory, so that a file that is renamed over it is seen; of a directory that
//! does not exist, the nearest above it that does; of a link, also where it leads. Editors write a file in
//! several steps, so a change is reported after a short quiet. Before each report the watches are set up anew:
//! whoever reads the file then misses nothing that comes later, and a directory that was deleted and made again
//! needs no case of its own.
//!
//! What inotify does not see (a directory far above that is moved, a file system of another host) a look finds, and
//! where watches are refused, looks are all there is. A disk that hangs delays reports and nothing else.

mod settle;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    io,
    path::PathBuf,
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, Watches};
use supervisor_core::ids::Name;
use tokio::{
    sync::{mpsc, watch},
    task,
    time::{self, Instant, MissedTickBehavior},
};
use tracing::warn;

use self::settle::{Settled, Stamp};

/// So long nothing may happen before a change is reported. Editors take a few milliseconds from step to step.
const QUIET: Duration = Duration::from_millis(50);

/// So long a change waits at most for the quiet. Warnings come within a second of the edit.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Between two looks at what cannot be watched.
const LOOK: Duration = Duration::from_secs(2);

/// Of so many looks, one is at everything: a thousand instances cost a few milliseconds of another thread.
const FULL_LOOK: u32 = 15;

/// For some hundred events at a time.
const BUFFER: usize = 16 << 10;

/// All events of all watches.
type Stream = EventStream<Vec<u8>>;

/// The door to the watch. When it is dropped, the watch ends.
#[derive(Debug)]
pub(crate) struct Watch {
    wanted: watch::Sender<BTreeMap<Name, PathBuf>>,
}

impl Watch {
    /// Begins to watch; `changed` is told whose configuration is another. To be called on the driver's runtime.
    pub(crate) fn start(changed: mpsc::Sender<Name>) -> Self {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER]));
        let stream = stream.inspect_err(only_looks).ok();
        Self::begin(changed, stream)
    }

    fn begin(changed: mpsc::Sender<Name>, stream: Option<Stream>) -> Self {
        let (wanted, wishes) = watch::channel(BTreeMap::new());
        let watches = stream.as_ref().map(EventStream::watches);
        let task = Task {
            wishes,
            changed,
            warned: stream.is_none(),
            stream,
            watches,
            watched: BTreeMap::new(),
            interested: HashMap::new(),
            pending: BTreeMap::new(),
        };
        task::spawn_local(task.run());
        Self { wanted }
    }

    /// Watches the file from now on; it is reported once it is watched, and then after each change. The path is
    /// absolute.
    pub(crate) fn add(&self, name: Name, path: PathBuf) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.get(&name) != Some(&path);
            wanted.insert(name, path);
            is_new
        });
    }

    /// Watches it no more.
    pub(crate) fn remove(&self, name: &Name) {
        self.wanted.send_if_modified(|wanted| wanted.remove(name).is_some());
    }
}

fn only_looks(error: &io::Error) {
    let seconds = LOOK.as_secs();
    warn!(
        "configurations cannot be watched ({error}); they are looked at every {seconds}s instead. \
         Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
    );
}

/// One file.
struct Watched {
    path: PathBuf,
    /// The watches by which it is seen.
    watches: Vec<WatchDescriptor>,
    /// Whether a look is all there is.
    unseen: bool,
    stamp: Option<Stamp>,
}

/// A change that waits for the quiet.
#[derive(Clone, Copy)]
struct Pending {
    since: Instant,
    latest: Instant,
}

impl Pending {
    fn due(self) -> Instant {
        (self.latest + QUIET).min(self.since + LONGEST_WAIT)
    }
}

/// The receiver is gone, and with it the reason to watch.
struct Gone;

struct Task {
    wishes: watch::Receiver<BTreeMap<Name, PathBuf>>,
    changed: mpsc::Sender<Name>,
    stream: Option<Stream>,
    watches: Option<Watches>,
    watched: BTreeMap<Name, Watched>,
    /// Who wants to hear of which entry of a watched directory.
    interested: HashMap<WatchDescriptor, Vec<(Name, OsString)>>,
    pending: BTreeMap<Name, Pending>,
    /// One warning is enough.
    warned: bool,
}

impl Task {
    async fn run(mut self) {
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks: u32 = 0;
        loop {
            let due = self.pending.values().map(|pending| pending.due()).min();
            tokio::select! {
                wish = self.wishes.changed() => match wish {
                    Ok(()) => self.follow_wishes(),
                    Err(_) => return,
                },
                event = next(&mut self.stream) => self.heard(event),
                () = time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(Gone) = self.report().await {
                        return;
                    }
                }
                _ = look.tick() => {
                    looks = looks.wrapping_add(1);
                    self.look(looks.is_multiple_of(FULL_LOOK)).await;
                }
            }
        }
    }

    fn follow_wishes(&mut self) {
        let wanted = self.wishes.borrow_and_update().clone();
        let gone: Vec<Name> =
            self.watched.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            self.pending.remove(&name);
            let unused = self.release(&name);
            self.watched.remove(&name);
            self.drop_unused(unused);
        }
        for (name, path) in wanted {
            if self.watched.get(&name).is_none_or(|watched| watched.path != path) {
                let before = self.watched.remove(&name).map(|before| before.watches);
                let watched =
                    Watched { path, watches: before.unwrap_or_default(), unseen: false, stamp: None };
                self.watched.insert(name.clone(), watched);
                self.mark_at_once(name);
            }
        }
    }

    /// Something has changed; more may follow.
    fn mark(&mut self, name: Name) {
        let now = Instant::now();
        self.pending
            .entry(name)
            .and_modify(|pending| pending.latest = now)
            .or_insert(Pending { since: now, latest: now });
    }

    fn mark_at_once(&mut self, name: Name) {
        let now = Instant::now();
        let past = now.checked_sub(LONGEST_WAIT).unwrap_or(now);
        self.pending.insert(name, Pending { since: past, latest: past });
    }

    fn mark_all(&mut self) {
        let all: Vec<Name> = self.watched.keys().cloned().collect();
        all.into_iter().for_each(|name| self.mark(name));
    }

    fn heard(&mut self, event: io::Result<Event<OsString>>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.warn_once(&error);
                (self.stream, self.watches) = (None, None);
                return self.mark_all();
            }
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return self.mark_all();
        }
        // The directory itself is deleted, moved or unmounted.
        let lost = event.mask.intersects(
            EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED,
        );
        let Some(interested) = self.interested.get(&event.wd) else { return };
        let concerned: Vec<Name> = interested
            .iter()
            .filter(|(_, entry)| lost || event.name.as_ref() == Some(entry))
            .map(|(name, _)| name.clone())
            .collect();
        concerned.into_iter().for_each(|name| self.mark(name));
    }

    /// Sets up the watches of what is due, then reports it.
    async fn report(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let due: Vec<(Name, PathBuf)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.due() <= now)
            .filter_map(|(name, _)| Some((name.clone(), self.watched.get(name)?.path.clone())))
            .collect();
        self.pending.retain(|_, pending| pending.due() > now);
        let watches = self.watches.clone();
        let settle = move || -> Vec<(Name, Settled)> {
            due.into_iter().map(|(name, path)| (name, settle::settle(watches.as_ref(), &path))).collect()
        };
        // Nothing of it panics, and the runtime outlives this task.
        let settled = task::spawn_blocking(settle).await.unwrap_or_default();
        for (name, settled) in settled {
            self.take(&name, settled);
            self.changed.send(name).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Takes over the new watches of one file, and removes those that nobody needs any more.
    fn take(&mut self, name: &Name, settled: Settled) {
        let mut unused: BTreeSet<WatchDescriptor> = self.release(name);
        unused.extend(settled.added);
        for (watch, entry) in &settled.spots {
            self.interested.entry(watch.clone()).or_default().push((name.clone(), entry.clone()));
        }
        self.drop_unused(unused);
        if let Some(error) = &settled.refused {
            self.warn_once(error);
        }
        if let Some(watched) = self.watched.get_mut(name) {
            watched.unseen = self.watches.is_none() || settled.refused.is_some();
            watched.watches = settled.spots.into_iter().map(|(watch, _)| watch).collect();
            watched.stamp = settled.stamp;
        }
    }

    /// Ends a file's interest in its watches, and answers them.
    fn release(&mut self, name: &Name) -> BTreeSet<WatchDescriptor> {
        let watched = self.watched.get_mut(name);
        let released: BTreeSet<_> = watched.into_iter().flat_map(|file| file.watches.drain(..)).collect();
        for watch in &released {
            if let Some(interested) = self.interested.get_mut(watch) {
                interested.retain(|(other, _)| other != name);
            }
        }
        released
    }

    fn drop_unused(&mut self, watches: BTreeSet<WatchDescriptor>) {
        for watch in watches {
            if self.interested.get(&watch).is_none_or(Vec::is_empty) {
                self.interested.remove(&watch);
                if let Some(all) = &mut self.watches {
                    // It went with its directory, unless that is still there.
                    let _ = all.remove(watch);
                }
            }
        }
    }

    /// Looks at files: at those that are not watched, or at all.
    async fn look(&mut self, all: bool) {
        let paths: Vec<(Name, PathBuf)> = self
            .watched
            .iter()
            .filter(|(_, watched)| all || watched.unseen)
            .map(|(name, watched)| (name.clone(), watched.path.clone()))
            .collect();
        if paths.is_empty() {
            return;
        }
        let look = move || -> Vec<(Name, Option<Stamp>)> {
            paths.into_iter().map(|(name, path)| (name, Stamp::of(&path))).collect()
        };
        for (name, stamp) in task::spawn_blocking(look).await.unwrap_or_default() {
            if self.watched.get(&name).is_some_and(|watched| watched.stamp != stamp) {
                self.mark(name);
            }
        }
    }

    fn warn_once(&mut self, error: &io::Error) {
        if !self.warned {
            self.warned = true;
            only_looks(error);
        }
    }
}

/// The next event; never, if there are none.
async fn next(stream: &mut Option<Stream>) -> io::Result<Event<OsString>> {
    match stream {
        Some(stream) => stream.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
