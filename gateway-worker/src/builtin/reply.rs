//! HTTP replies, all with the headers that keep a browser from making more of them than they are.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::canvas::FileBody;

/// What any of the ports can send.
pub(crate) enum Body {
    /// Made in memory.
    Bytes(Full<Bytes>),
    /// Read from a file as it is sent.
    File(FileBody),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Pin::new(bytes).poll_frame(context).map_err(|never| match never {}),
            Self::File(file) => Pin::new(file).poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => bytes.size_hint(),
            Self::File(file) => file.size_hint(),
        }
    }
}

/// A reply of the given type that nothing may keep.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

/// A JSON reply.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(content) => reply(status, "application/json; charset=utf-8", bytes(content)),
        // Nothing that is sent here holds what JSON cannot say.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
    }
}

/// A line of text.
pub(crate) fn text(status: StatusCode, line: &'static str) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", bytes(line))
}

/// The refusal of a method where only GET and HEAD mean something.
pub(crate) fn method_not_allowed() -> Response<Body> {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    reply
}

/// A body made in memory.
pub(crate) fn bytes(content: impl Into<Bytes>) -> Body {
    Body::Bytes(Full::new(content.into()))
}
