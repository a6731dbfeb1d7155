//! What is on the screen and what keys do there: keys and news in, effects out. No clock, no terminal, no supervisor.

use prost_types::Timestamp;
use supervisor_proto::v1::{Event, Instance, LogLine, Role, WatchInstancesResponse};

use super::{
    fleet::Fleet,
    keys::Key,
    look::Look,
    page::{Page, Subject},
    pager::{Manner, Move, Pager, Size},
};
use crate::{error::Error, view};

/// From so many instances on figures are asked for less often.
const MANY: usize = 200;
/// The longest name there is, and so the longest filter that means anything.
const LONGEST_NAME: usize = 40;
/// Wishes under way at once. Each is watched until it has come to its outcome.
const MOST_WISHES: usize = 16;

// Keys without a letter, as ASCII has them.
const ENTER: char = '\r';
const ESC: char = '\u{1b}';
const BACKSPACE: char = '\u{8}';

/// What can be wished for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Restart,
    Stop,
    Start,
    FailOver,
    FailBack,
}

impl Verb {
    /// In an order to somebody: "restart", "fail over".
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::FailOver => "fail over",
            Self::FailBack => "fail back",
        }
    }
}

/// What has to be done outside of here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Leave,
    /// To the shell, and back when it says so.
    Suspend,
    /// All of the screen anew: somebody else has written on it.
    Redraw,
    /// Tells the page of this number about its subject, and no other page.
    Follow(u64, Subject),
    /// No page is told about anything.
    Unfollow,
    Act(Verb, String),
}

/// What has come from outside.
#[derive(Debug)]
pub(crate) enum News {
    Watched(Box<WatchInstancesResponse>),
    /// The watch broke, at this time and for this reason. It is begun anew until it holds.
    Broken(Timestamp, String),
    /// What the processes of these use.
    Figures(Vec<Instance>),
    /// What is wrong with the supervisor itself.
    Alarms(Vec<String>),
    /// For the page of a number: all its events, or further ones.
    Events {
        page: u64,
        events: Vec<Event>,
        all: bool,
    },
    Log {
        page: u64,
        lines: Vec<LogLine>,
    },
    /// Why nothing comes to a page.
    Trouble {
        page: u64,
        why: String,
    },
    /// A wish is recorded, and its outcome waited for.
    Accepted(String),
    /// What came of a wish.
    Outcome(Result<String, String>),
    /// There is nothing more to be had from this supervisor.
    Ended(Error),
}

/// Whether what is shown is what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing has come yet.
    Beginning,
    Fresh,
    /// Since then, for this reason.
    Old(Timestamp, String),
}

/// How something sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
}

/// What the footer asks or says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    None,
    /// A part of names is being typed.
    Filter,
    /// Whether to do this to this one.
    Ask(Verb, String),
}

/// Whose figures are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Looking {
    Nowhere,
    One(String),
    Fleet { many: bool },
}

/// Everything on the screen.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) look: Look,
    pub(crate) fleet: Fleet,
    pub(crate) link: Link,
    pub(crate) alarms: Vec<String>,
    pub(crate) prompt: Prompt,
    pub(crate) notice: Option<(Tone, String)>,
    pub(crate) page: Option<Page>,
    pub(crate) help: Option<Pager>,
    /// The room for the table or the page, as it was drawn last: keys mean what is seen.
    pub(crate) body: Size,
    /// The row that keys act on.
    pub(crate) row: usize,
    /// The first row that is seen.
    pub(crate) first: usize,
    /// Whose row that is; `None` until somebody has chosen: then it is the first, whoever that is.
    chosen: Option<String>,
    pages: u64,
    wishes: usize,
}

impl Model {
    /// Before anything is known.
    pub(crate) fn new(look: Look) -> Self {
        Self {
            look,
            fleet: Fleet::new(),
            link: Link::Beginning,
            alarms: Vec::new(),
            prompt: Prompt::None,
            notice: None,
            page: None,
            help: None,
            body: (0, 0),
            row: 0,
            first: 0,
            chosen: None,
            pages: 0,
            wishes: 0,
        }
    }

