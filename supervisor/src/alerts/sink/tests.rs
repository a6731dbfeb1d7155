use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap};
use http::{StatusCode, Uri};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::alerts::{
    desk::Notice,
    message::compose,
    trouble::{Trouble, Turn},
};

/// What a service was asked, and what it answers.
#[derive(Debug, Clone, Default)]
struct Service {
    asked: Arc<Mutex<Vec<(String, HeaderMap, String)>>>,
    answer: Arc<Mutex<(u16, Option<&'static str>)>>,
}

impl Service {
    /// One that listens, and where.
    async fn start() -> (Self, String) {
        let service = Self { answer: Arc::new(Mutex::new((200, None))), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::take).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (service, format!("http://{address}"))
    }

    async fn take(
        State(service): State<Self>,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> axum::response::Response {
        let body = String::from_utf8(body.to_vec()).unwrap();
        service.asked.lock().unwrap().push((uri.path().to_owned(), headers, body));
        let (status, retry) = *service.answer.lock().unwrap();
        let mut answer = http::Response::builder().status(StatusCode::from_u16(status).unwrap());
        if let Some(retry) = retry {
            answer = answer.header("retry-after", retry);
        }
        answer.body("go away\u{1b}".into()).unwrap()
    }

    fn asked(&self) -> (String, HeaderMap, String) {
        self.asked.lock().unwrap().pop().unwrap()
    }
}

fn message() -> Message {
    let trouble = Trouble {
        instance: "main".into(),
        weight: Weight::Error,
        title: "main ist weg, größer".into(),
        why: "said <!channel> & more".into(),
        hint: "openclawctl status main".into(),
        at_once: true,
    };
    let notice = Notice { key: "instance/main".into(), turn: Turn::Began, trouble, since_ns: 1, at_ns: 1 };
    compose(&[notice], &BTreeMap::new(), "alpha")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

fn file(directory: &TempDir, content: &str, mode: u32) -> PathBuf {
    let path = directory.path().join("secret");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[tokio::test]
async fn each_service_is_told_in_its_own_way() {
    let (service, at) = Service::start().await;
    let directory = tempfile::tempdir().unwrap();
    let token = file(&directory, "s3cret-token\n", 0o600);
    let (http, message) = (Http::new(), message());

    let place = Place::Url(format!("{at}/hook"));
    let way = Way::Webhook { place, token: Some(token.clone()) };
    assert_eq!(tell(&way, &message, &http).await, Outcome::Told);
    let (path, headers, body) = service.asked();
    assert_eq!((path.as_str(), text(&headers, "authorization")), ("/hook", "Bearer s3cret-token"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["version"], &body["alerts"][0]["instance"]), (&1.into(), &"main".into()));

    let way = Way::Ntfy { place: Place::Url(format!("{at}/topic")), token: None };
    assert_eq!(tell(&way, &message, &http).await, Outcome::Told);
    let (path, headers, body) = service.asked();
    assert_eq!(
        (path.as_str(), text(&headers, "priority"), text(&headers, "tags")),
        ("/topic", "urgent", "rotating_light")
    );
    assert!(text(&headers, "title").starts_with("=?UTF-8?B?"));
    assert!(body.contains("To do: openclawctl status main"));

    let url = file(&directory, &format!("{at}/services/T0/B0/x"), 0o400);
    assert_eq!(tell(&Way::Slack { place: Place::File(url) }, &message, &http).await, Outcome::Told);
    let (path, _, body) = service.asked();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(path, "/services/T0/B0/x");
    assert!(body["text"].as_str().unwrap().contains("said &lt;!channel&gt; &amp; more."), "{body}");

    let token = file(&directory, "123:abc", 0o600);
    let way = Way::Telegram { api: at, chat: "-42".into(), token };
    assert_eq!(tell(&way, &message, &http).await, Outcome::Told);
    let (path, _, body) = service.asked();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((path.as_str(), &body["chat_id"]), ("/bot123:abc/sendMessage", &"-42".into()));
    assert!(body["text"].as_str().unwrap().contains("said <!channel> & more."), "{body}");
}

#[tokio::test]
async fn whoever_refuses_is_left_alone_for_as_long_as_that_takes() {
    let (service, at) = Service::start().await;
    let (http, message) = (Http::new(), message());
    let way = Way::Ntfy { place: Place::Url(at), token: None };
    for (status, retry, expected) in [
        (503, None, Duration::ZERO),
        (429, Some("77"), Duration::from_secs(77)),
        (404, None, REFUSED),
        // Nobody is led elsewhere.
        (302, None, REFUSED),
    ] {
        *service.answer.lock().unwrap() = (status, retry);
        let Outcome::Failed(why, leave) = tell(&way, &message, &http).await else { panic!("it was taken") };
        assert_eq!(leave, expected, "{status}");
        assert!(why.contains(&status.to_string()) && why.ends_with(": go away"), "{why}");
    }
}

#[tokio::test]
async fn why_nothing_was_told_names_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let (http, message) = (Http::new(), message());
    let mut whys = Vec::new();
    for (content, mode) in [
        ("http://127.0.0.1:1/CANARY", 0o600),
        ("CANARY CANARY", 0o600),
        ("CANARY", 0o644),
        ("CANARY://", 0o600),
    ] {
        let way = Way::Slack { place: Place::File(file(&directory, content, mode)) };
        let Outcome::Failed(why, _) = tell(&way, &message, &http).await else { panic!("it was taken") };
        assert!(!why.contains("CANARY"), "{why}");
        whys.push(why);
    }
    assert!(whys[0].contains("cannot be reached"), "{}", whys[0]);
    assert!(whys[2].contains("chmod 600"), "{}", whys[2]);
    let (service, at) = Service::start().await;
    *service.answer.lock().unwrap() = (404, None);
    let token = file(&directory, "away", 0o600);
    for way in [
        Way::Webhook { place: Place::Url(at.clone()), token: Some(token.clone()) },
        Way::Telegram { api: at, chat: "1".into(), token },
    ] {
        let Outcome::Failed(why, _) = tell(&way, &message, &http).await else { panic!("it was taken") };
        assert_eq!(why, "it answered 404 Not Found");
    }
    let gone = Way::Slack { place: Place::File(directory.path().join("gone")) };
    assert!(
        matches!(tell(&gone, &message, &http).await, Outcome::Failed(why, _) if why.contains("cannot be read"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_by_its_environment() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let script =
        format!("printf '%s|%s' \"$OPENCLAW_ALERT_SEVERITY\" \"$OPENCLAW_ALERT_JSON\" > {}", out.display());
    let command =
        |script: &str| Way::Exec { command: vec!["/bin/sh".into(), "-c".into(), script.to_owned()] };
    let (http, message) = (Http::new(), message());
    assert_eq!(tell(&command(&script), &message, &http).await, Outcome::Told);
    let told = fs::read_to_string(out).unwrap();
    let (severity, json) = told.split_once('|').unwrap();
    assert_eq!(
        (severity, serde_json::from_str::<serde_json::Value>(json).unwrap()),
        ("error", message.json.clone())
    );
    let failed = tell(&command("echo no pager; exit 3"), &message, &http).await;
    assert_eq!(failed, Outcome::Failed("it ended with 3: no pager".into(), Duration::ZERO));
}
