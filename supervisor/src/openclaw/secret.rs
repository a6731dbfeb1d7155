//! What looks like a secret: by what it is called, by its form, and where it stands in a URL.
//!
//! What is not known to be one is told by its looks, and in doubt it is one: what is lost is a word in an answer.

use std::ops::Range;

/// A known secret shorter than this would also be found in words that are none.
pub(crate) const SHORTEST_KNOWN: usize = 8;

/// A run of characters this long without a space, of letters and digits, is taken for a key.
const LONGEST_WORD: usize = 40;

/// A part of a path is taken for one already if it is this long.
const LONGEST_PART: usize = 16;

/// What is glued to an option of one letter and shorter is a flag of something.
const SHORTEST_GLUED: usize = 4;

/// How secrets of well-known services begin.
const BEGINNINGS: [&str; 29] = [
    "sk-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "AIza",
    "AKIA",
    "eyJ",
    "nsec1",
    "oauth:",
    "Bearer ",
    "Basic ",
    "hf_",
    "npm_",
    "rk_live_",
    "sk_live_",
    "pypi-",
    "ya29.",
    "syt_",
    "whsec_",
    "gsk_",
    "SG.",
];

/// Whether a variable of this name probably holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 8] =
        ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "APIKEY", "CONNECTION_STRING"];
    const WORDS: [&str; 17] = [
        "KEY",
        "KEYS",
        "AUTH",
        "AUTHORIZATION",
        "PASS",
        "PWD",
        "PAT",
        "COOKIE",
        "DSN",
        "PIN",
        "HEADER",
        "HEADERS",
        "OTP",
        "TOTP",
        "MNEMONIC",
        "NETRC",
        "UNLOCK",
    ];
    // Of the shell, and names directories.
    const NONE: [&str; 2] = ["PWD", "OLDPWD"];
    let name = name.to_ascii_uppercase();
    !NONE.contains(&name.as_str())
        && (PARTS.iter().any(|part| name.contains(part))
            || name.ends_with("PASS")
            || name.split('_').any(|word| WORDS.contains(&word)))
}

/// Counts of tokens and names of files are no secrets (OpenClaw's `SENSITIVE_KEY_WHITELIST_SUFFIXES`).
const HARMLESS: [&str; 11] = [
    "maxtokens",
    "maxoutputtokens",
    "maxinputtokens",
    "maxcompletiontokens",
    "contexttokens",
    "totaltokens",
    "tokencount",
    "tokenlimit",
    "tokenbudget",
    "passwordfile",
    "tokenfile",
];

/// Whether a value with this key is a secret.
#[must_use]
pub fn is_sensitive(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    if HARMLESS.iter().any(|harmless| lower.ends_with(harmless)) {
        return false;
    }
    let squeezed: String = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    let parts = ["token", "password", "secret", "apikey", "encryptkey", "privatekey", "serviceaccount"];
    // A ship's, by which OpenClaw logs in to Urbit.
    squeezed == "code" || parts.iter().any(|part| squeezed.contains(part)) || is_secret_name(&words(key))
}

/// `camelCase` as `camel_Case`.
fn words(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut before = '_';
    for c in key.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            out.push('_');
        }
        out.push(if c == '-' || c == '.' { '_' } else { c });
        before = c;
    }
    out
}

/// Whether a word looks like a secret wherever it stands.
#[must_use]
pub fn looks_secret(word: &str) -> bool {
    begins_secret(word)
        || word.contains("PRIVATE KEY-----")
        || is_bot_token(word)
        || is_ship_code(word)
        || is_long_key(word)
}

/// As Urbit's, by which one logs in: four words of six letters.
fn is_ship_code(word: &str) -> bool {
    let is_word = |word: &str| word.len() == 6 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    word.split('-').count() == 4 && word.split('-').all(is_word)
}

fn begins_secret(word: &str) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| word.len() >= beginning.len() + SHORTEST_KNOWN && word.starts_with(beginning))
}

/// As Telegram's: digits, a colon, some 35 characters.
pub(crate) fn is_bot_token(word: &str) -> bool {
    word.split_once(':').is_some_and(|(id, rest)| {
        id.len() >= 6
            && id.bytes().all(|byte| byte.is_ascii_digit())
            && rest.len() >= 20
            && !rest.contains([' ', '/'])
    })
}