    /// Whose figures are needed for what is seen.
    pub(crate) fn looking(&self) -> Looking {
        match self.page.as_ref().map(|page| &page.subject) {
            None => Looking::Fleet { many: self.fleet.len() > MANY },
            Some(Subject::Details(name)) => Looking::One(name.clone()),
            Some(Subject::Events(_) | Subject::Log(_)) => Looking::Nowhere,
        }
    }

    /// Brings what is shown in order and the chosen row into view, before `rows` of it are drawn.
    pub(crate) fn arrange(&mut self, rows: usize) {
        self.fleet.arrange();
        let shown = self.fleet.shown();
        let chosen = self.chosen.as_ref().and_then(|name| shown.iter().position(|each| each == name));
        // One that has gone leaves its place to who comes there.
        self.row = match (chosen, &self.chosen) {
            (Some(row), _) => row,
            (None, Some(_)) => self.row.min(shown.len().saturating_sub(1)),
            (None, None) => 0,
        };
        let last = shown.len().saturating_sub(rows.max(1));
        self.first = self.first.min(last).min(self.row).max((self.row + 1).saturating_sub(rows.max(1)));
    }

    /// The instance of the chosen row.
    pub(crate) fn selected(&self) -> Option<&Instance> {
        self.fleet.get(self.fleet.shown().get(self.row)?)
    }

    /// Takes in what has come. An error ends it all.
    pub(crate) fn take(&mut self, news: News) -> Result<(), Error> {
        match news {
            News::Watched(message) => {
                self.fleet.observe(*message);
                self.link = Link::Fresh;
            }
            News::Broken(at, why) => {
                // It is as old as the first break has made it; the reason may change.
                let since = match &self.link {
                    Link::Old(since, _) => *since,
                    Link::Beginning | Link::Fresh => at,
                };
                self.link = Link::Old(since, why);
            }
            News::Figures(measured) => self.fleet.measure(measured),
            News::Alarms(alarms) => self.alarms = alarms,
            News::Events { page, events, all } => {
                if let Some(page) = self.page_of(page) {
                    page.take_events(events, all);
                }
            }
            News::Log { page, lines } => {
                let look = self.look;
                if let Some(page) = self.page_of(page) {
                    page.take_log(&lines, look);
                }
            }
            News::Trouble { page, why } => {
                if let Some(page) = self.page_of(page) {
                    page.trouble(why);
                }
            }
            News::Accepted(what) => self.notice = Some((Tone::Plain, what)),
            News::Outcome(outcome) => {
                self.wishes = self.wishes.saturating_sub(1);
                self.notice = Some(match outcome {
                    Ok(what) => (Tone::Good, what),
                    Err(what) => (Tone::Bad, what),
                });
            }
            News::Ended(error) => return Err(error),
        }
        Ok(())
    }

    fn page_of(&mut self, number: u64) -> Option<&mut Page> {
        self.page.as_mut().filter(|page| page.number == number)
    }

    /// A key, to what is seen.
    pub(crate) fn key(&mut self, key: &Key) -> Option<Effect> {
        if let Key::Ctrl(letter @ ('c' | 'l' | 'z')) = key {
            return Some(match letter {
                'c' => Effect::Leave,
                'l' => Effect::Redraw,
                _ => Effect::Suspend,
            });
        }
        match std::mem::replace(&mut self.prompt, Prompt::None) {
            Prompt::Ask(verb, name) => return self.answer(key, verb, name),
            Prompt::Filter => {
                self.type_filter(key);
                return None;
            }
            Prompt::None => {}
        }
        self.notice = None;
        if self.help.is_some() {
            self.help_key(key);
            return None;
        }
        match &self.page {
            Some(page) => {
                let subject = page.subject.clone();
                self.page_key(key, &subject)
            }
            None => self.table_key(key),
        }
    }

