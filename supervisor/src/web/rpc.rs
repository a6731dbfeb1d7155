//! The contract as a page calls it: proto JSON by HTTP/1, streams as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::body::Body as Answer;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{
    Stream,
    future::{BoxFuture, FutureExt},
    stream,
};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};
use supervisor_proto::v1::DESCRIPTORS;
use tokio::{
    task,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::api::{self, Inlet, Met, Turn};

/// What the dashboard calls. What gives away secrets, says what is run, or makes certificates stays with `openclawctl`.
const METHODS: [&str; 27] = [
    "SystemService/GetInfo",
    "SystemService/ListPorts",
    "InstanceService/GetInstance",
    "InstanceService/ListInstances",
    "InstanceService/WatchInstances",
    "InstanceService/StartInstance",
    "InstanceService/StopInstance",
    "InstanceService/RestartInstance",
    "InstanceService/FailOver",
    "InstanceService/FailBack",
    "EventService/ListEvents",
    "EventService/WatchEvents",
    "LogService/ReadLogs",
    "ConfigService/ListSnapshots",
    "ConfigService/CreateSnapshot",
    "ConfigService/DiffSnapshot",
    "ConfigService/RollBack",
    "ConfigService/MarkGood",
    "IncidentService/ListIncidents",
    "IncidentService/GetIncident",
    "UpgradeService/ListUpgrades",
    "UpgradeService/ListRuntimes",
    "SetupService/ListProfiles",
    "FleetService/ExportFleet",
    "AuditService/ListAudit",
    "AlertService/GetAlerts",
    "AlertService/TestAlerts",
];

/// What all of them are in.
const PACKAGE: &str = "openclaw.supervisor.v1";

/// The longest answer that is taken into memory at once: the largest list of a fleet.
const LARGEST: usize = 32 << 20;

/// A stream that is silent says so often that it is there, so that a page notices when it is not.
const BEAT: Duration = Duration::from_secs(10);

/// Below this, some instances, a message is told in less than a millisecond.
const SMALL: usize = 4 << 10;

/// The flag and the length before each message (gRPC over HTTP/2, length-prefixed message).
const PREFIX: usize = 5;

/// The contract.
#[derive(Debug, Clone)]
pub(super) struct Contract(DescriptorPool);

/// Why a call is not made, or failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    reason: String,
    message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, reason: String::new(), message: message.into() }
    }

    fn of(status: &Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self { code: status.code(), reason, message: status.message().to_owned() }
    }

    fn json(&self) -> Value {
        json!({ "code": format!("{:?}", self.code), "reason": self.reason, "message": self.message })
    }

    fn status(&self) -> StatusCode {
        match self.code {
            Code::Ok => StatusCode::OK,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    pub(super) fn answer(&self) -> Response<Answer> {
        answer(self.status(), &self.json())
    }

    /// With something more that the page has to know.
    pub(super) fn answer_with(&self, name: &str, value: &str) -> Response<Answer> {
        let mut json = self.json();
        json[name] = value.into();
        answer(self.status(), &json)
    }
}

/// An answer to the page.
pub(super) fn answer(status: StatusCode, json: &Value) -> Response<Answer> {
    told(status, json.to_string())
}

/// One that is JSON already.
fn told(status: StatusCode, json: String) -> Response<Answer> {
    let mut response = Response::new(Answer::from(json));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// A method that may be called from a page.
pub(super) struct Method(MethodDescriptor);

impl Contract {
    pub(super) fn new() -> Result<Self, prost_reflect::DescriptorError> {
        DescriptorPool::decode(DESCRIPTORS).map(Self)
    }

    /// The method `name` of the service `service`.
    pub(super) fn method(&self, service: &str, name: &str) -> Result<Method, Failure> {
        let missing = || Failure::new(Code::Unimplemented, format!("pages do not call {service}/{name}."));
        if !METHODS.contains(&format!("{service}/{name}").as_str()) {
            return Err(missing());
        }
        let service = self.0.get_service_by_name(&format!("{PACKAGE}.{service}")).ok_or_else(missing)?;
        service.methods().find(|method| method.name() == name).map(Method).ok_or_else(missing)
    }
}

/// What of it this caller may call now, so that a page offers nothing that would be refused.
pub(super) fn rights(inlet: &Inlet, caller: &Met<'_>) -> Response<Answer> {
    let may = |method: &&&str| inlet.may(caller, &format!("/{PACKAGE}.{method}"));
    let may: Vec<&str> = METHODS.iter().filter(may).copied().collect();
    answer(StatusCode::OK, &json!({ "may": may }))
}

impl Method {
    pub(super) fn streams(&self) -> bool {
        self.0.is_server_streaming()
    }

    fn path(&self) -> String {
        format!("/{}/{}", self.0.parent_service().full_name(), self.0.name())
    }

    /// Calls it with a request in proto JSON; nothing stands for the empty one.
    async fn call(&self, inlet: &Inlet, caller: &Met<'_>, request: &str) -> Result<Called, Failure> {
        let bad = |error: serde_json::Error| {
            Failure::new(
                Code::InvalidArgument,
                format!("the request is no {}: {error}.", self.0.input().name()),
            )
        };
        let request = if request.trim().is_empty() { "{}" } else { request };
        let mut json = serde_json::Deserializer::from_str(request);
        let message = DynamicMessage::deserialize(self.0.input(), &mut json).map_err(bad)?;
        json.end().map_err(bad)?;
        let message = framed(&message.encode_to_vec());
        let called = inlet.call(caller, &self.path(), message).await;
        // An answer that is none has its status where another has its first bytes.
        match Status::from_header_map(called.response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(Failure::of(&status)),
            Some(_) | None => Ok(Called {
                answer: called,
                output: self.0.output(),
                unread: BytesMut::new(),
                telling: None,
                waiting: 0,
            }),
        }
    }

    /// Its only answer.
    pub(super) async fn ask(&self, inlet: &Inlet, caller: &Met<'_>, request: &str) -> Response<Answer> {
        let answer = async {
            let mut called = self.call(inlet, caller, request).await?;
            let message = called.next().await?.unwrap_or_else(|| "null".to_owned());
            while called.next().await?.is_some() {}
            Ok::<_, Failure>(called.answer.begun.with(told(StatusCode::OK, message)))
        };
        answer.await.unwrap_or_else(|failure| failure.answer())
    }

    /// Its stream, as server-sent events: `message` for each, `end` with the error that ended it.
    pub(super) async fn follow(&self, inlet: &Inlet, caller: &Met<'_>, request: &str) -> Response<Answer> {
        let called = match self.call(inlet, caller, request).await {
            Ok(called) => called,
            Err(failure) => return failure.answer(),
        };
        let mut response = Response::new(Answer::from_stream(events(called)));
        let stream = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, stream);
        response
    }
}

/// A call that has been answered.
struct Called {
    answer: api::Answer,
    output: MessageDescriptor,
    unread: BytesMut,
    /// The next one, as it becomes JSON: who waits for it may be interrupted.
    telling: Option<BoxFuture<'static, Result<String, Failure>>>,
    /// Its bytes until then.
    waiting: usize,
}

impl Called {
    /// The next message in JSON; `None` after the last.
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if self.telling.is_none() && self.is_whole()? {
                let message = self.message()?;
                self.waiting = message.len();
                self.answer.begun.hold(self.waiting);
                let turn = self.answer.turn.clone();
                self.telling = Some(told_aside(message, self.output.clone(), turn).boxed());
            }
            if let Some(telling) = &mut self.telling {
                let told = telling.await;
                (self.telling, self.waiting) = (None, 0);
                return told.map(Some);
            }
            match self.answer.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(status)) => return Err(Failure::of(&status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.unread.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                        return match Status::from_header_map(&trailers) {
                            Some(status) if status.code() != Code::Ok => Err(Failure::of(&status)),
                            Some(_) | None => Ok(None),
                        };
                    }
                },
            }
        }
    }

    /// How long the next message is, if its prefix has come.
    fn length(&self) -> Result<Option<usize>, Failure> {
        let Some((prefix, _)) = self.unread.split_at_checked(PREFIX) else { return Ok(None) };
        let length = prefix.get(1..).map_or(0, |mut length| length.get_u32());
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST);
        length.map(Some).ok_or_else(|| broken("it is too long"))
    }

    /// Whether all of it has come.
    fn is_whole(&self) -> Result<bool, Failure> {
        Ok(self.length()?.is_some_and(|length| self.unread.len() >= PREFIX + length))
    }

    /// A message of which all has come.
    fn message(&mut self) -> Result<Bytes, Failure> {
        let length = self.length()?.unwrap_or_default();
        self.unread.advance(PREFIX);
        let message = self.unread.split_to(length).freeze();
        if self.unread.is_empty() {
            // It would keep the place of the largest for as long as the stream is open.
            self.unread = BytesMut::new();
        }
        Ok(message)
    }
}

