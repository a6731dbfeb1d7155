//! What one caller asks for keeps no other waiting, however long it takes.

use std::fs;

use supervisor_proto::v1::{DiffSnapshotRequest, config_service_client::ConfigServiceClient};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    fort::Fort,
    support::{builtin, until},
};

/// So many that they take a while.
const CALLS: usize = 100;

async fn compare(channel: Channel) {
    let request = DiffSnapshotRequest { name: "main".into(), ..Default::default() };
    ConfigServiceClient::new(channel).diff_snapshot(request).await.unwrap();
}

#[tokio::test]
async fn who_has_a_hundred_configurations_compared_keeps_nobody_else_waiting() {
    let fort = Fort::build().await;
    fort.host.create("main", builtin()).await;
    fort.host.up("main").await;
    let config = fort.host.data_dir().join("instances/main/state/openclaw.json");
    let long: String =
        (0..10_000).map(|number| format!("// {number}: nothing that anybody reads\n")).collect();
    fs::write(&config, fs::read_to_string(&config).unwrap() + &long).unwrap();
    let viewer = fort.channel(&fort.papers("curious", "viewer", "").await).await;
    let mut asked = JoinSet::new();
    for _ in 0..CALLS {
        asked.spawn(compare(viewer.clone()));
    }
    until("the first is answered", async || asked.try_join_next()).await.unwrap();
    compare(fort.host.channel().await.unwrap()).await;
    while let Some(answered) = asked.try_join_next() {
        answered.unwrap();
    }
    assert!(asked.len() > CALLS / 2, "{} were still to be answered", asked.len());
}
