//! Who is admitted, by all that a caller can have.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use http::HeaderValue;
use supervisor_proto::v1::Reason;
use tokio::sync::watch;

use super::*;
use crate::{
    api::{
        access::METHODS,
        inside::Inside,
        limits::{Limits, Most, Party},
    },
    audit::tests::Heard,
    role::Role,
    settings::access::{Binding, Who},
};

/// The user of most callers here: bound to whatever a test says.
const SOMEBODY: u32 = 4_000_001;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn gate(bindings: &[(Who, Grant)]) -> Gate {
    let bindings: Vec<Binding> =
        bindings.iter().cloned().map(|(who, grant)| Binding { who, grant }).collect();
    let (_, view) = watch::channel(Arc::default());
    let audit = Audit::new(Arc::new(Heard::default()), 0, || 0);
    Gate::own(Handle::new(view).0, Bindings::new(Table::look_up(&bindings)), audit)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn process(uid: u32, origin: Option<Origin>) -> Peer {
    let socket: Arc<Path> = Path::new("/run/control.sock").into();
    Peer::Unix { uid, gid: 4_000_009, pid: Some(7), groups: [4_000_010].into(), origin, socket }
}

fn certificate(of: &str, grant: Option<Grant>) -> Peer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
    Peer::Certificate { name: of.into(), grant, serial: "0a".into(), address }
}

/// What a gate makes of a peer that shows a token, if any.
fn known(gate: &Gate, peer: Option<Peer>, token: Option<&str>) -> Known {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    }
    gate.know(peer, shown(&headers).as_ref())
}

fn grants() -> [Option<Grant>; 5] {
    let rescue = Grant::Rescue(name("rescue"));
    [None, Some(rescue), Some(Grant::Viewer), Some(Grant::Operator), Some(Grant::Admin)]
}

#[test]
fn each_role_may_call_what_the_table_says_and_nothing_else() {
    for grant in grants() {
        let bound: Vec<_> = grant.iter().map(|grant| (Who::Uid(SOMEBODY), grant.clone())).collect();
        let gate = gate(&bound);
        for rule in METHODS {
            let known = known(&gate, Some(process(SOMEBODY, Some(Origin::Outside))), None);
            let expected = match &grant {
                None => false,
                Some(Grant::Rescue(_)) => rule.inside != Inside::Closed,
                Some(grant @ (Grant::Viewer | Grant::Operator | Grant::Admin)) => grant.role() >= rule.needs,
            };
            let lets = gate.lets(process(SOMEBODY, Some(Origin::Outside)), rule.path);
            assert_eq!(lets, expected, "what is offered: {grant:?} {}", rule.path);
            match gate.admit(rule, &known) {
                Ok(_) => assert!(expected, "{grant:?} {}", rule.path),
                Err(refusal) => {
                    assert!(!expected, "{grant:?} {}", rule.path);
                    assert_eq!(refusal.reason(), Reason::NotPermitted);
                    let said = refusal.to_string();
                    assert!(said.contains(&format!("{} takes {}", rule.method(), rule.needs)), "{said}");
                }
            }
        }
    }
}

#[test]
fn a_refusal_names_the_role_there_is_and_the_one_that_it_takes() {
    let gate = gate(&[(Who::Uid(SOMEBODY), Grant::Viewer)]);
    let stop = rule("/openclaw.supervisor.v1.InstanceService/StopInstance").unwrap();
    let outside = Some(Origin::Outside);
    let viewer = known(&gate, Some(process(SOMEBODY, outside.clone())), None);
    let status = Status::from(gate.admit(stop, &viewer).unwrap_err());
    assert_eq!(
        status.message(),
        "user 4000001 has the role viewer, and StopInstance takes operator; ask for that role in `access` of the \
         supervisor's settings, or call as the user it runs as, or as root."
    );
    let nobody = known(&gate, Some(process(SOMEBODY + 1, outside)), None);
    let said = gate.admit(stop, &nobody).unwrap_err().to_string();
    assert_eq!(said, "user 4000002 has no role here, and StopInstance takes operator");
}

