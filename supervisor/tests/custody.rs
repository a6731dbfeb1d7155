//! Whose the supervisor's files are, with real daemons: what it closes itself, what it refuses, and what the doctor says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Output,
};

use nix::unistd::geteuid;

use supervisor_proto::v1::{
    self, ExamineRequest, Finding, doctor_service_client::DoctorServiceClient, finding::Severity,
};
use support::{Host, builtin, program, until};

/// A user that no host has.
const SOMEBODY: u32 = 64_125;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// A supervisor that ran once, with an instance and certificates, in everybody's reach.
async fn used() -> Host {
    let mut host = Host::start().await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let mut certificates =
        v1::certificate_service_client::CertificateServiceClient::new(host.channel().await.unwrap());
    certificates.init_authority(v1::InitAuthorityRequest::default()).await.unwrap();
    host.kill_supervisor();
    chmod(host.directory.path(), 0o755);
    host
}

/// What a supervisor says that does not begin.
fn refused(host: &Host) -> String {
    let Output { status, stderr, .. } = host.supervisor_command().output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

async fn examine(host: &Host, fix: bool) -> v1::ExamineResponse {
    let mut client = DoctorServiceClient::new(host.channel().await.unwrap());
    let request = ExamineRequest { fix, ..Default::default() };
    client.examine(request).await.unwrap().into_inner()
}

async fn alarms(host: &Host) -> Vec<String> {
    host.system().await.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().alarms
}

fn about<'a>(findings: &'a [Finding], path: &Path) -> Vec<&'a str> {
    let of = findings.iter().filter(|finding| finding.file == path.to_string_lossy());
    of.filter(|finding| finding.id.starts_with("state.")).map(|finding| finding.id.as_str()).collect()
}