/// Long, without spaces or slashes, with letters and digits: no word, no path, no model.
fn is_long_key(word: &str) -> bool {
    word.len() >= LONGEST_WORD
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+=.".contains(&byte))
        && has_letters_and_digits(word)
}

fn has_letters_and_digits(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit()) && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// What is secret in a word that as a whole is none, in order: in URLs, in what is assigned to a name in it, as in a
/// header, a command or a connection string, before an `@`, and what begins like a secret.
#[must_use]
pub fn parts(word: &str) -> Vec<Range<usize>> {
    let mut found = of_urls(word);
    assigned(word, &mut found);
    of_options(word, &mut found);
    let mut begin = 0;
    for run in word.split_inclusive(|c: char| c.is_whitespace() || "\"'=:,;&|<>()".contains(c)) {
        let end =
            begin + run.trim_end_matches(|c: char| c.is_whitespace() || "\"'=:,;&|<>()".contains(c)).len();
        if looks_secret(&word[begin..end]) {
            found.push(begin..end);
        }
        begin += run.len();
    }
    found.extend(credentials(word));
    merged(found)
}

/// In order, and none in another.
fn merged(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.retain(|range| !range.is_empty());
    found.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match out.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(_) | None => out.push(range),
        }
    }
    out
}

/// `name:password@` where no URL is: as drivers of databases have it.
fn credentials(word: &str) -> Option<Range<usize>> {
    let at = word.find('@').filter(|_| !word.contains("://"))?;
    let (name, password) = word[..at].split_once(':')?;
    let is_one = !name.is_empty()
        && !password.is_empty()
        && !word[..at].contains(|c: char| c.is_whitespace() || "/\"'{".contains(c));
    is_one.then_some(0..at)
}

/// What is assigned to names of secrets: `name=value`, `Name: value`.
fn assigned(word: &str, found: &mut Vec<Range<usize>>) {
    for (at, sign) in word.char_indices().filter(|(_, c)| "=:".contains(*c)) {
        let rest = &word[at + 1..];
        if sign == ':' && (rest.starts_with("//") || rest.starts_with(r"\/\/")) {
            continue;
        }
        // Quoted, as in JSON, which may stand in a string itself.
        let before = word[..at].trim_end_matches([' ', '\\', '"', '\'']);
        let name = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c))
            .map_or(before, |last| before[last..].strip_prefix(|_: char| true).unwrap_or_default());
        if !is_sensitive(name.trim_start_matches('-')) {
            continue;
        }
        let lead = rest.len() - rest.trim_start_matches([' ', '\\', '"', '\'']).len();
        let value = &rest[lead..];
        let quote = rest[..lead].chars().last().filter(|c| "\"'".contains(*c));
        let ends = |c: char| match quote {
            Some(quote) => c == quote,
            None => "\"'\n".contains(c) || sign == '=' && (c.is_whitespace() || ";&,".contains(c)),
        };
        let end = value.find(ends).unwrap_or(value.len());
        if !matches!(&value[..end], "" | "true" | "false" | "null") {
            found.push(at + 1 + lead..at + 1 + lead + end);
        }
    }
}

/// Whether the next word is a secret after this one: `--api-key`, `-u`.
#[must_use]
pub fn is_sensitive_option(word: &str) -> bool {
    const CREDENTIALS: [&str; 4] = ["-u", "-p", "--user", "--proxy-user"];
    CREDENTIALS.contains(&word) || word.starts_with('-') && !word.contains('=') && is_sensitive(word)
}

/// Whether this can be what such an option is followed by: no other option, no path, no port.
#[must_use]
pub fn is_sensitive_argument(option: &str, word: &str) -> bool {
    let is_place =
        word.starts_with(['/', '.', '~', '$']) || word.bytes().all(|byte| b"0123456789:.-".contains(&byte));
    !(word.is_empty() || word.starts_with('-') || option == "-p" && is_place)
}

