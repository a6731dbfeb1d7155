//! Kills what is left of an instance whose worker has died, and proves that nothing is alive.
//!
//! Every process of an instance has the instance's mark in its environment, and its children inherit it. A sweep
//! looks through all processes of the host for the mark and for what belongs to a marked process ([`hunt`]), and
//! goes on until it finds nothing alive:
//!
//! ```text
//!   look ──► nothing alive: proven
//!     │ some
//!     ▼
//!   SIGSTOP each, look ──► more: SIGSTOP those too, look …
//!     │ no more, and all stood still before the look
//!     ▼
//!   SIGKILL each, wait for their deaths, look
//! ```
//!
//! They are stopped first because a running process may fork behind the look's back: a child that clears its
//! environment and begins a session of its own is known only by its parent, while that lives.
//!
//! One look reads some files of every process on the host, so it serves all sweeps that wait when it begins: a
//! thousand deaths at once take three looks, not three thousand. Looks block, so they have a thread.
//!
//! A control group knows its members without looking, and where an instance has one it is emptied before
//! ([`cgroup`](super::cgroup)). The look stays for hosts on which none can be made, and for the worker, which is in
//! none.

mod hunt;
mod look;
mod signal;

use std::{
    collections::BTreeMap,
    fmt, io,
    thread::{self, Thread},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use hunt::{Hunt, Step};
use look::Looker;

use crate::undying::Undying;

/// Sweeps that may wait to be taken up. An instance has at most one, so beyond this a caller waits for a look
/// to end before it is taken up.
const REQUESTS: usize = 4_096;

/// The first pause between two looks when one has changed nothing.
const PATIENCE: Duration = Duration::from_millis(5);

/// No such pause is longer. A look takes some tens of milliseconds, so that this bounds what a process that will
/// not die costs to some hundredths of a core.
const MOST_PATIENCE: Duration = Duration::from_secs(1);

/// Looks in a row that changed nothing, after which the log says so; again at each doubling.
const COMPLAIN: u32 = 16;

/// Processes named in such a line.
const NAMED: usize = 5;

/// The door to the thread that sweeps.
pub(crate) struct Sweeper {
    requests: mpsc::Sender<Request>,
    thread: Thread,
}

/// One wish that an instance be swept.
struct Request {
    mark: String,
    proven: oneshot::Sender<()>,
}

/// A hunt and who waits for its end.
#[derive(Default)]
struct Sweep {
    hunt: Hunt,
    waiting: Vec<oneshot::Sender<()>>,
    /// Looks in a row that changed nothing.
    fruitless: u32,
}

impl Sweeper {
    /// Starts the thread, which notes in `undying` what it cannot kill.
    pub(crate) fn start(undying: Undying) -> io::Result<Self> {
        let looker = Looker::open()?;
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let thread =
            thread::Builder::new().name("sweeper".into()).spawn(move || run(looker, &undying, inbox))?;
        Ok(Self { requests, thread: thread.thread().clone() })
    }

    /// Kills every process of the instance that has this mark. Returns once none is alive, and not before,
    /// however long that takes.
    pub(crate) async fn sweep(&self, mark: &str) {
        let (proven, proof) = oneshot::channel();
        let sent = self.requests.send(Request { mark: mark.to_owned(), proven }).await.is_ok();
        self.thread.unpark();
        if !sent || proof.await.is_err() {
            error!("the sweeper's thread has ended");
            // To return would be a proof.
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sweeper(..)")
    }
}

fn run(mut looker: Looker, undying: &Undying, mut inbox: mpsc::Receiver<Request>) {
    let mut sweeps: BTreeMap<String, Sweep> = BTreeMap::new();
    let mut pause = PATIENCE;
    loop {
        if sweeps.is_empty() {
            let Some(request) = inbox.blocking_recv() else { return };
            admit(&mut sweeps, request);
        }
        while let Ok(request) = inbox.try_recv() {
            admit(&mut sweeps, request);
        }
        if round(&mut looker, undying, &mut sweeps) {
            pause = PATIENCE;
        } else {
            // A new request ends the pause.
            thread::park_timeout(pause);
            pause = (pause * 2).min(MOST_PATIENCE);
        }
    }
}

fn admit(sweeps: &mut BTreeMap<String, Sweep>, request: Request) {
    sweeps.entry(request.mark).or_default().waiting.push(request.proven);
}

/// One look, and the next step of every sweep. Whether anything has changed.
fn round(looker: &mut Looker, undying: &Undying, sweeps: &mut BTreeMap<String, Sweep>) -> bool {
    let (marks, mut hunts): (Vec<&str>, Vec<&mut Hunt>) =
        sweeps.iter_mut().map(|(mark, sweep)| (mark.as_str(), &mut sweep.hunt)).unzip();
    let steps = match hunt::advance(looker, &marks, &mut hunts) {
        Ok(steps) => steps,
        Err(error) => {
            // A look that missed something proves nothing.
            warn!(%error, "failed to look through the processes of this host");
            return false;
        }
    };
    let mut changed = false;
    let mut steps = steps.into_iter();
    sweeps.retain(|mark, sweep| match steps.next() {
        Some(Step::Proven) => {
            changed = true;
            undying.forget(mark);
            for proven in sweep.waiting.drain(..) {
                // Who does not wait any more needs no proof.
                let _ = proven.send(());
            }
            false
        }
        Some(Step::Changed) => {
            changed = true;
            sweep.fruitless = 0;
            undying.forget(mark);
            true
        }
        Some(Step::Same(alive)) => {
            sweep.fruitless += 1;
            if sweep.fruitless >= COMPLAIN && sweep.fruitless.is_power_of_two() {
                if !alive.is_empty() {
                    undying.note(mark, &alive);
                }
                let alive = &alive[..alive.len().min(NAMED)];
                warn!(mark, ?alive, "processes of an instance are still alive after SIGKILL");
            }
            let is_awaited = sweep.waiting.iter().any(|proven| !proven.is_closed());
            if !is_awaited {
                undying.forget(mark);
            }
            is_awaited
        }
        None => true,
    });
    changed
}

#[cfg(test)]
mod tests;
