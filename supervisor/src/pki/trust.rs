//! TLS as the certificates have it: whom to believe, and what to show.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::{Files, PkiError, authority::now, certificate::Facts, read, read_private};

/// The only protocol that is spoken: HTTP/2 (RFC 9113, section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";

/// From then on before its end the server's certificate is warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Certificates in a file: several authorities while callers move from one to the other; a chain of some.
const MOST: usize = 16;

/// All that a handshake needs.
#[derive(Debug)]
pub(crate) struct Trust {
    /// For the server's side.
    pub(crate) config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Facts,
}

impl Trust {
    /// Reads the certificates. All of them have to be whole, and to belong together.
    pub(crate) fn load(files: &Files) -> Result<Self, PkiError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(files, &provider)?;
        let path = files.server();
        let content = read_private(&path)?;
        let damaged = |what: &dyn ToString| PkiError::damaged(&path, what);
        let chain = certificates(&content).map_err(|error| damaged(&error))?;
        let Some(first) = chain.first() else { return Err(damaged(&"it holds no certificate")) };
        let server = Facts::read(first).map_err(|what| damaged(&what))?;
        let key = PrivateKeyDer::from_pem_slice(&content).map_err(|_| damaged(&"it holds no key"))?;
        let config =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).and_then(
                |config| config.with_client_cert_verifier(Arc::clone(&verifier)).with_single_cert(chain, key),
            );
        let mut config = config.map_err(|error| damaged(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A session that is taken up again would bring along a certificate that was good when it began.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), verifier, server })
    }

    /// Whether somebody who was let in with these certificates would be now.
    pub(crate) fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (first, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(first, rest, UnixTime::now()).map(drop)
    }

    /// What callers complain about, or soon will, and what to do about it, without full stops.
    pub(crate) fn warning(&self) -> Option<(String, String)> {
        let now = now();
        let days = |seconds: i64| seconds / (24 * 3600);
        let left = self.server.not_after - now;
        let renew = format!("type `{}` to renew it", super::INIT);
        if self.server.not_before > now {
            Some(("the server's certificate is not good yet".into(), "see that the clock is right".into()))
        } else if left <= 0 {
            Some((format!("the server's certificate ended {} days ago", days(-left)), renew))
        } else if left < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX) {
            Some((format!("the server's certificate ends in {} days", days(left)), renew))
        } else {
            None
        }
    }
}

fn verifier(files: &Files, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let ca_path = files.ca();
    let authorities = certificates(&read(&ca_path)?).map_err(|error| PkiError::damaged(&ca_path, &error))?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| PkiError::damaged(&ca_path, &error))?;
    }
    let path = files.crl();
    let content = read(&path)?;
    let damaged = |what: &dyn ToString| PkiError::damaged(&path, what);
    let lists = CertificateRevocationListDer::pem_slice_iter(&content).take(MOST);
    let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(|error| damaged(&error))?;
    for list in &lists {
        let (_, list) = parse_x509_crl(list).map_err(|error| damaged(&error))?;
        // One that another authority has signed would be found out only when somebody calls, and refuse everybody.
        let is_theirs = authorities.iter().any(|authority| {
            parse_x509_certificate(authority)
                .is_ok_and(|(_, ca)| list.verify_signature(ca.public_key()).is_ok())
        });
        if !is_theirs {
            return Err(damaged(&"no authority in `ca.crt` has signed it"));
        }
    }
    if lists.is_empty() {
        return Err(damaged(&"it holds no revocation list"));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.with_crls(lists).build().map_err(|error| damaged(&error))
}

fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(content).take(MOST).collect()
}