    fn answer(&mut self, key: &Key, verb: Verb, name: String) -> Option<Effect> {
        if !matches!(key, Key::Char('y' | 'Y')) {
            self.notice = Some((Tone::Plain, "nothing was changed".to_owned()));
            return None;
        }
        if self.wishes == MOST_WISHES {
            let why = format!("{MOST_WISHES} wishes are under way; see first what comes of them");
            self.notice = Some((Tone::Bad, why));
            return None;
        }
        self.wishes += 1;
        self.notice = Some((Tone::Plain, format!("{} {name}: asked", verb.word())));
        Some(Effect::Act(verb, name))
    }

    fn type_filter(&mut self, key: &Key) {
        let mut filter = self.fleet.filter().to_owned();
        match key {
            Key::Enter => return,
            Key::Esc => return self.fleet.filter_by(String::new()),
            Key::Up => self.walk(Move::Up),
            Key::Down => self.walk(Move::Down),
            Key::Backspace => drop(filter.pop()),
            Key::Ctrl('u') => filter.clear(),
            Key::Char(c) => filter.push(*c),
            Key::Pasted(text) => filter.extend(text.chars().filter(|c| !c.is_control())),
            Key::PageUp | Key::PageDown | Key::Home | Key::End | Key::Ctrl(_) => {}
        }
        self.prompt = Prompt::Filter;
        if filter != self.fleet.filter() {
            self.fleet.filter_by(filter.chars().take(LONGEST_NAME).collect());
            self.first = 0;
            self.fleet.arrange();
        }
    }

    fn help_key(&mut self, key: &Key) {
        let body = self.body;
        match (movement(key), &mut self.help) {
            (Some(to), Some(help)) => help.go(to, body),
            (Some(_), None) => {}
            (None, _) => {
                if matches!(sign(key), Some(ESC | ENTER | BACKSPACE | 'q' | '?')) {
                    self.help = None;
                }
            }
        }
    }

    fn page_key(&mut self, key: &Key, subject: &Subject) -> Option<Effect> {
        if let Some(to) = movement(key) {
            let body = self.body;
            self.page.iter_mut().for_each(|page| page.go(to, body));
            return None;
        }
        let name = subject.name().to_owned();
        match sign(key)? {
            ESC | BACKSPACE | 'q' => {
                self.page = None;
                return Some(Effect::Unfollow);
            }
            '?' => self.open_help(),
            other => return self.act_on(name, other, Some(subject)),
        }
        None
    }

    fn table_key(&mut self, key: &Key) -> Option<Effect> {
        if let Some(to) = movement(key) {
            self.walk(to);
            return None;
        }
        match sign(key)? {
            'q' => return Some(Effect::Leave),
            ESC if self.fleet.filter().is_empty() => return Some(Effect::Leave),
            ESC => self.fleet.filter_by(String::new()),
            '?' => self.open_help(),
            '/' => self.prompt = Prompt::Filter,
            side @ ('<' | '>') => {
                let order = self.fleet.order().beside(side == '>');
                self.fleet.order_by(order);
            }
            other => match self.selected().map(|instance| instance.name.clone()) {
                Some(name) => return self.act_on(name, other, None),
                None => self.notice = Some((Tone::Plain, "there is no instance here".to_owned())),
            },
        }
        None
    }

    /// What a key does to an instance, wherever one looks at it.
    fn act_on(&mut self, name: String, sign: char, from: Option<&Subject>) -> Option<Effect> {
        match sign {
            ENTER => self.open(Subject::Details(name), from),
            'e' => self.open(Subject::Events(name), from),
            'l' => self.open(Subject::Log(name), from),
            letter => {
                self.ask(letter, &name);
                None
            }
        }
    }

