//! What people are told when something goes wrong, by real daemons, over real connections.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State};
use http::Uri;
use supervisor_proto::v1::{
    GetAlertsRequest, GetAlertsResponse, InstanceSpec, RestartPolicy, TestAlertsRequest,
    alert_service_client::AlertServiceClient,
};
use support::{Host, builtin, kill_9, until};
use tokio::net::TcpListener;

/// Somebody who is told.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<(String, String)>>>);

impl Told {
    /// Hears from now on what is said at this address.
    async fn listen(address: &str) -> (Self, String) {
        let told = Self::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(Self::take).with_state(told.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (told, address)
    }

    async fn take(State(told): State<Self>, uri: Uri, body: Bytes) {
        let body = String::from_utf8(body.to_vec()).unwrap();
        told.0.lock().unwrap().push((uri.path().to_owned(), body));
    }

    /// What was said there so far.
    fn at(&self, path: &str) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect()
    }
}

fn set(host: &Host, alerts: &str) {
    let path = host.data_dir().join("settings.yaml");
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    write!(file, "\nalerts:\n  after: 0s\n  group_for: 0s\n  boot_grace: 0s\n{alerts}").unwrap();
}

async fn alerts(host: &Host) -> GetAlertsResponse {
    let mut client = AlertServiceClient::new(host.channel().await.unwrap());
    client.get_alerts(GetAlertsRequest {}).await.unwrap().into_inner()
}

/// One that stays away for as long as a test may take.
fn slow_to_return() -> InstanceSpec {
    let delay = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let restart = RestartPolicy { initial_delay: delay, max_delay: delay, ..Default::default() };
    InstanceSpec { restart: Some(restart), ..builtin() }
}

#[tokio::test]
async fn whoever_is_to_be_told_is_told_once_whatever_dies_on_the_way() {
    let (phone, address) = Told::listen("127.0.0.1:0").await;
    let mut host = Host::prepare();
    // In the second block of this test's own ports, where nobody listens yet.
    let late = format!("127.0.0.1:{}", host.first_port + 25);
    set(
        &host,
        &format!(
            "  sinks:\n  - {{ name: phone, kind: ntfy, url: \"http://{address}/phone\" }}\n  \
             - {{ name: late, kind: webhook, url: \"http://{late}/late\" }}\n"
        ),
    );
    host.start_supervisor().await;
    host.create("main", slow_to_return()).await;
    kill_9(host.up("main").await.pid);
    let told = until("the phone is told", async || phone.at("/phone").pop()).await;
    assert!(told.contains("killed by SIGKILL") && told.contains("To do: openclawctl"), "{told}");
    until("the other one cannot be told", async || {
        let sinks = alerts(&host).await.sinks;
        sinks.into_iter().find(|sink| sink.name == "late" && sink.fail_time.is_some() && sink.waiting == 1)
    })
    .await;
    // Who dies before it has written down that somebody was told tells him once more.
    until("it is written down", async || {
        let kept = fs::read_to_string(host.data_dir().join("alerts.json")).ok()?;
        let kept: serde_json::Value = serde_json::from_str(&kept).ok()?;
        let waiting = kept["waiting"].as_array()?;
        (waiting.len() == 1 && waiting[0]["sink"] == "late").then_some(())
    })
    .await;
    host.kill_supervisor();
    host.start_supervisor().await;
    let (webhook, _) = Told::listen(&late).await;
    let told = until("it is told after all", async || webhook.at("/late").pop()).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["alerts"][0]["instance"], &told["alerts"][0]["state"]),
        (&"main".into(), &"began".into())
    );
    until("both are well", async || {
        alerts(&host)
            .await
            .sinks
            .iter()
            .all(|sink| sink.waiting == 0 && sink.fail_time.is_none())
            .then_some(())
    })
    .await;
    assert_eq!((phone.at("/phone").len(), webhook.at("/late").len()), (1, 1));
    let known = alerts(&host).await.alerts;
    assert!(known.len() == 1 && known[0].told && known[0].instance == "main", "{known:?}");
}

#[tokio::test]
async fn a_test_says_of_each_sink_whether_it_was_told_and_a_heartbeat_is_heard() {
    let (told, address) = Told::listen("127.0.0.1:0").await;
    let mut host = Host::prepare();
    set(
        &host,
        &format!(
            "  heartbeat: {{ url: \"http://{address}/beat\", every: 10s }}\n  sinks:\n  \
             - {{ name: phone, kind: ntfy, url: \"http://{address}/phone\" }}\n  \
             - {{ name: script, kind: exec, command: [/bin/false] }}\n"
        ),
    );
    host.start_supervisor().await;
    let mut client = AlertServiceClient::new(host.channel().await.unwrap());
    let outcomes = client.test_alerts(TestAlertsRequest::default()).await.unwrap().into_inner().outcomes;
    let outcomes: Vec<_> = outcomes.iter().map(|one| (one.name.as_str(), one.failure.as_str())).collect();
    assert_eq!(outcomes, [("phone", ""), ("script", "it ended with 1: ")]);
    assert_eq!(told.at("/phone").len(), 1);
    until("a heartbeat is heard", async || told.at("/beat").pop()).await;
    let refused = client.test_alerts(TestAlertsRequest { names: vec!["nobody".into()] }).await.unwrap_err();
    assert_eq!(refused.message(), "no sink for alerts is called `nobody`; there are phone, script.");
}
