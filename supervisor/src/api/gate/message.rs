//! A request, read wholly before it is handed on, and what it says of itself: whom it is about, and its id.
//!
//! It is not decoded but looked through, by the field numbers of the contract; so an RPC that is added is recorded
//! like the others. Who serves it gets what came, unchanged.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use prost::{
    Message,
    bytes::BytesMut,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_types::{FileDescriptorSet, field_descriptor_proto::Label};
use supervisor_proto::v1::DESCRIPTORS;
use tonic::{Status, body::Body};

use crate::api::{access::Rule, listen::MAX_REQUEST};

/// What comes before a message: whether it is compressed, and its length (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// Of a text that is looked for, so many bytes are taken; more than is recorded of it.
const TAKEN: usize = 256;

/// Fields by which a request says whom it is about, the most telling first.
const NAMING: [&str; 5] = ["name", "names", "primary", "instance", "version"];

/// The field with the caller's own name for the request.
const REQUEST_ID: &str = "request_id";

/// A request that has come, as far as it came.
pub(super) struct Arrived {
    /// What came.
    pub(super) body: Body,
    /// What it says.
    pub(super) about: About,
}

/// What a request says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// Whom it is about.
    pub(super) target: String,
    /// Its id.
    pub(super) request_id: String,
}

/// The numbers of these fields in a request.
#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    target: Option<u32>,
    /// There may be several.
    is_list: bool,
    request_id: Option<u32>,
}

/// By the path of their method.
static FIELDS: LazyLock<HashMap<String, Fields>> = LazyLock::new(fields);

fn fields() -> HashMap<String, Fields> {
    // It is this build's own, and a test decodes it.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut found = HashMap::new();
    for file in &set.file {
        for (service, method) in
            file.service.iter().flat_map(|all| all.method.iter().map(move |one| (all, one)))
        {
            let input = method.input_type().rsplit('.').next().unwrap_or_default();
            let Some(message) = file.message_type.iter().find(|message| message.name() == input) else {
                continue;
            };
            let field = |name: &str| message.field.iter().find(|field| field.name() == name);
            let target = NAMING.into_iter().find_map(field);
            let number = |number: i32| u32::try_from(number).ok();
            let fields = Fields {
                target: target.and_then(|field| number(field.number())),
                is_list: target.is_some_and(|field| field.label() == Label::Repeated),
                request_id: field(REQUEST_ID).and_then(|field| number(field.number())),
            };
            found.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()), fields);
        }
    }
    found
}

/// Waits for the one message of a request, unless it is too large to be taken; whoever serves it says so then.
pub(super) async fn arrive(mut body: Body, rule: &Rule) -> Arrived {
    let mut came = BytesMut::new();
    let mut first = None;
    let mut then = VecDeque::new();
    while is_wanting(first.as_deref().unwrap_or(&came)) {
        match body.frame().await {
            None => break,
            Some(Err(error)) => {
                then.push_back(Err(error));
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                // Nearly every request is one frame, which is not copied.
                Ok(data) if first.is_none() && came.is_empty() => first = Some(data),
                Ok(data) => {
                    came.extend_from_slice(&first.take().unwrap_or_default());
                    came.extend_from_slice(&data);
                }
                Err(trailers) => {
                    then.push_back(Ok(trailers));
                    break;
                }
            },
        }
    }
    let whole = first.unwrap_or_else(|| came.freeze());
    let fields = FIELDS.get(rule.path).copied().unwrap_or_default();
    let about = message_of(&whole).map(|message| look_through(message, fields)).unwrap_or_default();
    if !whole.is_empty() {
        then.push_front(Ok(Frame::data(whole)));
    }
    Arrived { body: Body::new(Again { came: then, rest: body }), about }
}

