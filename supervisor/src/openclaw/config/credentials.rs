//! Which channel credentials a configuration names, as fingerprints.
//!
//! A Telegram bot token admits one poller: two gateways with one token fight for its messages for ever. The same
//! holds wherever the gateway itself connects to the service and is sent what the bot is sent. So core keeps
//! instances with a common credential apart, and knows of each 64 bits of a keyed hash: enough to find an equal
//! one, useless to anybody who reads them.
//!
//! What counts is what OpenClaw would use (`resolveTelegramToken` and its like, in 2026.2.9 and 2026.9.6): a
//! channel counts unless it, its account or its plugin is disabled; a token file comes before a token, and a
//! variable of the environment stands in for the default account alone. References are followed as far as the
//! instance's own environment goes. Credentials of webhooks are left out: a service calls one address, however
//! many listen. So are sessions that live in the state directory (WhatsApp, Signal), which nobody shares.

mod file;

use serde_json::Value;
use sha2::{Digest, Sha256};
use supervisor_core::ids::Credential;

use super::document::json5;
use crate::{openclaw::layout::Directories, spec::InstanceSpec};

/// Accounts that are looked at; nobody runs hundreds of bots in one gateway, and core compares them all.
const MAX_NAMED: usize = 256;

/// One credential of one channel.
struct Kind {
    channel: &'static str,
    /// Its key, in the channel and in each of its accounts.
    key: &'static str,
    /// The key of a file that holds it, which is looked for first.
    file: Option<&'static str>,
    /// The variable that stands in for it, in the default account.
    variable: Option<&'static str>,
    /// With this setting the service calls the gateway, not the gateway the service.
    webhook: Option<(&'static str, &'static str)>,
}

const fn kind(channel: &'static str, key: &'static str, variable: Option<&'static str>) -> Kind {
    Kind { channel, key, file: None, variable, webhook: None }
}

/// Channels whose connections the gateway makes itself.
const KINDS: [Kind; 13] = [
    Kind { file: Some("tokenFile"), ..kind("telegram", "botToken", Some("TELEGRAM_BOT_TOKEN")) },
    kind("discord", "token", Some("DISCORD_BOT_TOKEN")),
    Kind { webhook: Some(("mode", "http")), ..kind("slack", "appToken", Some("SLACK_APP_TOKEN")) },
    Kind { webhook: Some(("mode", "http")), ..kind("slack", "botToken", Some("SLACK_BOT_TOKEN")) },
    kind("mattermost", "botToken", Some("MATTERMOST_BOT_TOKEN")),
    kind("matrix", "accessToken", Some("MATRIX_ACCESS_TOKEN")),
    Kind { file: Some("tokenFile"), ..kind("zalo", "botToken", Some("ZALO_BOT_TOKEN")) },
    Kind {
        webhook: Some(("connectionMode", "webhook")),
        ..kind("feishu", "appSecret", Some("FEISHU_APP_SECRET"))
    },
    kind("twitch", "accessToken", Some("OPENCLAW_TWITCH_ACCESS_TOKEN")),
    kind("qqbot", "clientSecret", None),
    kind("clickclack", "token", None),
    kind("nostr", "privateKey", None),
    kind("buzz", "privateKey", None),
];

/// What services allow before a token, and OpenClaw takes away.
const PREFIXES: [(&str, &str); 2] = [("discord", "Bot "), ("twitch", "oauth:")];

/// What references to secrets are resolved with.
#[derive(Debug, Clone, Copy)]
pub struct Purse<'a> {
    /// Keys the fingerprints: the store's id, so that those of two fleets cannot be compared.
    pub salt: &'a str,
    /// The instance's: what it adds to its environment, and what it opens to it.
    pub spec: &'a InstanceSpec,
}

/// A credential, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its fingerprint.
    pub credential: Credential,
    /// For people, e.g. `telegram (accounts.work)`.
    pub label: String,
}

/// The credentials that a configuration names, each once. None, if it cannot be read.
#[must_use]
pub fn of(text: &str, directories: &Directories, purse: &Purse<'_>) -> Vec<Named> {
    let Ok(config) = jsonc_parser::parse_to_serde_value::<Value>(text, &json5()) else { return Vec::new() };
    let reader = Reader { config: &config, directories, purse };
    let mut found: Vec<Named> = Vec::new();
    for kind in &KINDS {
        if !reader.has_plugin(kind.channel) {
            continue;
        }
        for (label, token) in reader.tokens(kind) {
            let credential = fingerprint(purse.salt, kind.channel, &token);
            if found.len() < MAX_NAMED && found.iter().all(|known| known.credential != credential) {
                found.push(Named { credential, label });
            }
        }
    }
    found
}

/// The first 64 bits of a keyed SHA-256. Lengths are hashed, too, so that no two inputs run together.
fn fingerprint(salt: &str, channel: &str, token: &str) -> Credential {
    let mut hash = Sha256::new();
    for part in ["openclaw-supervisor: channel credential", salt, channel, token] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    Credential(u64::from_be_bytes(first))
}

struct Reader<'a> {
    config: &'a Value,
    directories: &'a Directories,
    purse: &'a Purse<'a>,
}