/// What follows options in a command line.
fn of_options(word: &str, found: &mut Vec<Range<usize>>) {
    let is_between = |c: char| c.is_whitespace() || "\"'\\".contains(c);
    let mut option = "";
    let mut begin = 0;
    for run in word.split_inclusive(is_between) {
        let text = run.trim_end_matches(is_between);
        let range = begin..begin + text.len();
        begin += run.len();
        if text.is_empty() {
            continue;
        }
        if is_sensitive_option(option) && is_sensitive_argument(option, text) {
            found.push(range);
        } else if let Some(glued) = text.strip_prefix("-p")
            && glued.len() >= SHORTEST_GLUED
            && is_sensitive_argument("-p", glued)
        {
            // As mysql(1) has it.
            found.push(range.start + 2..range.end);
        }
        option = text;
    }
}

/// What may be secret in the URLs of a word, in order: name and password, parts of a path that could be keys, as webhooks
/// have them, and all that is asked with.
fn of_urls(word: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = begin_of_authority(word, at) {
        at = of_url(word, begin, &mut found);
    }
    found
}

/// Where the next URL's authority begins; its slashes may be escaped, as JSON allows.
fn begin_of_authority(word: &str, from: usize) -> Option<usize> {
    let rest = &word[from..];
    let places = ["://", r":\/\/"].iter().filter_map(|sign| rest.find(sign).map(|at| from + at + sign.len()));
    places.min()
}

/// The same of one URL. Says where it ends.
fn of_url(word: &str, begin: usize, found: &mut Vec<Range<usize>>) -> usize {
    let end = word[begin..].find(char::is_whitespace).map_or(word.len(), |at| begin + at);
    let url = &word[begin..end];
    let query = url.find(['?', '#']).unwrap_or(url.len());
    let host = match end_of_user(&url[..query]) {
        Some(at) => {
            found.push(begin..begin + at);
            at + 1
        }
        None => 0,
    };
    let mut part = host;
    for (index, text) in url[host..query].split('/').enumerate() {
        if index > 0 && could_be_key(text) {
            found.push(begin + part..begin + part + text.len());
        }
        part += text.len() + 1;
    }
    let mut at = query + 1;
    for pair in url.get(query + 1..).unwrap_or_default().split(['&', ';', '#', '?']) {
        let value = pair.find('=').map_or(0, |equals| equals + 1);
        if !is_harmless(&pair[value..]) {
            found.push(begin + at + value..begin + at + pair.len());
        }
        at += pair.len() + 1;
    }
    end
}

/// Where the `@` is that ends name and password. A password with a slash in it belongs into no URL, and is found in some.
fn end_of_user(url: &str) -> Option<usize> {
    let authority = url.split('/').next().unwrap_or(url);
    let is_port = |(_, port): (&str, &str)| port.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some(parts) if !authority.contains('@') && !authority.ends_with(']') && !is_port(parts) => {
            url.rfind('@')
        }
        Some(_) | None => authority.rfind('@'),
    }
}

