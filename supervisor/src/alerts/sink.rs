//! How each kind of sink is told.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use http::{Method, Request, header};
use nix::{fcntl::OFlag, unistd::geteuid};
use serde_json::json;

use super::{
    desk::Outcome,
    http::{Http, Reply},
    message::Message,
    trouble::Weight,
};
use crate::{
    settings::alerts::{Place, Way},
    tool::Tool,
    typed::word,
};

/// A program has this long.
const LIMIT: Duration = Duration::from_secs(30);

/// The longest secret; more is another file.
const LONGEST: u64 = 4 << 10;

/// Parts of an address that are shorter are no secrets.
const SHORTEST: usize = 4;

/// So much of one, from its beginning, tells that it is repeated.
const TOLD_BY: usize = 8;

/// Whoever was refused for a reason that does not pass by itself is left alone for so long.
const REFUSED: Duration = Duration::from_secs(600);

/// Variables that a program is run with beside its message.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "XDG_RUNTIME_DIR"];

/// Tells a message, and waits for what becomes of it.
pub(super) async fn tell(way: &Way, message: &Message, http: &Http) -> Outcome {
    let request = match way {
        Way::Exec { command } => return run(command, message).await,
        Way::Webhook { place, token } => webhook(place, token.as_deref(), message),
        Way::Ntfy { place, token } => ntfy(place, token.as_deref(), message),
        Way::Slack { place } => slack(place, message),
        Way::Telegram { api, chat, token } => telegram(api, chat, token, message),
    };
    let request = match request {
        Ok(request) => request,
        Err(why) => return Outcome::Failed(why, Duration::ZERO),
    };
    let secrets = pieces(&request);
    match http.ask(request).await {
        Ok(reply) if reply.status.is_success() => Outcome::Told,
        Ok(reply) => refused(&reply, &secrets),
        Err(error) => Outcome::Failed(error.to_string(), Duration::ZERO),
    }
}

/// What of a request may be a secret: the parts of its address, and its token.
fn pieces(request: &Request<String>) -> Vec<String> {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let token = token.and_then(|token| token.strip_prefix("Bearer "));
    let address = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let parts = address.split(['/', '?', '&', '=']).chain(token);
    // Telegram's token stands behind a word of three letters.
    let parts = parts.flat_map(|part| [Some(part), part.strip_prefix("bot")]).flatten();
    // An answer may be cut off in the midst of one.
    parts.filter(|part| part.len() >= SHORTEST).map(|part| part.chars().take(TOLD_BY).collect()).collect()
}

fn refused(reply: &Reply, secrets: &[String]) -> Outcome {
    let status = reply.status;
    let said = match reply.said.trim() {
        "" => String::new(),
        // Many say again what they were asked for.
        said if secrets.iter().any(|secret| said.contains(secret)) => String::new(),
        said => format!(": {said}"),
    };
    let passes = status.is_server_error() || [408, 425, 429].contains(&status.as_u16());
    let leave = reply.retry_after.unwrap_or(if passes { Duration::ZERO } else { REFUSED });
    Outcome::Failed(format!("it answered {status}{said}"), leave)
}

type Prepared = Result<Request<String>, String>;

fn webhook(place: &Place, token: Option<&Path>, message: &Message) -> Prepared {
    post(&url(place)?, token, ("application/json", message.json.to_string()), &[])
}

fn ntfy(place: &Place, token: Option<&Path>, message: &Message) -> Prepared {
    let (priority, tags) = match (message.is_over, message.weight) {
        (true, _) => ("default", "white_check_mark"),
        (false, Weight::Warning) => ("high", "warning"),
        (false, Weight::Error) => ("urgent", "rotating_light"),
    };
    let headers = [("title", message.title.as_str()), ("priority", priority), ("tags", tags)];
    post(&url(place)?, token, ("text/plain; charset=utf-8", message.text.clone()), &headers)
}

fn slack(place: &Place, message: &Message) -> Prepared {
    let mark = match (message.is_over, message.weight) {
        (true, _) => ":white_check_mark:",
        (false, Weight::Warning) => ":warning:",
        (false, Weight::Error) => ":rotating_light:",
    };
    let text = format!("{mark} *{}*\n{}", escaped(&message.title), escaped(&message.text));
    // What a gateway wrote calls nobody, and shows no page.
    let body = json!({ "text": text, "unfurl_links": false, "unfurl_media": false });
    post(&url(place)?, None, ("application/json", body.to_string()), &[])
}

