//! The terminal while the screen is on, and how it is left as it was found.
//!
//! Whatever ends the program, [`leave`] comes before: when the screen is dropped, and in a panic. It is done once.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
    panic,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, raise},
    unistd,
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{DisableBracketedPaste, EnableBracketedPaste},
        execute,
        style::{ResetColor, force_color_output},
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    draw,
    keys::{Decoder, Key},
    output::Output,
    state::Model,
};

/// Of what was pressed or pasted, read at once.
const READ_BYTES: usize = 1_024;
/// Such reads that nobody has looked at yet.
const KEYS_BACKLOG: usize = 8;
/// What follows an ESC within this belongs to it.
const ESCAPE_PAUSE: Duration = Duration::from_millis(50);
/// A terminal that takes nothing for so long is not told goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// What is written to the terminal, while that is not as it was found.
static ENTERED: Mutex<Option<Output>> = Mutex::new(None);

/// Whether there is a terminal to draw on and to read keys from.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn entered() -> MutexGuard<'static, Option<Output>> {
    ENTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enter(output: &Output) -> io::Result<()> {
    *entered() = Some(output.clone());
    enable_raw_mode()?;
    execute!(output.clone(), EnterAlternateScreen, EnableBracketedPaste, Hide)
}

/// Leaves the terminal as it was found. What fails here, nobody could be told.
fn leave() {
    let Some(mut output) = entered().take() else { return };
    if output.settle(GOODBYE) {
        let _ = execute!(output, ResetColor, DisableBracketedPaste, LeaveAlternateScreen, Show);
        output.settle(GOODBYE);
    }
    let _ = disable_raw_mode();
}

/// The screen. Dropping it leaves the terminal as it was found.
pub(crate) struct Screen {
    output: Output,
    terminal: Terminal<CrosstermBackend<Output>>,
}

impl Screen {
    /// Takes the terminal. With colours, if there are to be any, whatever crossterm finds in the environment.
    pub(crate) fn enter(colored: bool) -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        force_color_output(colored);
        let output = Output::to(io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(output.clone()))?;
        let screen = Self { output, terminal };
        enter(&screen.output)?;
        Ok(screen)
    }

    /// Draws what has changed. Whether that was possible: the terminal may not have taken the last frame yet.
    pub(crate) fn draw(&mut self, model: &mut Model) -> io::Result<bool> {
        if !self.output.is_idle()? {
            return Ok(false);
        }
        self.terminal.draw(|frame| {
            let cursor = draw::draw(model, frame.buffer_mut());
            if let Some(position) = cursor {
                frame.set_cursor_position(position);
            }
        })?;
        Ok(true)
    }

    /// Forgets what is on the screen: the next frame draws all of it.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Takes the terminal again, after somebody else has had it.
    pub(crate) fn reenter(&mut self) -> io::Result<()> {
        let _ = disable_raw_mode();
        enter(&self.output)?;
        self.forget()
    }

    /// Gives the terminal to the shell until that lets this program go on.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        leave();
        raise(Signal::SIGTSTP)?;
        self.reenter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Keys as they are pressed.
pub(crate) struct Keys {
    read: mpsc::Receiver<Vec<u8>>,
    decoder: Decoder,
    /// When a key that may go on was begun.
    since: Option<Instant>,
}

impl Keys {
    /// Of standard input, which a thread waits at: it is the shell's as well, and has to stay blocking.
    pub(crate) fn new() -> Self {
        let (pressed, read) = mpsc::channel(KEYS_BACKLOG);
        thread::spawn(move || {
            let (stdin, mut bytes) = (io::stdin(), [0; READ_BYTES]);
            loop {
                // Somebody else may have made it one that does not block.
                let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::NONE);
                match unistd::read(&stdin, &mut bytes) {
                    // It has hung up.
                    Ok(0) => return,
                    Ok(count) if pressed.blocking_send(bytes[..count].to_vec()).is_err() => return,
                    Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Err(_) => return,
                }
            }
        });
        Self { read, decoder: Decoder::default(), since: None }
    }

    /// The next ones; `None` when there is no terminal any more. Dropped, it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Vec<Key>> {
        loop {
            let read = match self.since {
                None => self.read.recv().await,
                Some(since) => match timeout_at(since + ESCAPE_PAUSE, self.read.recv()).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.since = None;
                        return Some(self.decoder.give_up().into_iter().collect());
                    }
                },
            };
            let keys = self.decoder.feed(&read?);
            self.since = self.decoder.is_waiting().then(Instant::now);
            if !keys.is_empty() {
                return Some(keys);
            }
        }
    }
}

/// What the system says to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To end.
    Leave,
    /// The terminal has another size.
    Resized,
    /// It was stopped, and goes on.
    Continued,
}

/// The signals that mean something here.
pub(crate) struct Listening {
    interrupt: Signals,
    terminate: Signals,
    hang_up: Signals,
    resized: Signals,
    continued: Signals,
}

impl Listening {
    /// From now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            resized: signal(SignalKind::window_change())?,
            continued: signal(SignalKind::from_raw(Signal::SIGCONT as i32))?,
        })
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Leave,
            _ = self.terminate.recv() => Told::Leave,
            _ = self.hang_up.recv() => Told::Leave,
            _ = self.resized.recv() => Told::Resized,
            _ = self.continued.recv() => Told::Continued,
        }
    }
}