impl Reader<'_> {
    /// Whether nothing keeps the channel's plugin from being loaded.
    fn has_plugin(&self, channel: &str) -> bool {
        let plugins = &self.config["plugins"];
        let denied = plugins["deny"].as_array().is_some_and(|denied| denied.iter().any(|one| one == channel));
        is_enabled(plugins) && !denied && is_enabled(&plugins["entries"][channel])
    }

    /// The tokens of one kind, with their labels.
    fn tokens(&self, kind: &Kind) -> Vec<(String, String)> {
        let channel = &self.config["channels"][kind.channel];
        if !is_enabled(channel) {
            return Vec::new();
        }
        let none = serde_json::Map::new();
        let accounts = channel["accounts"].as_object().unwrap_or(&none);
        let mut found = Vec::new();
        for (id, account) in accounts.iter().filter(|(_, account)| is_enabled(account)) {
            if !is_webhook(kind, account, channel)
                && let Some(token) = self.token(kind, account)
            {
                found.push((format!("{} (accounts.{id})", kind.channel), token));
            }
        }
        // The channel's own is the default account's, and that of accounts without one.
        let default = accounts.iter().find(|(id, _)| id.trim().eq_ignore_ascii_case("default"));
        let default = default.map(|(_, account)| account);
        let for_default = default.is_none_or(|own| is_enabled(own) && !has(kind, own));
        let for_others = accounts.values().any(|account| is_enabled(account) && !has(kind, account));
        if !is_webhook(kind, default.unwrap_or(&Value::Null), channel) {
            let token = match has(kind, channel) {
                true if for_default || for_others => self.token(kind, channel),
                false if for_default => self.stand_in(kind),
                true | false => None,
            };
            found.extend(token.map(|token| (kind.channel.to_owned(), token)));
        }
        found
    }

    /// The token that the environment holds.
    fn stand_in(&self, kind: &Kind) -> Option<String> {
        Some(bare(kind, &self.variable(kind.variable?)?))
    }

    /// The token that stands in this object.
    fn token(&self, kind: &Kind, object: &Value) -> Option<String> {
        let file = kind.file.and_then(|file| object[file].as_str()).map(str::trim);
        let token = match file.filter(|file| !file.is_empty()) {
            Some(file) => {
                let path = self.directories.home.join(self.resolved(file)?);
                file::read(&path, self.directories, self.purse.spec)?
            }
            None => self.value(&object[kind.key])?,
        };
        Some(bare(kind, &token)).filter(|token| !token.is_empty())
    }

    /// A secret that is text, or a reference to a variable.
    fn value(&self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => match text.strip_prefix('$').filter(|name| is_variable(name)) {
                Some(name) => self.variable(name),
                None => self.resolved(text),
            },
            Value::Object(reference) if reference.get("source")? == "env" => {
                self.variable(reference.get("id")?.as_str()?)
            }
            // A reference to a file or a vault is resolved by OpenClaw alone.
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }
    }

    /// The text with its `${VARIABLES}` put in; `None` if one is not known.
    fn resolved(&self, text: &str) -> Option<String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            let name = after.split('}').next().filter(|name| name.len() < after.len() && is_variable(name));
            out.push_str(before);
            match (name, out.ends_with('$')) {
                // `$${NAME}` stands for itself.
                (Some(name), true) => out.push_str(&format!("{{{name}}}")),
                (Some(name), false) => out.push_str(&self.variable(name)?),
                (None, _) => out.push_str("${"),
            }
            rest = &after[name.map_or(0, |name| name.len() + 1)..];
        }
        out.push_str(rest);
        Some(out)
    }

    /// A variable of the instance's own environment, or one that the configuration sets.
    fn variable(&self, name: &str) -> Option<String> {
        let own = &self.config["env"];
        let value = self.purse.spec.env.get(name).map(String::as_str);
        let value = value.or_else(|| own["vars"][name].as_str()).or_else(|| own[name].as_str())?;
        Some(value.to_owned()).filter(|value| !value.trim().is_empty())
    }
}

/// Enabled is what is not disabled, also what is not there.
fn is_enabled(object: &Value) -> bool {
    object["enabled"] != Value::Bool(false)
}

/// Whether the object says anything about the credential.
fn has(kind: &Kind, object: &Value) -> bool {
    let file = kind.file.map_or(&Value::Null, |file| &object[file]);
    [file, &object[kind.key]].iter().any(|value| !value.is_null() && **value != "")
}

/// Whether the service calls the gateway. An account has its channel's setting if it has none of its own.
fn is_webhook(kind: &Kind, account: &Value, channel: &Value) -> bool {
    kind.webhook.is_some_and(|(key, mode)| {
        let own = &account[key];
        (if own.is_null() { &channel[key] } else { own }) == mode
    })
}

/// The token without what does not belong to it.
fn bare(kind: &Kind, token: &str) -> String {
    let token = token.trim();
    let prefix =
        PREFIXES.iter().find(|(channel, _)| *channel == kind.channel).map_or("", |(_, prefix)| prefix);
    let rest = token.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix));
    rest.map_or(token, |head| token[head.len()..].trim_start()).to_owned()
}

/// A name that OpenClaw takes for a variable's.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_uppercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests;
