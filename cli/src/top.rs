//! The fleet on a full screen: [`state`] says what is seen and what keys do, [`feed`] brings the news, [`draw`] and
//! [`table`] show it, and [`terminal`] with its [`output`] is the only one that touches the terminal. This is the loop
//! between them.

mod act;
mod draw;
mod feed;
mod fleet;
mod keys;
mod look;
mod output;
mod page;
mod pager;
mod state;
mod table;
mod terminal;

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::LocalSet,
    time::{Instant, sleep_until},
};

pub(crate) use self::{
    feed::Feed,
    fleet::Fleet,
    look::Look,
    page::Subject,
    state::{Looking, News},
    terminal::is_there,
};
use self::{
    state::{Effect, Model},
    terminal::{Keys, Listening, Screen, Told},
};
use crate::{
    connect::Supervisor,
    error::{Cause, Error, Operation},
};

/// Frames are this far apart at least: nobody reads faster.
const FRAME: Duration = Duration::from_millis(100);
/// Times on the screen go on this often.
const SECOND: Duration = Duration::from_secs(1);

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Leave,
}

/// The screen, what is on it, and where its news come from.
struct Session {
    screen: Screen,
    model: Model,
    feed: Feed,
    /// The last frame.
    drawn: Instant,
    /// Something has changed since.
    changed: bool,
}

/// Shows the fleet until somebody leaves.
pub(crate) async fn run(supervisor: Supervisor, look: Look, operation: &Operation) -> Result<(), Error> {
    LocalSet::new().run_until(show(supervisor, look, operation)).await
}

async fn show(supervisor: Supervisor, look: Look, operation: &Operation) -> Result<(), Error> {
    let fail = |error| Cause::Output(error).during(operation);
    // Before the screen: whatever comes from now on leaves it behind clean.
    let mut listening = Listening::new().map_err(fail)?;
    let (feed, mut news) = Feed::begin(supervisor);
    let screen = Screen::enter(look.colored).map_err(fail)?;
    let mut keys = Keys::new();
    let model = Model::new(look);
    let mut session = Session { screen, model, feed, drawn: Instant::now(), changed: true };
    session.draw().map_err(fail)?;
    loop {
        session.feed.look(session.model.looking());
        let then = tokio::select! {
            biased;
            told = listening.next() => session.hear(told).map_err(fail)?,
            pressed = keys.next() => match pressed {
                Some(keys) => session.press(&keys).map_err(fail)?,
                // There is nobody left to show anything.
                None => Then::Leave,
            },
            () = sleep_until(session.due()) => {
                session.draw().map_err(fail)?;
                Then::GoOn
            }
            Some(first) = news.recv() => {
                session.take(first, &mut news)?;
                Then::GoOn
            }
        };
        if then == Then::Leave {
            return Ok(());
        }
    }
}

impl Session {
    /// When the next frame is to be drawn.
    fn due(&self) -> Instant {
        self.drawn + if self.changed { FRAME } else { SECOND }
    }

    fn draw(&mut self) -> std::io::Result<()> {
        // What a stalled terminal has not taken is drawn when it takes more.
        self.changed = !self.screen.draw(&mut self.model)?;
        self.drawn = Instant::now();
        Ok(())
    }

    fn hear(&mut self, told: Told) -> std::io::Result<Then> {
        match told {
            Told::Leave => return Ok(Then::Leave),
            Told::Resized => {}
            Told::Continued => self.screen.reenter()?,
        }
        self.changed = true;
        Ok(Then::GoOn)
    }

    fn press(&mut self, keys: &[keys::Key]) -> std::io::Result<Then> {
        self.changed = true;
        for key in keys {
            match self.model.key(key) {
                None => {}
                Some(Effect::Leave) => return Ok(Then::Leave),
                Some(Effect::Suspend) => self.screen.suspend()?,
                Some(Effect::Redraw) => self.screen.forget()?,
                Some(Effect::Follow(page, subject)) => self.feed.follow(page, subject),
                Some(Effect::Unfollow) => self.feed.unfollow(),
                Some(Effect::Act(verb, name)) => self.feed.act(verb, name),
            }
        }
        Ok(Then::GoOn)
    }

    /// Takes in all the news there are.
    fn take(&mut self, first: News, news: &mut mpsc::Receiver<News>) -> Result<(), Error> {
        self.changed = true;
        let mut next = Some(first);
        while let Some(each) = next {
            self.model.take(each)?;
            next = news.try_recv().ok();
        }
        Ok(())
    }
}
