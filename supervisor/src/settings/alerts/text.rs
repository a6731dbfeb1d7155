//! How `alerts:` is written in the file, and what is wrong with it.

use std::path::{Path, PathBuf};

use http::Uri;
use jiff::civil::Time;
use serde::{Deserialize, Serialize};
use supervisor_core::{ids::Name, journal::Severity};

use super::{
    AFTER, Alerts, BOOT_GRACE, Duration, EVERY, GROUP_FOR, Heartbeat, LONGEST, MOST, MOST_SPAN, Place, Quiet,
    Sink, TELEGRAM, Way,
};
use crate::{
    openclaw::walls::open_to_all,
    settings::{Wrong, access::is_plain},
    spec::Span,
};

/// As the file says it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::settings) struct Text {
    pub(in crate::settings) after: Option<Span>,
    pub(in crate::settings) group_for: Option<Span>,
    pub(in crate::settings) boot_grace: Option<Span>,
    quiet: Option<QuietText>,
    heartbeat: Option<HeartbeatText>,
    pub(in crate::settings) sinks: Vec<SinkText>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct QuietText {
    from: String,
    until: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeartbeatText {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<String>,
    every: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Webhook,
    Ntfy,
    Slack,
    Telegram,
    Exec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Least {
    Warning,
    Error,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::settings) struct SinkText {
    name: String,
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<Least>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_quiet_hours: Option<bool>,
}

/// The field at fault, what is wrong with it, and what to do.
type Refused = (&'static str, String, String);

/// Reads them; what is wrong is added to `wrong`.
pub(in crate::settings) fn read(text: &Text, wrong: &mut Vec<Wrong>) -> Alerts {
    let mut span = |field: &'static str, given: Option<Span>, usual| {
        let span = given.map_or(usual, |given| given.0);
        if span > MOST_SPAN {
            let message = format!("{} is out of bounds", Span(span));
            wrong.push(Wrong::at(["alerts", field], message, "choose at most 1d"));
        }
        span
    };
    let after = span("after", text.after, AFTER);
    let group_for = span("group_for", text.group_for, GROUP_FOR);
    let boot_grace = span("boot_grace", text.boot_grace, BOOT_GRACE);
    let mut refuse = |path: &[&str], (field, message, mend): Refused| {
        let path = ["alerts"].iter().chain(path).chain([&field]).filter(|key| !key.is_empty());
        wrong.push(Wrong::at(path.copied(), message, mend));
    };
    let quiet = text.quiet.as_ref().map(QuietText::read).transpose();
    let quiet = quiet.unwrap_or_else(|refused| {
        refuse(&["quiet"], refused);
        None
    });
    let heartbeat = text.heartbeat.as_ref().map(HeartbeatText::read).transpose();
    let heartbeat = heartbeat.unwrap_or_else(|refused| {
        refuse(&["heartbeat"], refused);
        None
    });
    if text.sinks.len() > MOST {
        let message = format!("there are {} of them", text.sinks.len());
        refuse(&[], ("sinks", message, format!("keep at most {MOST}; one of them can tell the others")));
    }
    let mut sinks: Vec<Sink> = Vec::new();
    for (index, text) in text.sinks.iter().enumerate().take(MOST) {
        let read = text.read().and_then(|sink| {
            let is_twice = sinks.iter().any(|other| other.name == sink.name);
            let twice =
                || ("name", format!("there are two sinks `{}`", sink.name), "give each its own".into());
            if is_twice { Err(twice()) } else { Ok(sink) }
        });
        match read {
            Ok(sink) => sinks.push(sink),
            Err(refused) => refuse(&["sinks", &format!("[{index}]")], refused),
        }
    }
    Alerts { after, group_for, boot_grace, quiet, heartbeat, sinks }
}

impl QuietText {
    fn read(&self) -> Result<Quiet, Refused> {
        let time = |field, text: &str| {
            let read = Time::strptime("%H:%M", text).ok();
            read.ok_or((field, format!("`{text}` is not a time of day"), "write it as \"22:00\"".to_owned()))
        };
        let quiet = Quiet { from: time("from", &self.from)?, until: time("until", &self.until)? };
        if quiet.from == quiet.until {
            return Err(("until", "it is when it begins".into(), "name another time".into()));
        }
        Ok(quiet)
    }
}

impl HeartbeatText {
    fn read(&self) -> Result<Heartbeat, Refused> {
        let place = place(self.url.as_ref(), self.url_file.as_ref(), false)?;
        let every = self.every.map_or(EVERY, |span| span.0);
        if !(Duration::from_secs(10)..=MOST_SPAN).contains(&every) {
            let message = format!("{} is out of bounds", Span(every));
            return Err(("every", message, "choose 10s to 1d".into()));
        }
        Ok(Heartbeat { place, every })
    }
}

impl SinkText {
    fn read(&self) -> Result<Sink, Refused> {
        let name = self.name.clone();
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(is_word) {
            let mend = "write letters, digits, `-`, `_` and `.`".into();
            return Err((
                if name.is_empty() { "" } else { "name" },
                "it has no name that can be typed".into(),
                mend,
            ));
        }
        let after = self.after.map_or(Duration::ZERO, |span| span.0);
        if after > MOST_SPAN {
            return Err(("after", format!("{} is out of bounds", Span(after)), "choose at most 1d".into()));
        }
        let instance = |name: &String| {
            let mend = "write the name of an instance".to_owned();
            Name::new(name).map_err(|invalid| ("instances", invalid.to_string(), mend))
        };
        Ok(Sink {
            name,
            way: self.way()?,
            severity: match self.severity.unwrap_or(Least::Warning) {
                Least::Warning => Severity::Warning,
                Least::Error => Severity::Error,
            },
            after,
            instances: self.instances.iter().map(instance).collect::<Result<_, _>>()?,
            in_quiet_hours: self.in_quiet_hours.unwrap_or(false),
        })
    }

    fn way(&self) -> Result<Way, Refused> {
        let mend = "add `kind: webhook`, `ntfy`, `slack`, `telegram` or `exec`".to_owned();
        let kind = self.kind.ok_or(("", "it does not say what it is".to_owned(), mend))?;
        self.has_only(kind)?;
        let token = self.token_file.as_deref().map(|path| file("token_file", path)).transpose()?;
        let place = || place(self.url.as_ref(), self.url_file.as_ref(), token.is_some());
        Ok(match kind {
            Kind::Webhook => Way::Webhook { place: place()?, token },
            Kind::Ntfy => Way::Ntfy { place: place()?, token },
            Kind::Slack => Way::Slack { place: place()? },
            Kind::Telegram => {
                let api = self.url.as_deref().unwrap_or(TELEGRAM).trim_end_matches('/').to_owned();
                check(&api, true)?;
                let chat = self.chat.clone().filter(|chat| !chat.is_empty() && chat.len() <= LONGEST);
                let mend = "write the number of the chat, or `@` and the name of a channel".to_owned();
                let chat = chat.ok_or(("", "it has no `chat`".to_owned(), mend))?;
                let mend = "put what BotFather gave into a file, and name that".to_owned();
                let token = token.ok_or(("", "it has no `token_file`".to_owned(), mend))?;
                Way::Telegram { api, chat, token }
            }
            Kind::Exec => match self.command.first() {
                Some(program) if is_plain(Path::new(program)) => Way::Exec { command: self.command.clone() },
                Some(program) => {
                    let message = format!("`{program}` is not an absolute path");
                    return Err(("command", message, "write the whole path, from `/` on".into()));
                }
                None => {
                    let mend = "add `command: [/path/of/the/program]`".into();
                    return Err(("", "it does not say what is run".into(), mend));
                }
            },
        })
    }

    /// Fields that mean nothing to this kind are mistakes.
    fn has_only(&self, kind: Kind) -> Result<(), Refused> {
        let (http, telegram, exec) = (
            matches!(kind, Kind::Webhook | Kind::Ntfy | Kind::Slack),
            kind == Kind::Telegram,
            kind == Kind::Exec,
        );
        let given = [
            ("url", self.url.is_some(), http || telegram),
            ("url_file", self.url_file.is_some(), http),
            ("token_file", self.token_file.is_some(), telegram || http && kind != Kind::Slack),
            ("chat", self.chat.is_some(), telegram),
            ("command", !self.command.is_empty(), exec),
        ];
        match given.into_iter().find(|(_, is_given, is_its)| *is_given && !is_its) {
            Some((field, ..)) => Err((field, "this kind of sink has none".into(), "leave it out".into())),
            None => Ok(()),
        }
    }
}

fn place(url: Option<&String>, file: Option<&String>, with_token: bool) -> Result<Place, Refused> {
    match (url, file) {
        (Some(url), None) => check(url, with_token).map(|()| Place::Url(url.clone())),
        (None, Some(path)) => self::file("url_file", path).map(Place::File),
        (Some(_), Some(_)) => Err(("url_file", "there is a `url`, too".into(), "keep one of them".into())),
        (None, None) => Err(("", "it does not say where".into(), "add `url`, or `url_file`".into())),
    }
}

/// Whether this can be asked, and nothing secret is shown on the way.
fn check(url: &str, with_token: bool) -> Result<(), Refused> {
    let refused = |message: String, mend: &str| Err(("url", message, mend.to_owned()));
    let uri = match url.parse::<Uri>() {
        Ok(uri) if uri.host().is_some() => uri,
        Ok(_) | Err(_) => {
            return refused(format!("`{url}` is not a URL"), "write it as \"https://HOST/PATH\"");
        }
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refused(
            "it has a user or a password in it".into(),
            "put the URL into a file, and name that as `url_file`",
        );
    }
    let is_here = uri.host().is_some_and(|host| ["127.0.0.1", "[::1]", "localhost"].contains(&host));
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here || !with_token => Ok(()),
        Some("http") => {
            refused("everybody on the way would read the token".into(), "write it as \"https://…\"")
        }
        Some(_) | None => refused(format!("`{url}` is not a URL of HTTP"), "write it as \"https://…\""),
    }
}

/// Agents have the supervisor's user, unless their instances have users of their own.
fn file(field: &'static str, path: &str) -> Result<PathBuf, Refused> {
    let path = PathBuf::from(path);
    if !is_plain(&path) {
        return Err((
            field,
            "this is not an absolute path".into(),
            "write the whole path, from `/` on".into(),
        ));
    }
    match open_to_all(&path) {
        None => Ok(path),
        Some(tree) => Err((
            field,
            format!("every instance may read in `{tree}`, and so the secret"),
            "move the file into the supervisor's data directory, which is closed to them, and write the new path here".into(),
        )),
    }
}

impl From<&Alerts> for Text {
    fn from(alerts: &Alerts) -> Self {
        let time = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        Self {
            after: Some(Span(alerts.after)),
            group_for: Some(Span(alerts.group_for)),
            boot_grace: Some(Span(alerts.boot_grace)),
            quiet: alerts.quiet.map(|quiet| QuietText { from: time(quiet.from), until: time(quiet.until) }),
            heartbeat: alerts.heartbeat.as_ref().map(|heartbeat| {
                let (url, url_file) = of_place(&heartbeat.place);
                HeartbeatText { url, url_file, every: Some(Span(heartbeat.every)) }
            }),
            sinks: alerts.sinks.iter().map(SinkText::from).collect(),
        }
    }
}

impl From<&Sink> for SinkText {
    fn from(sink: &Sink) -> Self {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut text = Self {
            name: sink.name.clone(),
            severity: Some(if sink.severity == Severity::Error { Least::Error } else { Least::Warning }),
            after: Some(Span(sink.after)),
            instances: sink.instances.iter().map(ToString::to_string).collect(),
            in_quiet_hours: Some(sink.in_quiet_hours),
            ..Self::default()
        };
        let mut at = |kind, place: &Place, token: Option<&PathBuf>| {
            (text.url, text.url_file) = of_place(place);
            (text.kind, text.token_file) = (Some(kind), token.map(path));
        };
        match &sink.way {
            Way::Webhook { place, token } => at(Kind::Webhook, place, token.as_ref()),
            Way::Ntfy { place, token } => at(Kind::Ntfy, place, token.as_ref()),
            Way::Slack { place } => at(Kind::Slack, place, None),
            Way::Telegram { api, chat, token } => {
                at(Kind::Telegram, &Place::Url(api.clone()), Some(token));
                text.chat = Some(chat.clone());
            }
            Way::Exec { command } => (text.kind, text.command) = (Some(Kind::Exec), command.clone()),
        }
        text
    }
}

fn of_place(place: &Place) -> (Option<String>, Option<String>) {
    match place {
        Place::Url(url) => (Some(url.clone()), None),
        Place::File(path) => (None, Some(path.to_string_lossy().into_owned())),
    }
}