/// Numbers of a page, and yes or no.
fn is_harmless(value: &str) -> bool {
    matches!(value, "" | "true" | "false")
        || value.len() <= 4 && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a part of a path could be one.
fn could_be_key(part: &str) -> bool {
    let is_mixed = |part: &str| {
        part.bytes().any(|byte| byte.is_ascii_lowercase())
            && part.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    looks_secret(part) || part.len() >= LONGEST_PART && (has_letters_and_digits(part) || is_mixed(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: &str) -> String {
        let mut out = word.to_owned();
        of_urls(word).into_iter().rev().for_each(|range| out.replace_range(range, "…"));
        out
    }

    #[test]
    fn what_a_url_is_asked_with_is_withheld_and_where_it_leads_is_shown() {
        for (url, expected) in [
            ("https://docs.example.com/v1/models", "https://docs.example.com/v1/models"),
            (
                "http://127.0.0.1:18789/health?page=2&all=true",
                "http://127.0.0.1:18789/health?page=2&all=true",
            ),
            ("https://sfo.browserless.io?token=2SpCANARY", "https://sfo.browserless.io?token=…"),
            (
                "wss://c.browserbase.com/?apiKey=bb_live&r=eu#a=1x",
                "wss://c.browserbase.com/?apiKey=…&r=…#a=…",
            ),
            ("https://h.example/x?S3CR3T", "https://h.example/x?…"),
            (
                "https://hooks.slack.com/services/T0/B0/QrStAbCdQrSt1234",
                "https://hooks.slack.com/services/T0/B0/…",
            ),
            ("https://api.telegram.org/bot123456:ABCdefGHIjkl/send", "https://api.telegram.org/…/send"),
            ("redis://user:pa/ss@host:6379/0", "redis://…@host:6379/0"),
            (r"https:\/\/u:p@host\/a?k=v", r"https:\/\/…@host\/a?k=…"),
            ("see http://a/?t=secret and http://b/?t=other", "see http://a/?t=… and http://b/?t=…"),
            ("https://registry.npmjs.org/@scope/name", "https://registry.npmjs.org/@scope/name"),
            ("http://proxy:1/a@b", "http://proxy:1/a@b"),
            ("ws://[::1]:18789/a@b", "ws://[::1]:18789/a@b"),
            ("no url at all", "no url at all"),
            ("://", "://"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn what_is_assigned_in_a_word_or_stands_in_it_is_found() {
        let shown = |word: &str| {
            let mut out = word.to_owned();
            parts(word).into_iter().rev().for_each(|range| out.replace_range(range, "…"));
            out
        };
        for (word, expected) in [
            ("Authorization: Bearer abc.def", "Authorization: …"),
            ("X-Api-Key: abc", "X-Api-Key: …"),
            ("env FIRECRAWL_API_KEY=fc-1 npx it", "env FIRECRAWL_API_KEY=… npx it"),
            ("--token=x1", "--token=…"),
            ("jdbc:sqlserver://h:1;user=sa;password=p4ss;x=1", "jdbc:sqlserver://h:1;user=sa;password=…;x=1"),
            ("host=h dbname=d password='p q'", "host=h dbname=d password='…'"),
            (
                "AccountName=a;AccountKey=abc==;EndpointSuffix=s",
                "AccountName=a;AccountKey=…;EndpointSuffix=s",
            ),
            ("user:pw@tcp(h:3306)/db", "…@tcp(h:3306)/db"),
            ("use sk-ant-0123456789 here", "use … here"),
            ("maxTokens=4096", "maxTokens=4096"),
            ("mode=token", "mode=token"),
            ("PWD=/home/me", "PWD=/home/me"),
            ("10:30, me@example.com", "10:30, me@example.com"),
            ("@scope/name@1.2.3", "@scope/name@1.2.3"),
            (r#"{\"exaApiKey\":\"x1\",\"depth\":\"2\"}"#, r#"{\"exaApiKey\":\"…",\"depth\":\"2\"}"#),
            (r#"{"exaApiKey": "x1"}"#, r#"{"exaApiKey": "…"}"#),
            ("npx -y mcp --api-key x1 --depth 2", "npx -y mcp --api-key … --depth 2"),
            ("sh -c \"curl -u bot:x1 h\"", "sh -c \"curl -u … h\""),
            ("mysql -px1y2 -h db; sshpass -p x1 ssh h", "mysql -p… -h db; sshpass -p … ssh h"),
            (
                "ssh -p 22 h; docker run -p 80:80 x; mkdir -p /a",
                "ssh -p 22 h; docker run -p 80:80 x; mkdir -p /a",
            ),
        ] {
            assert_eq!(shown(word), expected);
        }
    }

    #[test]
    fn secrets_are_told_by_name_and_by_form() {
        for name in [
            "OPENAI_API_KEY",
            "GITHUB_PAT",
            "db_password",
            "SENTRY_DSN",
            "MYSQL_PWD",
            "SSHPASS",
            "CUSTOM_HEADERS",
            "OTP_SEED",
            "MNEMONIC",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["HOME", "PATH", "KEYBOARD", "AUTHOR", "LANG", "PWD"] {
            assert!(!is_secret_name(name), "{name}");
        }
        for secret in ["Basic dXNlcjpwdw==", "hf_AbCdEfGhIj", "npm_0123456789", "rk_live_0123456789"] {
            assert!(looks_secret(secret), "{secret}");
        }
        assert!(looks_secret("sk-ant-0123456789") && looks_secret("123456789:AAbbccddeeffgghhiijjkk"));
        assert!(looks_secret("lidlut-tabwed-pillex-ridrup") && is_sensitive("code"));
        assert!(!looks_secret("claude-sonnet-4") && !looks_secret("/var/lib/openclaw/main/state"));
    }
}
