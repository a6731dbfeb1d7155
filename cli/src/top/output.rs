//! Writes to the terminal from a thread of its own: one that has stalled, as over a line that is gone, holds up that
//! thread and neither keys, signals nor the supervisor.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What is to be written, for who writes it and who waits for that. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A frame, and what enters and leaves the screen: the next frame is made when this one has been written.
    pending: Vec<u8>,
    /// What the thread is writing now is not yet written.
    writing: bool,
    /// Nothing can be written any more.
    failed: Option<io::ErrorKind>,
}

impl Output {
    /// To standard output, for instance.
    pub(super) fn to(terminal: impl Write + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let writer = output.clone();
        thread::spawn(move || writer.write_on(terminal));
        output
    }

    /// Whether all has been written. An error, if nothing can be any more.
    pub(super) fn is_idle(&self) -> io::Result<bool> {
        let state = self.lock();
        match state.failed {
            Some(kind) => Err(kind.into()),
            None => Ok(state.is_idle()),
        }
    }

    /// Waits until all has been written, at most so long. Whether it has.
    pub(super) fn settle(&self, within: Duration) -> bool {
        let busy = |state: &mut State| !state.is_idle() && state.failed.is_none();
        let waited = self.0.changed.wait_timeout_while(self.lock(), within, busy);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_idle() && state.failed.is_none()
    }

    /// Writes for as long as the program runs, or until nothing can be written any more.
    fn write_on(&self, mut terminal: impl Write) {
        loop {
            let nothing = |state: &mut State| state.pending.is_empty();
            let waited = self.0.changed.wait_while(self.lock(), nothing);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let bytes = std::mem::take(&mut state.pending);
            state.writing = true;
            drop(state);
            let written = terminal.write_all(&bytes).and_then(|()| terminal.flush());
            let mut state = self.lock();
            state.writing = false;
            state.failed = written.err().map(|error| error.kind());
            let goes_on = state.failed.is_none();
            drop(state);
            self.0.changed.notify_all();
            if !goes_on {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.writing
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().pending.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.changed.notify_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes what is written when it is told to, and hands it on.
    struct Stalling {
        go: Receiver<io::Result<()>>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Stalling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().unwrap()?;
            self.taken.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_takes_nothing_holds_up_nobody() {
        let (let_go, go) = channel();
        let (taken, took) = channel();
        let mut output = Output::to(Stalling { go, taken });
        assert!(output.is_idle().unwrap() && output.settle(Duration::ZERO));
        write!(output, "one ")
            .and_then(|()| output.write_all(b"frame"))
            .and_then(|()| output.flush())
            .unwrap();
        assert!(!output.is_idle().unwrap());
        assert!(!output.settle(Duration::from_millis(1)));
        for _ in 0..2 {
            let_go.send(Ok(())).unwrap();
        }
        assert!(output.settle(Duration::from_secs(60)));
        assert_eq!(took.try_iter().flatten().collect::<Vec<_>>(), b"one frame");
        // It hangs up; one go may be left from above, if all was taken at once.
        drop(let_go.send(Err(io::ErrorKind::BrokenPipe.into())));
        while let Ok(idle) = output.is_idle() {
            if idle {
                output.write_all(b"more").and_then(|()| output.flush()).unwrap();
            }
            output.settle(Duration::from_secs(60));
        }
        assert!(!output.settle(Duration::from_secs(60)));
    }
}
