//! One GET over a connection of its own.
//!
//! The server is not asked to close the connection. The probe does that first, so that TIME_WAIT stays on this
//! side and never keeps a program that binds without SO_REUSEADDR from its port.
//!
//! Beside the system calls hyper costs nothing that can be measured, so there is no reader of HTTP of our own.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use super::tcp::{self, ConnectError};

/// Bound of an answer's head, and of its body. A health answer has some hundred bytes.
const LIMIT: usize = 16 * 1024;

/// Why a GET has no answer. The sentence is shown to people as it stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The path cannot be asked for.
    #[error("`{path}` is not a path: {source}")]
    Path {
        /// What was to be asked for.
        path: String,
        /// Why not.
        source: hyper::http::uri::InvalidUri,
    },
    /// What came back is not HTTP, or nothing did.
    #[error("{path} got no HTTP answer: {source}")]
    Answer {
        /// What was asked for.
        path: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer broke off, or is longer than [`LIMIT`].
    #[error("the answer to {path} could not be read: {source}")]
    Body {
        /// What was asked for.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// What was hoped for, with its status.
    Understood(u16, T),
    /// Something else with this status, e.g. a page.
    Other(u16),
}

/// The status that `path` answers with.
pub(super) async fn status(port: u16, path: &str) -> Result<u16, GetError> {
    get(port, path, async |response| {
        let status = response.status().as_u16();
        // Closing on unread data resets the connection, which many programs complain of. An endless answer is
        // not waited for.
        if response.body().size_hint().upper().is_some_and(|size| size <= LIMIT as u64) {
            let _ = response.into_body().collect().await;
        }
        Ok(status)
    })
    .await
}

/// The JSON that `path` answers with, if it is a `T`.
pub(super) async fn json<T: DeserializeOwned>(port: u16, path: &str) -> Result<Answer<T>, GetError> {
    get(port, path, async |response| {
        let status = response.status().as_u16();
        if !is_json(response.headers()) {
            return Ok(Answer::Other(status));
        }
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body.map_err(|source| GetError::Body { path: path.to_owned(), source })?;
        Ok(serde_json::from_slice(&body.to_bytes())
            .map_or(Answer::Other(status), |understood| Answer::Understood(status, understood)))
    })
    .await
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"))
}

async fn get<T>(
    port: u16,
    path: &str,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, GetError>,
) -> Result<T, GetError> {
    let uri: Uri = path.parse().map_err(|source| GetError::Path { path: path.to_owned(), source })?;
    let unanswered = |source| GetError::Answer { path: path.to_owned(), source };
    let stream = TokioIo::new(tcp::connect(port).await?);
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(LIMIT).handshake(stream).await.map_err(unanswered)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
    if let Ok(host) = HeaderValue::try_from(format!("127.0.0.1:{port}")) {
        request.headers_mut().insert(HOST, host);
    }
    let exchange = async { read(sender.send_request(request).await.map_err(unanswered)?).await };
    // The connection moves the bytes; how it ends shows in the exchange.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        outcome = exchange => outcome,
        never = drive => never,
    }
}
