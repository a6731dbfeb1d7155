//! Finds out from where a caller calls, and lets none of them keep another waiting for that.
//!
//! Some make themselves hard to look at: hundreds of parents, thousands of groups, thousands of connections. So callers
//! wait in lines by what their user may be; in each line whoever is soon traced waits for nobody who is not, and each
//! process for itself.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use supervisor_core::ids::Name;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, oneshot},
    time,
};

use crate::lineage::{Costly, Effort, Origin, Process, is_walled, nearest};

/// Tracing takes a fraction of a millisecond. A process that is stuck in the kernel may hold it up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Strangers traced at once, of all users together.
const STRANGERS: usize = 8;

/// In which line a caller waits to be traced: some make themselves hard to trace, and are not to keep others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// The supervisor's user and root, without walls around them.
    Own,
    /// Who else has a role by its user.
    Known,
    /// Who has one by a group alone.
    Grouped,
    /// Who has a role by its user and may be an agent, and users of instances: a rescue that mends, too.
    Agents,
    /// Whoever else there is.
    Strangers,
}

impl Line {
    /// Callers traced at once, of one user where users are told apart. Tracing takes a fraction of a millisecond, so that
    /// more only wait for the processor.
    const fn traced(self) -> usize {
        match self {
            Self::Own => 64,
            Self::Known | Self::Grouped | Self::Agents | Self::Strangers => 2,
        }
    }
}

/// Finds out where a calling process belongs; `None` if that cannot be told. May block.
#[derive(Clone)]
pub(crate) struct FindOrigin {
    find: Arc<OriginOf>,
    /// What is stuck in the kernel is not given up, and must not become ever more: threads by effort, line and user.
    threads: Queues<(Effort, Line, u32), Semaphore>,
    /// By process.
    turns: Queues<i32, Turn>,
}

/// Where the connections of one process wait: it is traced for one at a time, so that whoever has a thousand waits for
/// itself.
#[derive(Debug)]
pub(super) struct Turn {
    pid: i32,
    one: Semaphore,
    looked: OnceLock<Look>,
}

/// What a short look says of a process. It says with whom it waits, and of no right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It descends from the worker of this instance.
    Inside(Name),
    /// It may be an agent.
    Agent,
    /// It is none.
    Person,
}

impl Turn {
    fn new(pid: i32) -> Self {
        Self { pid, one: Semaphore::new(1), looked: OnceLock::new() }
    }

    /// Once for all that the process has. `of` says it of a process if it is a worker; what a worker has left behind may
    /// be an agent, too, if it `could_be_left`, which takes long to see of who is in thousands of groups.
    pub(super) fn look(&self, of: impl Fn(i32) -> Option<Look>, could_be_left: bool) -> &Look {
        self.looked.get_or_init(|| match nearest(self.pid, of) {
            Ok(Some(look)) => look,
            Ok(None) if could_be_left && is_walled(self.pid) != Some(false) => Look::Agent,
            Ok(None) => Look::Person,
            Err(Costly) => Look::Agent,
        })
    }
}

/// As long as somebody waits there.
type Queues<By, Queue> = Arc<Mutex<HashMap<By, Weak<Queue>>>>;

/// Fewer are kept though nobody waits there any more. Of more those are let go each time that there is no room left: to
/// go through all takes long if each of a thousand callers does.
const FORGET_AT: usize = 256;

/// The one that is known by this, or a new one.
fn queue<By: Eq + Hash, Queue>(
    queues: &Queues<By, Queue>,
    by: By,
    new: impl FnOnce() -> Queue,
) -> Arc<Queue> {
    let mut all = queues.lock().unwrap_or_else(PoisonError::into_inner);
    let known = all.get(&by).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        let queue = Arc::new(new());
        if all.len() >= FORGET_AT && all.len() == all.capacity() {
            all.retain(|_, other| other.strong_count() > 0);
        }
        all.insert(by, Arc::downgrade(&queue));
        queue
    })
}

/// From a process to where it belongs.
pub(crate) type OriginOf = dyn Fn(&Process, Effort) -> Result<Option<Origin>, Costly> + Send + Sync;