#[tokio::test]
async fn all_that_a_supervisor_makes_is_its_alone_whatever_the_umask() {
    let mut host = Host::prepare();
    // As with a umask of 0.
    host.spawn_supervisor(|command| {
        use std::os::unix::process::CommandExt;
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = std::process::Command::new("sh");
        command.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(program).args(args);
        command.stdin(std::process::Stdio::null()).process_group(0);
    });
    support::until("it answers", async || host.try_instances().await.ok()).await;
    support::until("it answers", async || {
        host.try_instances().await.ok()?.list_instances(v1::ListInstancesRequest::default()).await.ok()
    })
    .await;
    host.create("main", builtin()).await;
    host.up("main").await;
    let mut certificates =
        v1::certificate_service_client::CertificateServiceClient::new(host.channel().await.unwrap());
    certificates.init_authority(v1::InitAuthorityRequest::default()).await.unwrap();
    let mut open = Vec::new();
    let mut places = vec![host.data_dir()];
    while let Some(place) = places.pop() {
        let found = fs::symlink_metadata(&place).unwrap();
        // What a gateway makes in its own is its own, and shows nothing that is not in a closed directory.
        let is_gateways = place.starts_with(host.data_dir().join("instances/main"));
        let is_public = place.extension().is_some_and(|ends| ends == "crt" || ends == "crl");
        if found.mode() & 0o077 != 0
            && !(found.is_file() && (is_gateways || is_public))
            && !found.is_symlink()
        {
            open.push(format!("{} {:o}", place.display(), found.mode() & 0o777));
        }
        if found.is_dir() {
            places.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // The test itself has made and written them.
    let own = format!("{} 711", host.data_dir().display());
    open.retain(|path| !path.contains("settings.yaml") && *path != own);
    assert_eq!(open, [""; 0]);
}

#[tokio::test]
async fn what_others_could_read_is_closed_at_the_start_and_told_of() {
    let mut host = used().await;
    let data = host.data_dir().canonicalize().unwrap();
    for (path, to) in
        [("", 0o755), ("run", 0o755), ("pki", 0o755), ("pki/ca.key", 0o644), ("supervisor.db", 0o640)]
    {
        chmod(&data.join(path), to);
    }
    host.start_supervisor().await;
    host.wait_ready("main").await;
    for (path, to) in [("", 0o711), ("run", 0o711), ("pki/ca.key", 0o600), ("supervisor.db", 0o600)] {
        assert_eq!(mode(&data.join(path)), to, "{path}");
    }
    let told = alarms(&host).await;
    for path in ["pki/ca.key", "supervisor.db"] {
        let path = data.join(path).display().to_string();
        assert!(told.iter().any(|alarm| alarm.contains(&path) && alarm.contains("anew")), "{told:?}");
        assert!(host.supervisor_log().contains(&path));
    }
    // The next one finds all well.
    host.kill_supervisor();
    host.start_supervisor().await;
    assert_eq!(alarms(&host).await, [""; 0]);
}

#[tokio::test]
async fn what_others_could_change_or_have_is_refused_with_what_to_type_and_no_gateway_notices() {
    let mut host = used().await;
    let data = host.data_dir().canonicalize().unwrap();
    chmod(&data, 0o711);
    let gateways = host.processes_of("main");
    let shown = |path: &str| data.join(path).to_string_lossy().trim_end_matches('/').to_owned();
    for (path, wide, typed) in [
        ("", 0o733, "711"),
        ("settings.yaml", 0o666, "644"),
        ("supervisor.db", 0o602, "600"),
        ("run", 0o777, "711"),
    ] {
        let before = mode(&data.join(path));
        chmod(&data.join(path), wide);
        let said = refused(&host);
        let mend = format!("chmod {typed} {}", shown(path));
        assert!(said.contains("other users could change") && said.contains(&mend), "{path}: {said}");
        assert_eq!(mode(&data.join(path)), wide, "whoever is to look at it finds it as it was");
        chmod(&data.join(path), before);
    }
    if nix::unistd::geteuid().is_root() {
        for path in ["", "supervisor.db", "pki/ca.key", "run/main", "run/main/worker.key"] {
            lchown(data.join(path), Some(SOMEBODY), None).unwrap();
            let said = refused(&host);
            let all = if data.join(path).is_dir() { "R" } else { "" };
            let mend = format!("`chown -h{all} 0 {}`", shown(path));
            assert!(said.contains("belongs to user 64125") && said.contains(&mend), "{path}: {said}");
            lchown(data.join(path), Some(0), None).unwrap();
        }
    }
    assert_eq!(host.processes_of("main"), gateways);
    host.start_supervisor().await;
    host.wait_ready("main").await;
    assert_eq!(host.processes_of("main"), gateways);
}

#[tokio::test]
async fn the_doctor_finds_what_was_opened_meanwhile_and_closes_what_it_safely_can() {
    let mut host = used().await;
    let data = host.data_dir().canonicalize().unwrap();
    host.start_supervisor().await;
    let findings = examine(&host, false).await.findings;
    assert!(!findings.iter().any(|finding| finding.id.starts_with("state.")), "{findings:#?}");
    chmod(&data, 0o711);
    let at = |path: &str| -> PathBuf { data.join(path) };
    for (path, wide) in [("pki", 0o711), ("pki/ca.key", 0o644), ("control.sock", 0o666), ("imports", 0o755)] {
        if path == "imports" {
            fs::create_dir(at(path)).unwrap();
        }
        chmod(&at(path), wide);
    }
    let findings = examine(&host, false).await.findings;
    for (path, id) in [
        ("pki/ca.key", &["state.readable"][..]),
        ("control.sock", &["state.writable"]),
        ("imports", &["state.open"]),
        ("pki", &[]),
    ] {
        assert_eq!(about(&findings, &at(path)), id, "{path}: {findings:#?}");
    }
    let worst = findings.iter().find(|finding| finding.id == "state.writable").unwrap();
    assert_eq!(worst.severity(), Severity::Error);
    assert_eq!(worst.command, format!("chmod 600 {}", at("control.sock").display()));
    let left = examine(&host, true).await;
    assert_eq!((mode(&at("pki/ca.key")), mode(&at("imports"))), (0o600, 0o711));
    let ids: Vec<_> = left.findings.iter().filter(|finding| finding.id.starts_with("state.")).collect();
    assert_eq!(ids.len(), 1, "what others could change is for a person: {ids:#?}");
}

/// `/proc` gives what no process of its user may look into to root.
#[tokio::test]
async fn nobody_of_its_user_looks_into_a_supervisor_or_weighs_it_before_the_oom_killer() {
    let host = Host::prepare();
    chmod(host.directory.path(), 0o755);
    let copy = host.directory.path().join("openclaw-supervisor");
    fs::copy(program("openclaw-supervisor"), &copy).unwrap();
    let mut command = host.supervisor_command();
    if geteuid().is_root() {
        for path in [host.data_dir(), host.data_dir().join("settings.yaml")] {
            lchown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new(copy);
        command.args(arguments).uid(SOMEBODY).gid(SOMEBODY).current_dir("/");
    }
    let mut supervisor = command.spawn().unwrap();
    let socket = host.data_dir().join("control.sock");
    until("the supervisor listens", async || socket.exists().then_some(())).await;
    let process = PathBuf::from(format!("/proc/{}", supervisor.id()));
    let user = fs::metadata(&process).unwrap().uid();
    let hidden =
        ["environ", "mem", "oom_score_adj"].map(|file| fs::metadata(process.join(file)).unwrap().uid());
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let expected = if geteuid().is_root() { SOMEBODY } else { geteuid().as_raw() };
    assert_eq!((user, hidden), (expected, [0; 3]));
}