fn declared(came: &[u8]) -> Option<usize> {
    let (prefix, _) = came.split_first_chunk::<PREFIX>()?;
    let [_, length @ ..] = *prefix;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// Whether more of the message is to come, and to be waited for.
fn is_wanting(came: &[u8]) -> bool {
    declared(came).is_none_or(|length| length <= MAX_REQUEST && came.len() < PREFIX + length)
}

fn message_of(came: &[u8]) -> Option<&[u8]> {
    // A compressed one is refused by whoever serves it.
    let plain = came.first() == Some(&0);
    came.get(PREFIX..PREFIX + declared(came)?).filter(|_| plain)
}

fn look_through(mut message: &[u8], fields: Fields) -> About {
    let mut about = About::default();
    while let Ok((tag, wire)) = decode_key(&mut message) {
        let wanted = wire == WireType::LengthDelimited
            && (Some(tag) == fields.target || Some(tag) == fields.request_id);
        if !wanted {
            if skip_field(wire, tag, &mut message, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let length = decode_varint(&mut message).ok().and_then(|length| usize::try_from(length).ok());
        let Some((text, rest)) = length.and_then(|length| message.split_at_checked(length)) else { break };
        message = rest;
        let text = String::from_utf8_lossy(&text[..text.len().min(TAKEN)]);
        if Some(tag) == fields.request_id {
            about.request_id = text.into_owned();
        } else if !fields.is_list || about.target.is_empty() {
            about.target = text.into_owned();
        } else if about.target.len() < TAKEN {
            about.target.push_str(", ");
            about.target.push_str(&text);
        }
    }
    about
}

/// What came, and what is still to come.
struct Again {
    came: VecDeque<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.came.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use supervisor_proto::v1::{ExamineRequest, RestartInstanceRequest};
    use tokio_stream::iter;

    use super::*;
    use crate::api::access::{METHODS, rule};

    fn framed(message: &impl Message) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
        framed.extend(message.encode_to_vec());
        framed
    }

    fn restart() -> Vec<u8> {
        let request =
            RestartInstanceRequest { name: "main".into(), request_id: "r-1".into(), force: true, wait: true };
        framed(&request)
    }

    fn named(method: &str) -> &'static Rule {
        METHODS.iter().find(|rule| rule.path.ends_with(method)).unwrap()
    }

    async fn read(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn what_a_request_says_is_read_and_all_of_it_is_handed_on() {
        let all = [restart(), b"more than it should".to_vec()].concat();
        for pieces in [1, 3, 7, all.len()] {
            let frames: Vec<Result<Frame<Bytes>, Status>> = all
                .chunks(all.len().div_ceil(pieces))
                .map(|piece| Ok(Frame::data(piece.to_vec().into())))
                .collect();
            let arrived = arrive(Body::new(StreamBody::new(iter(frames))), named("RestartInstance")).await;
            assert_eq!(arrived.about, About { target: "main".into(), request_id: "r-1".into() });
            assert_eq!(read(arrived.body).await, all, "{pieces}");
        }
    }

    #[tokio::test]
    async fn whatever_is_no_request_is_handed_on_as_it_came() {
        let compressed = [vec![1], restart()[1..].to_vec()].concat();
        let cut = restart()[..9].to_vec();
        let broken = [vec![0, 0, 0, 0, 3], vec![0x0a, 0xff, 0xff]].concat();
        let huge = [vec![0], u32::MAX.to_be_bytes().to_vec(), b"begins".to_vec()].concat();
        for sent in [Vec::new(), vec![0, 0], compressed, cut, broken, huge] {
            let arrived = arrive(Body::new(Full::from(sent.clone())), named("RestartInstance")).await;
            assert_eq!(arrived.about, About::default());
            assert_eq!(read(arrived.body).await, sent);
        }
    }

    #[test]
    fn of_a_list_all_names_are_taken_and_of_a_long_text_its_beginning() {
        let fields = FIELDS[named("Examine").path];
        let request = ExamineRequest { names: vec!["a".into(), "b".into()], ..Default::default() };
        assert_eq!(look_through(&request.encode_to_vec(), fields).target, "a, b");
        let many = ExamineRequest { names: vec!["name".into(); 10_000], ..Default::default() };
        assert!(look_through(&many.encode_to_vec(), fields).target.len() < 2 * TAKEN);
        let fields = FIELDS[named("RestartInstance").path];
        let long = RestartInstanceRequest { name: "x".repeat(1 << 20), ..Default::default() };
        assert_eq!(look_through(&long.encode_to_vec(), fields).target.len(), TAKEN);
    }

    #[test]
    fn every_change_that_is_about_an_instance_says_so() {
        let silent: Vec<&str> = METHODS
            .iter()
            .filter(|rule| rule.effect == crate::api::access::Effect::Changes)
            .filter(|rule| FIELDS.get(rule.path).is_none_or(|fields| fields.target.is_none()))
            .map(Rule::method)
            .collect();
        assert_eq!(silent, ["ApplyFleet", "Reload", "Shutdown", "PruneRuntimes", "InitAuthority"]);
        assert!(rule("/no/method").is_none());
    }
}
