//! `openclawctl status --watch`: what is, for as long as somebody looks.
//!
//! On a terminal the same lines are written again; elsewhere a new table comes when something has changed, and for
//! programs the instance that has.

use std::{collections::BTreeMap, time::Duration};

use prost_types::Timestamp;
use supervisor_proto::v1::{Event, Instance, watch_instances_response::Change};
use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    sync::mpsc,
    task::LocalSet,
    time::{Instant, sleep_until},
};

use crate::{
    connect::Supervisor,
    context::{Context, Show},
    error::{Cause, Error, Operation},
    render::{
        detail::{self, Story},
        fleet::{self, Look},
        json::{Encoder, Encoding},
        picture::Canvas,
        status::Breadth,
        style::{FAINT, clause, paint, printable, stdout_width, talk},
        time::{Clock, ago, now},
        trend::Trend,
    },
    top::{Feed, Fleet, Looking, News, Subject},
};

/// Pictures are this far apart at least, so that a storm of changes is one.
const FRAME: Duration = Duration::from_millis(100);
/// Times go on this often.
const SECOND: Duration = Duration::from_secs(1);
/// From so many instances on figures are asked for less often.
const MANY: usize = 200;
/// Events of one instance that are remembered.
const EVENTS: usize = 50;
/// The only page that the feed tells about.
const PAGE: u64 = 1;

/// What is known, and whom it is about.
struct Watch<'a> {
    context: &'a Context,
    /// Empty: all.
    names: &'a [String],
    fleet: Fleet,
    alarms: Vec<String>,
    /// Since when nothing comes, and why, if nothing does.
    away: Option<(Timestamp, String)>,
    events: Vec<Event>,
    trend: Trend,
    /// The life that the trend is about.
    life: u64,
}

/// Where it is shown.
enum Out {
    Canvas(Canvas, Breadth),
    /// What was printed last.
    Tables(Option<Shown>, Breadth),
    Programs(Encoder, BTreeMap<String, Instance>),
}

/// What has to differ for a new table: all but figures and the running time.
type Shown = (Vec<Instance>, Vec<String>);

/// Shows instances, all if none is named, until somebody presses Ctrl-C.
pub(super) async fn run(
    names: &[String],
    supervisor: Supervisor,
    context: &Context,
    operation: &Operation,
) -> Result<(), Error> {
    let out = match (context.show, Canvas::on_stdout()) {
        (Show::Text(breadth), Some(canvas)) => Out::Canvas(canvas, breadth),
        (Show::Text(breadth), None) => Out::Tables(None, breadth),
        (Show::Encoded(encoding), _) => {
            // One object a line: indented ones could not be told apart.
            let encoding = if encoding == Encoding::Json { Encoding::JsonLines } else { encoding };
            let encoder = Encoder::new(encoding).map_err(|cause| cause.during(operation))?;
            Out::Programs(encoder, BTreeMap::new())
        }
    };
    let watch = Watch {
        context,
        names,
        fleet: Fleet::new(),
        alarms: Vec::new(),
        away: None,
        events: Vec::new(),
        trend: Trend::default(),
        life: 0,
    };
    LocalSet::new().run_until(watch.show(supervisor, out, operation)).await
}