#[test]
fn the_highest_role_of_user_group_certificate_and_token_counts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deploy.token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let gate = gate(&[
        (Who::Uid(SOMEBODY), Grant::Viewer),
        (Who::Gid(4_000_010), Grant::Operator),
        (Who::Certificate("ci".into()), Grant::Operator),
        (Who::TokenFile(file), Grant::Admin),
    ]);
    let outside = || Some(Origin::Outside);
    let role = |peer: Option<Peer>, token| known(&gate, peer, token).grant.map(|grant| grant.role());
    assert_eq!(role(Some(process(SOMEBODY, outside())), None), Some(Role::Operator));
    assert_eq!(role(Some(process(SOMEBODY, outside())), Some(TOKEN)), Some(Role::Admin));
    assert_eq!(role(Some(process(SOMEBODY, outside())), Some("wrong")), Some(Role::Operator));
    assert_eq!(role(Some(certificate("ci", Some(Grant::Viewer))), None), Some(Role::Operator));
    assert_eq!(role(Some(certificate("ci", Some(Grant::Admin))), None), Some(Role::Admin));
    assert_eq!(role(Some(certificate("cd", None)), None), None);
    assert_eq!(role(Some(certificate("cd", None)), Some(TOKEN)), Some(Role::Admin));
    assert_eq!(role(Some(process(0, outside())), None), Some(Role::Admin), "root is one always");
    let own = geteuid().as_raw();
    assert_eq!(role(Some(process(own, outside())), None), Some(Role::Admin), "so is its own user");
    assert_eq!(role(None, Some(TOKEN)), None, "nobody is known by a token alone");
    let by_token = known(&gate, Some(process(7, outside())), Some(TOKEN)).recorded();
    assert_eq!((by_token.token.as_str(), by_token.role.as_str()), ("deploy.token", "admin"));
    assert!(!format!("{by_token:?}").contains(TOKEN));
}

#[test]
fn who_has_a_role_by_a_group_alone_takes_from_the_share_of_that_group() {
    let gate = gate(&[
        (Who::Uid(SOMEBODY), Grant::Viewer),
        (Who::Gid(4_000_010), Grant::Operator),
        (Who::Gid(4_000_009), Grant::Viewer),
    ]);
    let of = |uid, origin| {
        let known = known(&gate, Some(process(uid, origin)), None);
        let Principal { caller, party } = known.principal();
        (caller.to_string(), party.to_string(), known.recorded().gid)
    };
    let group = |caller: &str| (caller.to_owned(), "gid 4000010".to_owned(), Some(4_000_010));
    let alone = |caller: &str| (caller.to_owned(), caller.to_owned(), None);
    assert_eq!(of(SOMEBODY + 1, Some(Origin::Outside)), group("uid 4000002"));
    assert_eq!(of(SOMEBODY + 2, None), group("uid 4000003"), "traced or not");
    assert_eq!(of(SOMEBODY, Some(Origin::Outside)), alone("uid 4000001"), "whose user is bound has its own");
    assert_eq!(of(0, Some(Origin::Outside)), alone("uid 0"), "as have those who are never bound");
    assert_eq!(of(SOMEBODY + 1, Some(Origin::Inside(name("main")))), alone("inside main"));
}

#[test]
fn who_runs_inside_an_instance_stays_confined_whatever_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stolen.token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let gate = gate(&[
        (Who::Uid(SOMEBODY), Grant::Admin),
        (Who::Gid(4_000_010), Grant::Admin),
        (Who::TokenFile(file), Grant::Admin),
    ]);
    let inside = || Some(Origin::Inside(name("main")));
    for (uid, token) in [(0, None), (0, Some(TOKEN)), (SOMEBODY, None), (SOMEBODY, Some(TOKEN))] {
        for rule in METHODS {
            let known = known(&gate, Some(process(uid, inside())), token);
            match gate.admit(rule, &known) {
                Ok(scope) => {
                    assert!(rule.inside != Inside::Closed && uid != SOMEBODY, "{uid} {}", rule.path);
                    assert!(scope.names().is_some(), "{uid} {}", rule.path);
                    assert!(scope.needs(Role::Viewer, "it").is_err());
                }
                Err(refusal) => {
                    // Another user than that of the instance has no business in there.
                    assert!(rule.inside == Inside::Closed || uid == SOMEBODY, "{uid} {}", rule.path);
                    assert_eq!(refusal.reason(), Reason::InsideInstance);
                }
            }
            let recorded = known.recorded();
            assert_eq!((recorded.inside.as_str(), recorded.token.as_str()), ("main", ""));
            assert_eq!((recorded.role.as_str(), known.kept()), ("", Kept::Apart));
        }
    }
    // A user without a role gets none by putting an instance's mark on itself.
    let gate = self::gate(&[]);
    let stranger = known(&gate, Some(process(SOMEBODY, inside())), None);
    assert!(METHODS.iter().all(|rule| gate.admit(rule, &stranger).is_err()));
}

