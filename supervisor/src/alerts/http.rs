//! One request, by TLS where the URL says so, through the proxy that the environment names. No redirect is followed: it
//! could lead a secret anywhere.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, crypto::ring};
use tokio::time::timeout;

/// A request and its answer, from the beginning to the end.
const LIMIT: Duration = Duration::from_secs(15);

/// As much of an answer is read: it says why something was refused.
const MOST: usize = 8 << 10;

/// And as much of that is told.
const TOLD: usize = 200;

/// Nobody is left alone for longer because he asks for it.
const LONGEST: Duration = Duration::from_secs(3600);

/// What asks.
#[derive(Debug)]
pub(super) struct Http {
    proxies: Matcher,
    trust: Result<ClientConfig, String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Whoever answered wants to be left alone for so long.
    pub(super) retry_after: Option<Duration>,
    /// What it says.
    pub(super) said: String,
}

/// Why there is no answer. What was asked for is not said: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The host trusts nobody.
    #[error("this host has no certificates of authorities ({0}); install `ca-certificates`")]
    NoTrust(String),
    /// It was not reached, or broke off.
    #[error("it cannot be reached: {0}")]
    Failed(String),
    /// It took too long.
    #[error("it did not answer within {} s", LIMIT.as_secs())]
    Slow,
}

impl Http {
    /// With what the host trusts, and the proxies of this process's environment.
    pub(super) fn new() -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let trust = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())
            .and_then(|builder| builder.with_native_roots().map_err(|error| error.to_string()))
            .map(|builder| builder.with_no_client_auth());
        Self { proxies: Matcher::from_env(), trust }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, request: Request<String>) -> Result<Reply, AskError> {
        timeout(LIMIT, self.answer(request)).await.map_err(|_| AskError::Slow)?
    }

    async fn answer(&self, request: Request<String>) -> Result<Reply, AskError> {
        let request = request.map(|body| Full::new(bytes::Bytes::from(body)));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let answer = match self.proxies.intercept(request.uri()) {
            None => {
                Client::builder(TokioExecutor::new())
                    .build(self.secured(request.uri(), tcp)?)
                    .request(request)
                    .await
            }
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                Client::builder(TokioExecutor::new())
                    .build(self.secured(request.uri(), tunnel)?)
                    .request(request)
                    .await
            }
        };
        let answer = answer.map_err(|error| AskError::Failed(cause(&error)))?;
        let status = answer.status();
        let retry_after = answer.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&body);
        let said = said.chars().take(TOLD).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Ok(Reply {
            status,
            retry_after: retry_after.map(Duration::from_secs).map(|span| span.min(LONGEST)),
            said,
        })
    }

    fn secured<C>(&self, uri: &Uri, connector: C) -> Result<HttpsConnector<C>, AskError> {
        let trust = match (&self.trust, uri.scheme_str()) {
            (Ok(trust), _) => trust.clone(),
            (Err(why), Some("https")) => return Err(AskError::NoTrust(why.clone())),
            (Err(_), _) => {
                let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
                let builder = builder.with_safe_default_protocol_versions();
                let builder = builder.map_err(|error| AskError::NoTrust(error.to_string()))?;
                builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
            }
        };
        Ok(HttpsConnectorBuilder::new()
            .with_tls_config(trust)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector))
    }
}

/// The innermost reason, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