impl Watch<'_> {
    async fn show(
        mut self,
        supervisor: Supervisor,
        mut out: Out,
        operation: &Operation,
    ) -> Result<(), Error> {
        let failed = |source| Cause::Output(source).during(operation);
        let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
        let mut ended = std::pin::pin!(ctrl_c());
        let (mut feed, mut news) = Feed::begin(supervisor);
        if let [name] = self.names {
            feed.follow(PAGE, Subject::Details(name.clone()));
        }
        let (mut shown_at, mut changed) = (Instant::now(), false);
        loop {
            feed.look(self.looking(&out));
            let due = shown_at + if changed { FRAME } else { SECOND };
            tokio::select! {
                biased;
                _ = &mut ended => return Ok(()),
                _ = resized.recv() => {}
                () = sleep_until(due) => {}
                Some(first) = news.recv() => {
                    self.take(first, &mut news, &mut out, operation)?;
                    changed = true;
                    continue;
                }
            }
            if self.fleet.is_known() {
                self.tell(&mut out, operation)?;
            }
            (shown_at, changed) = (Instant::now(), false);
        }
    }

    /// Whose figures are needed: those that are seen to change.
    fn looking(&self, out: &Out) -> Looking {
        match (out, self.names) {
            (Out::Programs(..), _) => Looking::Nowhere,
            // For alarms.
            (Out::Tables(..), _) => Looking::Fleet { many: true },
            (Out::Canvas(..), [name]) => Looking::One(name.clone()),
            (Out::Canvas(..), _) => Looking::Fleet { many: self.fleet.len() >= MANY },
        }
    }

    /// Takes in all the news there are. Programs are told each change at once.
    fn take(
        &mut self,
        first: News,
        news: &mut mpsc::Receiver<News>,
        out: &mut Out,
        operation: &Operation,
    ) -> Result<(), Error> {
        let mut next = Some(first);
        while let Some(each) = next {
            let watched = matches!(each, News::Watched(_));
            let gone = self.learn(each)?;
            if let (true, Out::Programs(encoder, told)) = (watched, &mut *out) {
                self.tell_programs(encoder, told, gone.as_ref(), operation)?;
            }
            next = news.try_recv().ok();
        }
        Ok(())
    }

    /// Takes in one. The name of one that was deleted.
    fn learn(&mut self, news: News) -> Result<Option<String>, Error> {
        match news {
            News::Watched(message) => {
                if self.away.take().is_some() {
                    self.mention("the supervisor is back");
                }
                let gone = match &message.change {
                    Some(Change::Deleted(name)) => Some(name.clone()),
                    Some(Change::Snapshot(_) | Change::Changed(_) | Change::Bookmark(_)) | None => None,
                };
                self.fleet.observe(*message);
                return Ok(gone);
            }
            News::Broken(since, why) => {
                // It breaks again with each attempt: it has been away since the first.
                if self.away.is_none() {
                    self.mention("the supervisor is gone; waiting for it to come back");
                    self.away = Some((since, why));
                }
            }
            News::Figures(measured) => {
                self.fleet.measure(measured);
                self.remember();
            }
            News::Alarms(alarms) => self.alarms = alarms,
            News::Events { events, all, .. } => {
                if all {
                    self.events.clear();
                }
                self.events.extend(events);
                let over = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..over);
            }
            News::Ended(error) => return Err(error),
            News::Log { .. } | News::Trouble { .. } | News::Accepted(_) | News::Outcome(_) => {}
        }
        Ok(None)
    }

    /// Says so beside the output, where that is not a picture.
    fn mention(&self, what: &str) {
        if !self.on_terminal() {
            talk(what);
        }
    }

    fn on_terminal(&self) -> bool {
        stdout_width().is_some() && matches!(self.context.show, Show::Text(_))
    }

    /// What the one instance uses goes on its trend.
    fn remember(&mut self) {
        let [name] = self.names else { return };
        let Some(status) = self.fleet.get(name).and_then(|known| known.status.as_ref()) else { return };
        if status.incarnation != self.life {
            self.life = status.incarnation;
            self.trend.forget();
        }
        if let Some(used) = &status.resources {
            self.trend.take(used);
        }
    }

    /// Those that were asked for.
    fn instances(&self) -> Vec<Instance> {
        let wanted = |instance: &&Instance| self.names.is_empty() || self.names.contains(&instance.name);
        self.fleet.all().filter(wanted).cloned().collect()
    }

    fn tell(&mut self, out: &mut Out, operation: &Operation) -> Result<(), Error> {
        let failed = |source| Cause::Output(source).during(operation);
        match out {
            Out::Programs(..) => Ok(()),
            Out::Canvas(canvas, breadth) => {
                let end = format!("{}  Ctrl-C ends the watch", Clock::local().time(&now()));
                let picture = format!("{}{}\n", self.picture(*breadth), paint(FAINT, &end));
                canvas.draw(&picture).map_err(failed)
            }
            Out::Tables(last, breadth) => {
                let mut instances = self.instances();
                for status in instances.iter_mut().filter_map(|instance| instance.status.as_mut()) {
                    status.resources = None;
                }
                let shown = Some((instances, self.alarms.clone()));
                if *last == shown {
                    return Ok(());
                }
                let gap = if last.is_some() { "\n" } else { "" };
                let time = Clock::local().time(&now());
                let text = format!("{gap}{}\n{}", paint(FAINT, &time), self.picture(*breadth));
                *last = shown;
                self.context.print(operation, &text)
            }
        }
    }

    /// One line for each instance that has changed. One that is gone has nothing but its name.
    fn tell_programs(
        &self,
        encoder: &Encoder,
        told: &mut BTreeMap<String, Instance>,
        gone: Option<&String>,
        operation: &Operation,
    ) -> Result<(), Error> {
        let known = self.instances();
        let here = |name: &String| known.iter().any(|instance| instance.name == *name);
        let missing: Vec<String> = told.keys().chain(gone).filter(|name| !here(name)).cloned().collect();
        let mut lines = String::new();
        let mut say = |instance: &Instance| {
            let line = encoder.encode_item("Instance", instance).map_err(|cause| cause.during(operation))?;
            lines.push_str(&line);
            Ok::<_, Error>(())
        };
        for instance in &known {
            if told.get(&instance.name) != Some(instance) {
                say(instance)?;
                told.insert(instance.name.clone(), instance.clone());
            }
        }
        for name in missing {
            if told.remove(&name).is_some() {
                say(&Instance { name, ..Instance::default() })?;
            }
        }
        if lines.is_empty() { Ok(()) } else { self.context.print_data(operation, &lines) }
    }

    fn picture(&self, breadth: Breadth) -> String {
        let (marks, width) = (self.context.marks, stdout_width());
        let mut alarms = self.alarms.clone();
        alarms.extend(self.away.as_ref().map(|(since, why)| {
            let (at, since) = (Clock::local().time(since), ago(since));
            format!("no supervisor since {at} ({since}): {}; what is shown is old", clause(why))
        }));
        match self.names {
            [name] => {
                let mut text = String::new();
                for line in crate::render::notes::alarms(&alarms) {
                    text.push_str(&(line + "\n"));
                }
                match self.fleet.get(name) {
                    Some(instance) => {
                        let story = Story { instance, events: &self.events, trend: Some(&self.trend) };
                        detail::sheet(&story, marks, width, &mut text);
                    }
                    None => {
                        text.push_str(&format!("there is no instance called {} any more\n", printable(name)));
                    }
                }
                text
            }
            _ => fleet::page(&self.instances(), &alarms, Look { breadth, marks, width }),
        }
    }
}
