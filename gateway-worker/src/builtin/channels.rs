//! The channels of a configuration: chat accounts, of which each admits one poller at a time. This gateway
//! polls none of them; it shows which OpenClaw would poll, in OpenClaw's shapes, so that tests of token fencing
//! see who holds a credential.

use jsonc_parser::ast::{Object, Value as Literal};
use serde_json::{Map, Value, json};

use crate::config::Environment;
use crate::document::last;
use crate::gateway::Gateway;

/// The account that a channel without named accounts has.
const ACCOUNT: &str = "default";
/// Keys below `channels` that are no channels.
const SHARED: [&str; 2] = ["defaults", "modelByChannel"];
/// Either, set to one of the words for yes, leaves all channels alone.
const SKIP: [&str; 2] = ["OPENCLAW_SKIP_CHANNELS", "OPENCLAW_SKIP_PROVIDERS"];
const YES: [&str; 4] = ["1", "true", "yes", "on"];

/// A channel that is configured and enabled.
#[derive(Debug, PartialEq)]
pub(crate) struct Channel {
    /// Its key in the configuration, such as `telegram`.
    id: String,
    polling: Polling,
}

/// Whether OpenClaw would poll a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Polling {
    /// It would.
    Active,
    /// It would leave it alone, for the environment says so, and take it for one without a credential.
    Skipped,
}

/// The channels that OpenClaw would show. What it would not understand is no channel: the rest of `channels`
/// is not this gateway's affair.
pub(crate) fn read(root: &Object<'_>, environment: &Environment) -> Vec<Channel> {
    let skipped = SKIP.iter().any(|name| is_yes(environment.text(name)));
    let polling = if skipped { Polling::Skipped } else { Polling::Active };
    let Some(Literal::Object(channels)) = last(root, "channels").map(|property| &property.value) else {
        return Vec::new();
    };
    let enabled = channels.properties.iter().filter(|property| {
        let Literal::Object(channel) = &property.value else { return false };
        !SHARED.contains(&property.name.as_str()) && is_enabled(channel)
    });
    enabled.map(|property| Channel { id: property.name.as_str().to_owned(), polling }).collect()
}

fn is_enabled(channel: &Object<'_>) -> bool {
    let enabled = last(channel, "enabled").map(|property| &property.value);
    !enabled.is_some_and(|value| matches!(value, Literal::BooleanLit(literal) if !literal.value))
}

fn is_yes(value: Option<String>) -> bool {
    value.is_some_and(|value| YES.contains(&value.trim().to_lowercase().as_str()))
}

/// `channels`, `channelOrder` and `channelLabels` of the method `health`.
pub(crate) fn health(gateway: &Gateway) -> Value {
    let channels = each(gateway, |channel| {
        let mut state = channel.account();
        state["accounts"] = json!({ ACCOUNT: channel.account() });
        state
    });
    json!({ "channels": channels, "channelOrder": order(gateway), "channelLabels": labels(gateway) })
}

/// What the method `channels.status` says of the channels.
pub(crate) fn status(gateway: &Gateway) -> Value {
    json!({
        "channelOrder": order(gateway),
        "channelLabels": labels(gateway),
        "channelDetailLabels": labels(gateway),
        "channelSystemImages": {},
        "channelMeta": [],
        "channels": each(gateway, Channel::state),
        "channelAccounts": each(gateway, |channel| json!([channel.account()])),
        "channelDefaultAccountId": each(gateway, |_| json!(ACCOUNT)),
        "statusIssues": [],
    })
}

impl Channel {
    fn state(&self) -> Value {
        let (active, token) = match self.polling {
            Polling::Active => (true, "config"),
            Polling::Skipped => (false, "none"),
        };
        json!({ "configured": active, "running": active, "lastError": null, "tokenSource": token })
    }

    fn account(&self) -> Value {
        let mut account = self.state();
        account["accountId"] = ACCOUNT.into();
        account["enabled"] = true.into();
        match self.polling {
            Polling::Active => account["connected"] = false.into(),
            Polling::Skipped => account["stateReason"] = "not configured".into(),
        }
        account
    }
}

fn each(gateway: &Gateway, value: impl Fn(&Channel) -> Value) -> Map<String, Value> {
    gateway.config.channels.iter().map(|channel| (channel.id.clone(), value(channel))).collect()
}

fn order(gateway: &Gateway) -> Vec<&str> {
    gateway.config.channels.iter().map(|channel| channel.id.as_str()).collect()
}

/// OpenClaw's own labels are its plugins' affair; the id with a capital is right for most.
fn labels(gateway: &Gateway) -> Map<String, Value> {
    each(gateway, |channel| {
        let mut characters = channel.id.chars();
        let label: Option<String> =
            characters.next().map(|first| first.to_uppercase().chain(characters).collect());
        label.unwrap_or_default().into()
    })
}
