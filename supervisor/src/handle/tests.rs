//! On a clock that stands still.

use std::sync::Arc;

use supervisor_core::{action::Done, event::Command, ids::Revision, view::View};
use tokio::{sync::watch, task, time::Instant};

use super::*;

fn door() -> (Handle, mpsc::Receiver<Submission>) {
    let (_, view) = watch::channel(Arc::new(View::new(Revision(0))));
    Handle::new(view)
}

fn done() -> Result<Done, Denied> {
    Ok(Done { revision: Revision(1), created: false })
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_callers_waits_for_the_driver() {
    let (handle, mut inbox) = door();
    let callers: Vec<_> = (0..3 * COMMANDS)
        .map(|_| {
            let handle = handle.clone();
            task::spawn(async move { handle.submit(Command::Halt).await.is_ok() })
        })
        .collect();
    for _ in &callers {
        inbox.recv().await.unwrap().2.send(done()).unwrap();
    }
    for caller in callers {
        assert!(caller.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_waited_for_long_is_refused() {
    let (handle, _inbox) = door();
    for _ in 0..COMMANDS {
        let handle = handle.clone();
        task::spawn(async move { handle.submit(Command::Halt).await });
    }
    while handle.commands.capacity() > 0 {
        task::yield_now().await;
    }
    let began = Instant::now();
    assert!(matches!(handle.submit(Command::Halt).await, Err(SubmitError::Overloaded)));
    assert!(began.elapsed() >= PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_has_ended_is_said_to_whoever_asks_and_whoever_waits() {
    let (handle, mut inbox) = door();
    let waiting = task::spawn({
        let handle = handle.clone();
        async move { handle.submit(Command::Halt).await }
    });
    drop(inbox.recv().await.unwrap());
    assert!(matches!(waiting.await.unwrap(), Err(SubmitError::Gone)));
    drop(inbox);
    assert!(matches!(handle.submit(Command::Halt).await, Err(SubmitError::Gone)));
}