/// A message in JSON. What takes long is done in its turn, and where it keeps nobody from being heard.
async fn told_aside(message: Bytes, of: MessageDescriptor, turn: Turn) -> Result<String, Failure> {
    if message.len() < SMALL {
        return told_as(message, of);
    }
    let turn = turn.take().await;
    let telling = task::spawn_blocking(move || {
        let told = told_as(message, of);
        drop(turn);
        told
    });
    telling.await.map_err(|error| broken(&error.to_string()))?
}

fn told_as(message: Bytes, of: MessageDescriptor) -> Result<String, Failure> {
    let message = DynamicMessage::decode(of, message).map_err(|error| broken(&error.to_string()))?;
    let (mut told, options) = (Vec::new(), SerializeOptions::new().skip_default_fields(false));
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut told), &options)
        .map_err(|error| broken(&error.to_string()))?;
    String::from_utf8(told).map_err(|error| broken(&error.to_string()))
}

fn broken(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("the answer could not be read: {what}."))
}

/// A message in its frame.
fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    // Requests are bounded long before that.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// What a page is sent.
fn events(called: Called) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some(called), |called| async {
        let mut called = called?;
        // What was told is gone: else nobody would ask for more.
        called.answer.begun.hold(called.waiting);
        let next = tokio::select! {
            next = called.next() => next,
            () = sleep_until(Instant::now() + BEAT) => {
                return Some((Ok(Bytes::from_static(b": still here\n\n")), Some(called)));
            }
        };
        let (event, data, called) = match next {
            Ok(Some(message)) => ("message", message, Some(called)),
            Ok(None) => ("end", "null".to_owned(), None),
            Err(failure) => ("end", failure.json().to_string(), None),
        };
        let told = Bytes::from(format!("event: {event}\ndata: {data}\n\n"));
        if let Some(called) = &called {
            called.answer.begun.hold(told.len());
        }
        Some((Ok(told), called))
    })
}