impl fmt::Debug for FindOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FindOrigin")
    }
}

impl FindOrigin {
    pub(crate) fn new(
        find: impl Fn(&Process, Effort) -> Result<Option<Origin>, Costly> + Send + Sync + 'static,
    ) -> Self {
        Self { find: Arc::new(find), threads: Arc::default(), turns: Arc::default() }
    }

    /// The threads for callers of this user, group or crowd, in this line: they keep only themselves waiting.
    fn threads(&self, effort: Effort, line: Line, number: u32) -> Arc<Semaphore> {
        let number = match line {
            Line::Own => 0,
            Line::Known | Line::Grouped | Line::Agents | Line::Strangers => number,
        };
        queue(&self.threads, (effort, line, number), || Semaphore::new(line.traced()))
    }

    /// Those for strangers, all together: an agent of root's can be any of them.
    fn strangers(&self, effort: Effort) -> Arc<Semaphore> {
        queue(&self.threads, (effort, Line::Strangers, u32::MAX), || Semaphore::new(STRANGERS))
    }

    /// Where the connections of this process wait, for as long as somebody has it.
    pub(super) fn turn(&self, pid: i32) -> Arc<Turn> {
        queue(&self.turns, pid, || Turn::new(pid))
    }

    /// Where the process belongs that has just connected. It is held by a descriptor while it is traced, where the
    /// kernel has that (Linux 6.5), so that nobody else is taken for it. On older kernels its number could only be
    /// another's if all numbers had been used between its connecting and this.
    /// Who is soon traced waits for nobody who is not; that it is not, `slow` is told.
    pub(super) async fn of(
        &self,
        stream: &UnixStream,
        turn: &Turn,
        (line, number): (Line, u32),
        slow: impl Fn(),
    ) -> Option<Origin> {
        let process = Process { pid: turn.pid, pidfd: getsockopt(stream, PeerPidfd).ok() };
        let traced = async {
            let _one = turn.one.acquire().await.ok()?;
            self.traced(process, (line, number), slow).await
        };
        time::timeout(PATIENCE, traced).await.ok()?
    }

    async fn traced(&self, process: Process, line: (Line, u32), slow: impl Fn()) -> Option<Origin> {
        let process = Arc::new(process);
        match self.trace(&process, line, Effort::Little).await? {
            Ok(origin) => origin,
            Err(Costly) => {
                slow();
                self.trace(&process, line, Effort::All).await?.ok().flatten()
            }
        }
    }

