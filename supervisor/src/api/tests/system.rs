use std::fs;

use supervisor_proto::v1::{
    GetInfoRequest, GetInfoResponse, GetSettingsRequest, InstanceSpec, ListPortsRequest, ReloadRequest,
    ShutdownRequest, StartInstanceRequest,
};
use tonic::Code;

use super::{
    client::{Server, refused, within},
    world::Conduct,
};

async fn info(server: &Server) -> GetInfoResponse {
    within(server.system().get_info(GetInfoRequest {})).await.unwrap().into_inner()
}

#[tokio::test]
async fn the_supervisor_tells_about_itself() {
    let server = Server::start().await;
    server.create("main", InstanceSpec::default()).await;
    let info = info(&server).await;
    assert_eq!((info.epoch, info.instances), (3, 1));
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.socket, server.socket().to_string_lossy());
    assert!(info.capabilities.contains(&"failover".to_owned()));
    assert!(info.capabilities.is_sorted());
    assert_eq!(info.start_time.unwrap().seconds, 1_767_225_600);
}

#[tokio::test]
async fn a_failing_disk_raises_an_alarm() {
    let server = Server::start().await;
    let before = info(&server).await.alarms.len();
    server.world.break_disk();
    let mut views = server.world.handle.watch();
    within(views.wait_for(|view| view.store_failing)).await.unwrap();
    let alarms = info(&server).await.alarms;
    assert_eq!(alarms.len(), before + 1);
    assert!(alarms[0].starts_with("Changes cannot be stored in "), "{alarms:?}");
}

#[tokio::test]
async fn the_settings_are_shown_and_read_again() {
    let server = Server::start().await;
    let file = server.world.directory.path().join("settings.yaml");
    let settings = within(server.system().get_settings(GetSettingsRequest {})).await.unwrap().into_inner();
    assert_eq!((settings.pool_first, settings.pool_last, settings.block_size), (18_789, 32_767, 20));
    assert!(settings.content.contains("max_instances: 2000"), "{}", settings.content);

    fs::write(&file, "pool: { first: 20000, last: 21000 }\nmax_instances: 5\n").unwrap();
    let changes = within(server.system().reload(ReloadRequest {})).await.unwrap().into_inner().changes;
    assert_eq!(
        changes,
        [
            "`pool` was 18789 to 32767 and is 20000 to 21000.",
            "`max_instances` was 2000 and is 5, from the supervisor's next start on.",
        ]
    );
    let main = server.create("main", InstanceSpec::default()).await;
    assert_eq!(main.status.unwrap().ports.unwrap().base, 20_000);
    let settings = within(server.system().get_settings(GetSettingsRequest {})).await.unwrap().into_inner();
    assert_eq!((settings.pool_first, settings.max_instances), (20_000, 2_000));

    fs::write(&file, "pool: 7\n").unwrap();
    let sentence = refused(
        within(server.system().reload(ReloadRequest {})).await,
        Code::InvalidArgument,
        "INVALID_SPEC",
    );
    assert!(sentence.contains("settings.yaml:1:7"), "{sentence}");
    assert_eq!(server.world.handle.view().pool.first, 20_000, "nothing has changed");

    let one = |directory| format!("- {{ token_file: {directory}/token, role: admin }}\n");
    fs::write(&file, format!("access:\n{}{}", one("/srv/a"), one("/srv/b"))).unwrap();
    let sentence = refused(
        within(server.system().reload(ReloadRequest {})).await,
        Code::InvalidArgument,
        "INVALID_SPEC",
    );
    assert!(sentence.contains("settings.yaml:3:17"), "{sentence}");
}

#[tokio::test]
async fn each_port_is_listed_with_who_holds_it() {
    let server = Server::start().await;
    server.create("main", InstanceSpec::default()).await;
    server.create("other", InstanceSpec::default()).await;
    let all = within(server.system().list_ports(ListPortsRequest::default())).await.unwrap().into_inner();
    assert_eq!(all.instances.len(), 2);
    let request = ListPortsRequest { name: "main".into() };
    let main = within(server.system().list_ports(request)).await.unwrap().into_inner().instances.remove(0);
    assert_eq!((main.base, main.last, main.ports.len()), (18_789, 18_808, 12));
    assert_eq!(
        (main.ports[0].purpose.as_str(), main.ports[0].pid, main.ports[0].foreign),
        ("gateway", 0, false)
    );
    let squatted = &main.ports[1];
    assert_eq!((squatted.port, squatted.purpose.as_str()), (18_791, "browser-control"));
    assert_eq!((squatted.pid, squatted.command.as_str(), squatted.foreign), (1, "init", true));
    let nobody = ListPortsRequest { name: "nobody".into() };
    refused(within(server.system().list_ports(nobody)).await, Code::NotFound, "UNKNOWN_INSTANCE");
}

#[tokio::test]
async fn a_shutdown_ends_the_server_and_leaves_the_instances() {
    let server = Server::start().await;
    server.up("main").await;
    within(server.system().shutdown(ShutdownRequest::default())).await.unwrap();
    within(server.served).await.unwrap().unwrap();
    assert!(server.world.handle.view().instances["main"].process().is_some());
    assert!(!super::client::Server::socket_of(&server.world).exists());
}

#[tokio::test]
async fn a_shutdown_that_stops_all_ends_when_all_have_stopped() {
    let server = Server::start().await;
    server.world.conduct("slow", Conduct::Stubborn);
    for name in ["main", "slow"] {
        server.up(name).await;
    }
    let mut client = server.system();
    let ends = tokio::spawn(async move { client.shutdown(ShutdownRequest { stop_instances: true }).await });
    let mut views = server.world.handle.watch();
    within(views.wait_for(|view| view.halting && view.instances["main"].process().is_none())).await.unwrap();
    let start = StartInstanceRequest { name: "main".into(), ..Default::default() };
    refused(within(server.instances().start_instance(start)).await, Code::Unavailable, "SHUTTING_DOWN");
    assert!(!ends.is_finished() && !server.shutdown.is_cancelled());
    server.world.kill("slow");
    within(ends).await.unwrap().unwrap();
    within(server.served).await.unwrap().unwrap();
    assert!(server.world.handle.view().instances.values().all(|instance| instance.process().is_none()));
}
