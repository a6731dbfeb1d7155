//! `alerts:`: who is told when something goes wrong, and how.
//!
//! ```yaml
//! alerts:
//!   after: 1m
//!   quiet: { from: "22:00", until: "07:00" }
//!   sinks:
//!   - { name: phone, kind: ntfy, url: "https://ntfy.sh/my-claws" }
//!   - { name: ops, kind: slack, url_file: /var/lib/openclaw-supervisor/slack.url }
//!   - { name: me, kind: telegram, chat: "123456", token_file: /var/lib/openclaw-supervisor/telegram.token }
//!   - { name: pager, kind: webhook, url: "https://pager.example/claw", severity: error, after: 15m, in_quiet_hours: true }
//!   - { name: script, kind: exec, command: [/usr/local/bin/page, claw] }
//!   heartbeat: { url_file: /var/lib/openclaw-supervisor/heartbeat.url, every: 1m }
//! ```

mod text;

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use jiff::civil::Time;
use supervisor_core::{ids::Name, journal::Severity};

pub(super) use text::{Text, read};

/// The most sinks: each is told of everything.
const MOST: usize = 16;

/// The longest word that is taken for a name or a chat, in bytes.
const LONGEST: usize = 128;

/// What starts badly often mends itself within this.
const AFTER: Duration = Duration::from_secs(60);

/// What goes wrong within this is told together.
const GROUP_FOR: Duration = Duration::from_secs(10);

/// After the host has booted, all starts at once, and some of it late.
const BOOT_GRACE: Duration = Duration::from_secs(180);

/// Between two heartbeats.
const EVERY: Duration = Duration::from_secs(60);

/// Whoever waits longer than a day for an alert wants none.
const MOST_SPAN: Duration = Duration::from_secs(24 * 3600);

/// Where Telegram is.
const TELEGRAM: &str = "https://api.telegram.org";

/// Who is told, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerts {
    /// Something is told of once it has lasted this long, unless it needs a person anyway.
    pub after: Duration,
    /// What comes within this is told together.
    pub group_for: Duration,
    /// What mends itself this soon after the host's boot is not told of.
    pub boot_grace: Duration,
    /// When only errors are told of.
    pub quiet: Option<Quiet>,
    /// Told all the time that all is well, so that its silence is an alarm.
    pub heartbeat: Option<Heartbeat>,
    /// Who is told.
    pub sinks: Vec<Sink>,
}

/// A part of each day, in the host's local time. It may go beyond midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// From this time on.
    pub from: Time,
    /// Up to this one.
    pub until: Time,
}

/// Somebody who raises an alarm when nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// What is asked for.
    pub place: Place,
    /// How often.
    pub every: Duration,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// What people call it.
    pub name: String,
    /// How it is reached.
    pub way: Way,
    /// Nothing less than this is told.
    pub severity: Severity,
    /// What has ended by then is not told.
    pub after: Duration,
    /// Only theirs; everyone's, and the supervisor's own, if there are none.
    pub instances: BTreeSet<Name>,
    /// Quiet hours are not for it.
    pub in_quiet_hours: bool,
}

/// How somebody is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// JSON, posted.
    Webhook {
        /// To there.
        place: Place,
        /// As a bearer's.
        token: Option<PathBuf>,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The topic.
        place: Place,
        /// As a bearer's.
        token: Option<PathBuf>,
    },
    /// An incoming webhook of Slack, or of what speaks like it.
    Slack {
        /// The webhook.
        place: Place,
    },
    /// A bot of Telegram.
    Telegram {
        /// Where its API is.
        api: String,
        /// Whom it writes to.
        chat: String,
        /// The bot's.
        token: PathBuf,
    },
    /// A program.
    Exec {
        /// It and its arguments.
        command: Vec<String>,
    },
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Url(String),
    /// What this file says: a URL by which one may write is a secret.
    File(PathBuf),
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            after: AFTER,
            group_for: GROUP_FOR,
            boot_grace: BOOT_GRACE,
            quiet: None,
            heartbeat: None,
            sinks: Vec::new(),
        }
    }
}

impl Quiet {
    /// Whether it holds at this time of a day.
    #[must_use]
    pub fn holds_at(&self, time: Time) -> bool {
        if self.from <= self.until {
            (self.from..self.until).contains(&time)
        } else {
            time >= self.from || time < self.until
        }
    }
}

impl Way {
    /// The word in the settings.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Ntfy { .. } => "ntfy",
            Self::Slack { .. } => "slack",
            Self::Telegram { .. } => "telegram",
            Self::Exec { .. } => "exec",
        }
    }
}

/// All of it but what may be a secret.
impl fmt::Display for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&Text::from(self)).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}