    /// On a thread of its own: those for file work may all be waiting for a disk.
    async fn trace(
        &self,
        process: &Arc<Process>,
        (line, number): (Line, u32),
        effort: Effort,
    ) -> Option<Result<Option<Origin>, Costly>> {
        let permit = self.threads(effort, line, number).acquire_owned().await.ok()?;
        let of_all = match line {
            Line::Strangers => Some(self.strangers(effort).acquire_owned().await.ok()?),
            Line::Own | Line::Known | Line::Grouped | Line::Agents => None,
        };
        let (answer, origin) = oneshot::channel();
        let (find, process) = (Arc::clone(&self.find), Arc::clone(process));
        let trace = move || {
            // Whoever has waited too long has gone.
            let _ = answer.send(find(&process, effort));
            drop((permit, of_all));
        };
        thread::Builder::new().name("tracer".into()).spawn(trace).ok()?;
        origin.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn who_is_hard_to_trace_keeps_no_operator_waiting() {
        const STRANGERS: usize = Line::Strangers.traced();
        let (stuck, done) = (Arc::new(Barrier::new(STRANGERS + 1)), Arc::new(Semaphore::new(0)));
        let (held, told) = (Arc::clone(&stuck), Arc::clone(&done));
        let origins = FindOrigin::new(move |process, _| {
            told.add_permits(1);
            held.wait();
            Ok((process.pid != 0).then_some(Origin::Outside))
        });
        let stranger = |pid| origins.traced(Process { pid, pidfd: None }, (Line::Strangers, 1), || ());
        let (mine, _other) = UnixStream::pair().unwrap();
        let turn = origins.turn(1);
        // As many as there are threads for them, and more behind those.
        let strangers = futures_util::future::join_all((1_i32..).take(STRANGERS).map(stranger));
        tokio::pin!(strangers);
        let begun = async { done.acquire_many(u32::try_from(STRANGERS).unwrap()).await.unwrap().forget() };
        tokio::select! {
            _ = &mut strangers => panic!("they are stuck"),
            () = begun => {}
        }
        // One more of them waits for a thread, and an operator does not: it is looked at, and lets all go.
        tokio::select! {
            biased;
            _ = stranger(i32::MAX) => panic!("there is no thread for it"),
            operator = origins.of(&mine, &turn, (Line::Own, 0), || ()) => assert_eq!(operator, Some(Origin::Outside)),
        }
        assert!(strangers.await.into_iter().all(|origin| origin == Some(Origin::Outside)));
    }

    #[tokio::test]
    async fn each_user_keeps_only_itself_waiting() {
        let origins = FindOrigin::new(|_, _| Ok(None));
        let of = |line, uid| origins.threads(Effort::Little, line, uid);
        let (viewer, operator) = (of(Line::Known, 1), of(Line::Known, 2));
        let all = viewer.available_permits();
        let _held = viewer.try_acquire_many(u32::try_from(all).unwrap()).unwrap();
        assert_eq!((of(Line::Known, 1).available_permits(), operator.available_permits()), (0, all));
        assert!(!Arc::ptr_eq(&of(Line::Strangers, 1), &of(Line::Strangers, 2)));
        assert!(Arc::ptr_eq(&of(Line::Own, 0), &of(Line::Own, 1)), "root and its own user are one");
    }

    #[tokio::test]
    async fn who_is_soon_traced_waits_for_nobody_of_its_line_who_is_not() {
        const SLOW: usize = Line::Agents.traced();
        const QUICK: i32 = i32::MAX;
        let (stuck, done) = (Arc::new(Barrier::new(SLOW + 1)), Arc::new(Semaphore::new(0)));
        let (held, told) = (Arc::clone(&stuck), Arc::clone(&done));
        let origins = FindOrigin::new(move |process, effort| match effort {
            Effort::Little if process.pid == QUICK => Ok(Some(Origin::Outside)),
            Effort::Little => Err(Costly),
            Effort::All => {
                told.add_permits(1);
                held.wait();
                Ok(None)
            }
        });
        let asked = |pid| origins.traced(Process { pid, pidfd: None }, (Line::Agents, 1), || ());
        let slow = futures_util::future::join_all((1_i32..).take(SLOW).map(asked));
        tokio::pin!(slow);
        let begun = async { done.acquire_many(u32::try_from(SLOW).unwrap()).await.unwrap().forget() };
        tokio::select! {
            _ = &mut slow => panic!("they are stuck"),
            () = begun => {}
        }
        assert_eq!(asked(QUICK).await, Some(Origin::Outside));
        stuck.wait();
        assert_eq!(slow.await, [const { None }; SLOW]);
    }

    #[tokio::test]
    async fn who_has_a_thousand_connections_waits_for_itself_and_is_no_crowd() {
        const CROWD: usize = 1_000;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let origins = FindOrigin::new(move |process, _| {
            told.lock().unwrap().push(process.pid);
            Ok(Some(Origin::Outside))
        });
        let (mine, _other) = UnixStream::pair().unwrap();
        let asked = async |pid| origins.of(&mine, &origins.turn(pid), (Line::Agents, 1), || ()).await;
        // The last one comes last, and is not the last one to be traced.
        let pids = (0..CROWD).map(|_| 1).chain([2]);
        let all = futures_util::future::join_all(pids.map(asked)).await;
        assert!(all.iter().all(Option::is_some));
        let behind = seen.lock().unwrap().iter().rev().position(|pid| *pid == 2).unwrap();
        assert!(behind > CROWD / 2, "{behind} of the others came after it");
    }
}
