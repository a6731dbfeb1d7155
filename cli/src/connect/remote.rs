//! A supervisor elsewhere: TCP with mutual TLS 1.3.
//!
//! A server that does not like our certificate says so only after the handshake is done on this side (RFC 8446, section
//! 4.4.2.4). So the first bytes of its own are waited for: what it dislikes then has a name, instead of being a
//! connection that broke.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    contexts::{Contexts, Tcp},
    error::{Cause, Kind},
    render::{style::quoted, time::humane},
};

/// For name resolution, connection and handshake, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// No file of certificates, keys or tokens is larger.
const MOST_BYTES: u64 = 1 << 20;
/// Authorities, and certificates that lead to one.
const MOST: usize = 16;

/// Where it is, and how it is known.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The context that says so.
    pub(crate) context: String,
    /// Host and port.
    pub(crate) address: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// Why a supervisor elsewhere is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} can be read by others", .path.display())]
    Exposed { path: PathBuf },
    #[error("{} cannot be used: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} holds no token", .path.display())]
    NoToken { path: PathBuf },
    #[error("`{name}` is not a host's name")]
    ServerName { name: String },
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("{address} has not answered for {}", humane(PATIENCE))]
    Silent { address: String },
    /// Its certificate does not convince us.
    #[error("the certificate of {address} is not good: {what}")]
    Distrusted { address: String, what: String },
    /// Ours does not convince it.
    #[error("the supervisor on {address} refused this certificate: {what}")]
    Refused { address: String, what: &'static str },
    #[error("the handshake with {address} failed: {what}")]
    Handshake { address: String, what: String },
    #[error("the context `{0}` is a supervisor on another host")]
    Elsewhere(String),
}

impl RemoteError {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Refused { .. } => Kind::NotPermitted,
            Self::Connect { .. } | Self::Silent { .. } | Self::Distrusted { .. } | Self::Handshake { .. } => {
                Kind::Unreachable
            }
            Self::Read { .. }
            | Self::Exposed { .. }
            | Self::Damaged { .. }
            | Self::NoToken { .. }
            | Self::ServerName { .. }
            | Self::Elsewhere(_) => Kind::Usage,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path } => Some(format!("chmod 600 {}", quoted(&path.to_string_lossy()))),
            Self::Refused { .. } => Some(
                "an administrator issues another on the supervisor's host: openclawctl cert issue".into(),
            ),
            Self::Distrusted { .. } => {
                Some("see that the context has the right address and `ca`: openclawctl context show".into())
            }
            Self::Read { .. } | Self::Damaged { .. } | Self::NoToken { .. } | Self::ServerName { .. } => {
                Some("openclawctl context show".into())
            }
            Self::Connect { .. } | Self::Silent { .. } => {
                Some("see that the supervisor's settings have this address under `listen`".into())
            }
            Self::Handshake { .. } => Some("see that the context has the right address".into()),
            Self::Elsewhere(_) => Some("run it there, or name a supervisor here with --data-dir DIR".into()),
        }
    }
}

impl Remote {
    /// From what the context says; reads the certificates.
    pub(super) fn new(context: &str, tcp: &Tcp, contexts: &Contexts) -> Result<Self, Cause> {
        let ca = contexts.absolute(&tcp.ca);
        let mut roots = RootCertStore::empty();
        for authority in certificates(&ca)? {
            roots.add(authority).map_err(|error| damaged(&ca, &error))?;
        }
        let certificate = contexts.absolute(&tcp.certificate);
        let chain = certificates(&certificate)?;
        let key_path = contexts.absolute(&tcp.key);
        let key = secret(&key_path)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|_| damaged(&key_path, &"it holds no key"))?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(|error| damaged(&certificate, &error))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let name = tcp.server_name().to_owned();
        let server = ServerName::try_from(name.clone()).map_err(|_| RemoteError::ServerName { name })?;
        Ok(Self {
            context: context.to_owned(),
            address: tcp.address.clone(),
            name: server,
            tls: Arc::new(tls),
        })
    }

    /// Connects, and waits until the supervisor has said something: then it has let us in.
    pub(super) async fn dial(&self) -> Result<BufReader<TlsStream<TcpStream>>, Cause> {
        let address = || self.address.clone();
        let silent = || Cause::from(RemoteError::Silent { address: address() });
        let tcp = timeout(PATIENCE, TcpStream::connect(&self.address)).await.map_err(|_| silent())?;
        let tcp = tcp.map_err(|source| RemoteError::Connect { address: address(), source })?;
        // Calls are small, and each is waited for.
        let _ = tcp.set_nodelay(true);
        let greet = async {
            let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), tcp).await?;
            let mut stream = BufReader::new(tls);
            match stream.fill_buf().await?.is_empty() {
                false => Ok(stream),
                true => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        let greeted = timeout(PATIENCE, greet).await.map_err(|_| silent())?;
        greeted.map_err(|error| self.unlike(&error).into())
    }

    /// What a handshake failed of.
    fn unlike(&self, error: &io::Error) -> RemoteError {
        let address = self.address.clone();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => match told(*alert) {
                Some(what) => RemoteError::Refused { address, what },
                None => RemoteError::Handshake { address, what: format!("it answered {alert:?}") },
            },
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                RemoteError::Distrusted {
                    address,
                    what: "it is of another authority than the context's".into(),
                }
            }
            Some(rustls::Error::InvalidCertificate(error)) => {
                RemoteError::Distrusted { address, what: error.to_string() }
            }
            Some(error) => RemoteError::Handshake { address, what: error.to_string() },
            None => RemoteError::Handshake { address, what: error.to_string() },
        }
    }
}

/// What a server dislikes about our certificate; `None` if it is something else.
fn told(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    const NOT_FOR_CALLERS: &str = "it is not one for callers";
    let known = [
        (Alert::CertificateExpired, "it has ended, or is not good yet"),
        (Alert::CertificateRevoked, "it was revoked"),
        (Alert::UnknownCA, "it is of another authority"),
        (Alert::CertificateRequired, "it got none"),
        (Alert::BadCertificate, NOT_FOR_CALLERS),
        (Alert::CertificateUnknown, NOT_FOR_CALLERS),
        (Alert::UnsupportedCertificate, NOT_FOR_CALLERS),
        (Alert::AccessDenied, NOT_FOR_CALLERS),
        (Alert::DecryptError, NOT_FOR_CALLERS),
    ];
    known.into_iter().find(|(one, _)| *one == alert).map(|(_, what)| what)
}

fn damaged(path: &Path, what: &impl ToString) -> RemoteError {
    RemoteError::Damaged { path: path.to_owned(), what: what.to_string() }
}

fn read(path: &Path) -> Result<String, RemoteError> {
    let failed = |source| RemoteError::Read { path: path.to_owned(), source };
    let mut content = String::new();
    File::open(path).map_err(failed)?.take(MOST_BYTES).read_to_string(&mut content).map_err(failed)?;
    Ok(content)
}

/// What is in a file that must be its owner's alone.
pub(super) fn secret(path: &Path) -> Result<String, RemoteError> {
    let content = read(path)?;
    match fs::metadata(path).map(|file| file.mode() & 0o077) {
        Ok(0) => Ok(content),
        Ok(_) => Err(RemoteError::Exposed { path: path.to_owned() }),
        Err(source) => Err(RemoteError::Read { path: path.to_owned(), source }),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RemoteError> {
    let content = read(path)?;
    let all = CertificateDer::pem_slice_iter(content.as_bytes()).take(MOST).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| damaged(path, &error))?;
    match all.is_empty() {
        false => Ok(all),
        true => Err(damaged(path, &"it holds no certificate")),
    }
}