    /// Chooses another row, of those that are seen.
    fn walk(&mut self, to: Move) {
        let last = self.fleet.shown().len().saturating_sub(1);
        let page = self.body.1.saturating_sub(1).max(1);
        self.row = match to {
            Move::Up => self.row.saturating_sub(1),
            Move::Down => self.row + 1,
            Move::PageUp => self.row.saturating_sub(page),
            Move::PageDown => self.row + page,
            Move::Home => 0,
            Move::End => last,
        }
        .min(last);
        self.chosen = self.fleet.shown().get(self.row).cloned();
    }

    fn open(&mut self, subject: Subject, from: Option<&Subject>) -> Option<Effect> {
        if from == Some(&subject) {
            return None;
        }
        // Coming back, one finds the row that one has left.
        self.chosen = Some(subject.name().to_owned());
        self.pages += 1;
        self.page = Some(Page::new(self.pages, subject.clone()));
        Some(Effect::Follow(self.pages, subject))
    }

    fn open_help(&mut self) {
        let mut help = Pager::new(Manner::Stay);
        super::draw::help(self.look).into_iter().for_each(|line| help.push(line));
        self.help = Some(help);
    }

    /// Asks whether to do what the letter stands for, if it stands for anything.
    fn ask(&mut self, letter: char, name: &str) {
        let ask = |verb| Prompt::Ask(verb, name.to_owned());
        self.prompt = match letter {
            'r' => ask(Verb::Restart),
            's' => ask(Verb::Stop),
            'u' => ask(Verb::Start),
            'f' => match self.fleet.get(name).map(place_of) {
                Some(Ok((verb, primary))) => Prompt::Ask(verb, primary),
                Some(Err(why)) => {
                    self.notice = Some((Tone::Bad, why));
                    Prompt::None
                }
                None => Prompt::None,
            },
            _ => Prompt::None,
        };
        if self.prompt != Prompt::None {
            self.chosen = Some(name.to_owned());
        }
    }
}

/// What failing over or back means on this row: to which primary, and which way. Whether it can be done is the
/// supervisor's to say.
fn place_of(instance: &Instance) -> Result<(Verb, String), String> {
    let failover = view::failover(instance);
    let rescues = instance.spec.as_ref().map(|spec| spec.rescues.as_slice()).unwrap_or_default();
    let only = |verb, primaries: &[String]| match primaries {
        [primary] => Ok((verb, primary.clone())),
        _ => Err(format!("{} has several primaries; choose the row of one", instance.name)),
    };
    match failover.role() {
        Role::Rescued => Ok((Verb::FailBack, instance.name.clone())),
        Role::Active | Role::Promoting => only(Verb::FailBack, &failover.active_for),
        Role::Standby => only(Verb::FailOver, rescues),
        Role::Primary | Role::Single | Role::Unspecified => Ok((Verb::FailOver, instance.name.clone())),
    }
}

/// A key by one sign, if it has one.
fn sign(key: &Key) -> Option<char> {
    match key {
        Key::Char(c) => Some(*c),
        Key::Enter => Some(ENTER),
        Key::Esc => Some(ESC),
        Key::Backspace => Some(BACKSPACE),
        Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => None,
        Key::Ctrl(_) | Key::Pasted(_) => None,
    }
}

/// Where a key goes, if it goes anywhere.
fn movement(key: &Key) -> Option<Move> {
    match key {
        Key::Up | Key::Char('k') => Some(Move::Up),
        Key::Down | Key::Char('j') => Some(Move::Down),
        Key::PageUp => Some(Move::PageUp),
        Key::PageDown | Key::Char(' ') => Some(Move::PageDown),
        Key::Home | Key::Char('g') => Some(Move::Home),
        Key::End | Key::Char('G') => Some(Move::End),
        Key::Enter | Key::Esc | Key::Backspace | Key::Char(_) | Key::Ctrl(_) | Key::Pasted(_) => None,
    }
}

#[cfg(test)]
mod tests;