fn telegram(api: &str, chat: &str, token: &Path, message: &Message) -> Prepared {
    let mark = match (message.is_over, message.weight) {
        (true, _) => "\u{2705}",
        (false, Weight::Warning) => "\u{26a0}\u{fe0f}",
        (false, Weight::Error) => "\u{1f6a8}",
    };
    let body = json!({
        "chat_id": chat,
        "text": format!("{mark} {}\n{}", message.title, message.text),
        "link_preview_options": { "is_disabled": true },
        "disable_notification": message.is_over,
    });
    let url = format!("{api}/bot{}/sendMessage", secret(token)?);
    post(&url, None, ("application/json", body.to_string()), &[])
}

fn post(url: &str, token: Option<&Path>, (kind, body): (&str, String), headers: &[(&str, &str)]) -> Prepared {
    // It may be a secret, and is not said.
    let mut request = Request::builder().method(Method::POST).uri(url).header(header::CONTENT_TYPE, kind);
    for (name, value) in headers {
        request = request.header(*name, encoded(value));
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret(token)?));
    }
    request.body(body).map_err(|_| "what the file holds is not a URL, or not a token".into())
}

/// What a heartbeat asks for.
pub(super) fn beat(place: &Place) -> Prepared {
    let request = Request::builder().method(Method::GET).uri(url(place)?);
    request.body(String::new()).map_err(|_| "what the file holds is not a URL".into())
}

async fn run(command: &[String], message: &Message) -> Outcome {
    let Some((program, args)) = command.split_first() else {
        return Outcome::Failed("there is nothing to run".into(), REFUSED);
    };
    let passed = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let told = [
        ("OPENCLAW_ALERT_TITLE", message.title.clone()),
        ("OPENCLAW_ALERT_TEXT", message.text.clone()),
        ("OPENCLAW_ALERT_SEVERITY", message.weight.word().to_owned()),
        ("OPENCLAW_ALERT_JSON", message.json.to_string()),
    ];
    let told = told.into_iter().map(|(name, value)| (name.to_owned(), value));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let environment: BTreeMap<String, String> = passed.chain(told).collect();
    let tool = Tool { environment: Some(environment), ..Tool::new(Path::new(program), &args) };
    let ran = tokio::task::spawn_blocking(move || tool.run(LIMIT)).await;
    match ran {
        Ok(Some(ran)) if ran.status == 0 => Outcome::Told,
        Ok(Some(ran)) => {
            let last = ran.output.lines().last().unwrap_or_default();
            Outcome::Failed(format!("it ended with {}: {last}", ran.status), Duration::ZERO)
        }
        Ok(None) | Err(_) => {
            let why = format!("it cannot be run, or has not ended within {} s", LIMIT.as_secs());
            Outcome::Failed(why, Duration::ZERO)
        }
    }
}

fn url(place: &Place) -> Result<String, String> {
    match place {
        Place::Url(url) => Ok(url.clone()),
        Place::File(path) => secret(path),
    }
}

/// What a file holds that is for this user or root alone. It is read each time, so that it can be replaced.
fn secret(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("`{shown}` cannot be read: {error}");
    // A pipe would never answer.
    let file =
        File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(format!("`{shown}` is not a file with one line in it"));
    }
    if ![0, geteuid().as_raw()].contains(&found.uid()) {
        return Err(format!("`{shown}` belongs to user {}; type `chown root {}`", found.uid(), word(path)));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!(
            "`{shown}` is open to others; type `chmod 600 {}`, and put a new secret into it",
            word(path)
        ));
    }
    let mut content = String::new();
    file.take(LONGEST).read_to_string(&mut content).map_err(failed)?;
    let content = content.trim();
    if content.is_empty() || content.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{shown}` does not hold one line without blanks"));
    }
    Ok(content.to_owned())
}

/// A header holds ASCII; what else there is goes as RFC 2047 has it, which ntfy reads.
fn encoded(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if text.is_ascii() { text.to_owned() } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(text)) }
}

/// As Slack wants what is to be read as it stands.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests;