#[test]
fn who_cannot_be_traced_is_turned_away_whoever_it_is() {
    let gate = gate(&[(Who::Uid(SOMEBODY), Grant::Admin)]);
    for uid in [0, SOMEBODY] {
        let known = known(&gate, Some(process(uid, None)), None);
        for rule in METHODS {
            assert!(matches!(gate.admit(rule, &known), Err(Refusal::Untraced(7))), "{}", rule.path);
        }
    }
    let nobody = known(&gate, None, None);
    assert!(METHODS.iter().all(|rule| gate.admit(rule, &nobody).is_err()));
}

/// The cost of the gate alone: what a call takes through it, to a service that does nothing, in the best of some rounds.
#[tokio::test]
#[ignore = "prints what access and audit cost a call; run it alone, in a release build"]
async fn what_access_and_audit_cost_a_call() {
    use std::{convert::Infallible, future::ready, time::Instant};

    use http_body_util::Full;
    use supervisor_proto::v1::{GetInstanceRequest, StartInstanceRequest};
    use tonic::codegen::Bytes;

    const CALLS: u32 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (_, view) = watch::channel(Arc::default());
    let (opened, restored) = crate::perform::store::open(directory.path(), ("boot", 0)).unwrap();
    let age = std::time::Duration::from_secs(3_600);
    let audit = crate::perform::store::AuditRetention { entries: 50_000, age };
    let retention = crate::perform::store::Retention { entries: 50_000, age, audit };
    let (reports, _kept) = tokio::sync::mpsc::channel(64);
    let store = crate::perform::store::Store::start(
        opened,
        restored.revision,
        retention,
        reports,
        crate::metrics::Metrics::default(),
    )
    .unwrap();
    let audit = Audit::new(store.audit(), 0, crate::driver::realtime_ns);
    let gate = Gate::own(Handle::new(view).0, Bindings::default(), audit);
    let nothing =
        tower::service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let mut guarded = gate.layer(nothing);
    let seat = Limits::new(Most::USUAL).admit(String::new(), Party::Own);
    let caller = Caller { peer: process(0, Some(Origin::Outside)), ticket: seat.ticket() };
    let framed = |message: Vec<u8>| -> Bytes {
        let length = u32::try_from(message.len()).unwrap();
        [vec![0], length.to_be_bytes().to_vec(), message].concat().into()
    };
    let get = GetInstanceRequest { name: "main".into() };
    let start =
        StartInstanceRequest { name: "main".into(), request_id: "r".repeat(36), ..Default::default() };
    let calls = [
        ("GetInstance", framed(prost::Message::encode_to_vec(&get))),
        ("StartInstance", framed(prost::Message::encode_to_vec(&start))),
    ];
    for (method, body) in calls {
        let rule = METHODS.iter().find(|rule| rule.method() == method).unwrap();
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let began = Instant::now();
            for _ in 0..CALLS {
                let mut request = Request::new(Body::new(http_body_util::BodyExt::map_err(
                    Full::new(body.clone()),
                    |never: Infallible| match never {},
                )));
                *request.uri_mut() = rule.path.parse().unwrap();
                request.extensions_mut().insert(caller.clone());
                guarded.call(request).await.unwrap();
            }
            best = best.min(began.elapsed() / CALLS);
        }
        println!("{method}: {best:?} each");
    }
}
