//! What is read by HTTP beside the services.

use std::collections::{BTreeMap, BTreeSet};

use supervisor_core::{ids::Name, journal::Severity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use supervisor_proto::v1::{Phase, rescue_policy::Standby};

use super::client::{Server, rescues, within};
use crate::lineage::Origin;

/// What a plain HTTP client gets: the head and the body. Who has been answered is let go.
async fn get(server: &Server, path: &str) -> (String, String) {
    let answer = within(async {
        let mut stream = UnixStream::connect(server.socket()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let answer = answer.await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The samples of a page, by series.
async fn samples(server: &Server) -> BTreeMap<String, f64> {
    let (head, body) = get(server, "/metrics").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let series = body.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(s, v)| (s.to_owned(), v.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn prometheus_reads_how_every_instance_stands_and_what_became_of_it() {
    let server = Server::start().await;
    let before = samples(&server).await;
    assert_eq!(before["openclaw_supervisor_port_blocks{state=\"held\"}"], 0.0);
    assert_eq!(before["openclaw_recovery_seconds_count{by=\"failover\"}"], 0.0, "complete when idle");
    server.up("main").await;
    server.create("rescue", rescues("main", Standby::Warm)).await;
    let seen = samples(&server).await;
    assert_eq!(seen["openclaw_instance_phase{name=\"main\",phase=\"ready\"}"], 1.0);
    assert_eq!(seen["openclaw_instance_role{name=\"main\",role=\"primary\"}"], 1.0);
    assert_eq!(seen["openclaw_instance_ready{name=\"main\"}"], 1.0);
    assert_eq!(
        (seen["openclaw_instance_up{name=\"rescue\"}"], seen["openclaw_instance_port{name=\"main\"}"]),
        (0.0, 18_789.0)
    );
    assert!(!seen.contains_key("openclaw_instance_start_time_seconds{name=\"rescue\"}"));
    assert_eq!(seen["openclaw_instance_restarts_total{name=\"main\",cause=\"killed\"}"], 0.0);
    server.world.kill("main");
    server.until("main", |status| status.restarts == 1 && status.phase() == Phase::Ready).await;
    let seen = samples(&server).await;
    assert_eq!(seen["openclaw_instance_restarts_total{name=\"main\",cause=\"killed\"}"], 1.0);
    assert_eq!(seen["openclaw_recovery_seconds_count{by=\"restart\"}"], 1.0);
    assert!(seen["openclaw_supervisor_store_commit_seconds_count"] > 0.0);
    let warnings = format!("openclaw_supervisor_events_total{{severity=\"{}\"}}", "warning");
    assert!(seen[&warnings] >= 1.0, "{:?} matters", Severity::Warning);
}

#[tokio::test]
async fn the_page_keeps_the_conventions_and_an_instance_adds_a_bounded_number_of_lines() {
    let server = Server::start().await;
    server.up("main").await;
    let (head, body) = get(&server, "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let (mut kinds, mut helped, mut series) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for line in body.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                assert!(help.ends_with('.') && helped.insert((*name).to_owned()), "{line}");
            }
            ["#", "TYPE", name, kind] => {
                assert!(kinds.insert((*name).to_owned(), (*kind).to_owned()).is_none(), "{line}");
            }
            ["#", "UNIT", name, unit] => {
                assert!(["seconds", "bytes"].contains(unit) && name.ends_with(unit), "{line}");
            }
            _ => {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok() && series.insert(sample.to_owned()), "{line}");
                let name = sample.split('{').next().unwrap();
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                let suffixes: &[(&str, &str)] = &[
                    ("_total", "counter"),
                    ("_info", "info"),
                    ("_bucket", "histogram"),
                    ("_count", "histogram"),
                    ("_sum", "histogram"),
                    ("", "gauge"),
                ];
                let known = suffixes.iter().any(|(suffix, kind)| {
                    let family = name.strip_suffix(suffix);
                    family.and_then(|family| kinds.get(family)).is_some_and(|found| found == kind)
                });
                assert!(known, "{line}");
                assert!(!sample.contains("instance=\""), "that label is Prometheus' own: {line}");
            }
        }
    }
    assert_eq!(helped, kinds.into_keys().collect());
    server.up("other").await;
    let (_, more) = get(&server, "/metrics").await;
    let added = more.lines().count() - body.lines().count();
    assert!(added <= 30, "{added}");
    assert!(more.lines().filter(|line| line.contains("\"other\"")).count() == added);
}

#[tokio::test]
async fn the_page_is_for_those_who_may_see_the_fleet() {
    let server = Server::start().await;
    *server.origin.lock().unwrap() = Some(Origin::Inside(Name::new("main").unwrap()));
    let (head, body) = get(&server, "/metrics").await;
    assert!(head.starts_with("http/1.1 403"), "{head}");
    assert!(body.contains("`main`") && body.ends_with(".\n"), "{body}");
    let (head, _) = get(&server, "/elsewhere").await;
    assert!(head.starts_with("http/1.1 "), "{head}");
}
