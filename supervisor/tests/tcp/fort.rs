//! A supervisor that listens by TCP, and callers with papers of all kinds.

use std::{
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use crate::support::{Host, PATIENCE, until};
use hyper_util::rt::TokioIo;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use supervisor_proto::v1::{
    self, Reason, certificate_service_client::CertificateServiceClient,
    system_service_client::SystemServiceClient,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// An HTTP/2 preface and an empty SETTINGS frame.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a caller shows, and whom it believes.
#[derive(Debug, Clone)]
pub(crate) struct Papers {
    pub(crate) ca: String,
    /// Certificate and key; `None` to show nothing.
    pub(crate) own: Option<(String, String)>,
}

impl Papers {
    pub(crate) fn config(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

/// A supervisor that listens by TCP.
pub(crate) struct Fort {
    pub(crate) host: Host,
    pub(crate) address: SocketAddr,
}

impl Fort {
    pub(crate) async fn build() -> Self {
        let host = Host::start().await;
        host.certificates().await.init_authority(v1::InitAuthorityRequest::default()).await.unwrap();
        // Somebody may take the port that was just free.
        let address = until("it listens by TCP", async || {
            let address = free_address();
            host.listen(&format!("[{{tcp: \"{address}\"}}]"));
            host.system().await.reload(v1::ReloadRequest {}).await.ok().map(|_| address)
        })
        .await;
        Self { host, address }
    }

    pub(crate) async fn papers(&self, name: &str, role: &str, instance: &str) -> Papers {
        let key = KeyPair::generate().unwrap();
        let request = v1::IssueCertificateRequest {
            name: name.into(),
            role: role.into(),
            instance: instance.into(),
            signing_request: request_of(&key),
            ..Default::default()
        };
        let answer = self.host.certificates().await.issue_certificate(request).await.unwrap().into_inner();
        Papers { ca: answer.ca_certificate, own: Some((answer.certificate, key.serialize_pem())) }
    }

    /// Papers that the authority has signed for nobody but this test.
    pub(crate) fn forged(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Papers {
        let pki = self.host.data_dir().join("pki");
        let ca = fs::read_to_string(pki.join("ca.crt")).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(pki.join("ca.key")).unwrap()).unwrap();
        signed_by(&Issuer::from_ca_cert_pem(&ca, key).unwrap(), ca, adjust)
    }

    pub(crate) async fn handshake(
        &self,
        papers: &Papers,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(papers.config(protocols)).connect(name, stream).await
    }

    /// Whether whoever has these is let in; else what this side was told.
    pub(crate) async fn enter(
        &self,
        papers: &Papers,
        protocols: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, String> {
        let enter = async {
            let mut stream = self.handshake(papers, protocols).await?;
            stream.write_all(PREFACE).await?;
            match stream.read(&mut [0; 9]).await? {
                0 => Err(std::io::Error::other("it was closed")),
                _ => Ok(stream),
            }
        };
        timeout(PATIENCE, enter).await.unwrap().map_err(|error| error.to_string())
    }

    pub(crate) async fn channel(&self, papers: &Papers) -> Channel {
        let (address, config) = (self.address, papers.config(&[b"h2"]));
        let connector = service_fn(move |_: Uri| {
            let connector = TlsConnector::from(Arc::clone(&config));
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
    }

    pub(crate) async fn info(&self, papers: &Papers) -> Result<v1::GetInfoResponse, tonic::Status> {
        let mut client = SystemServiceClient::new(self.channel(papers).await);
        client.get_info(v1::GetInfoRequest {}).await.map(tonic::Response::into_inner)
    }

    /// Tries until the log says why: it tells of one a second.
    pub(crate) async fn turns_away(&self, papers: &Papers, protocols: &[&[u8]], told: &str) {
        until(told, async || {
            let entered = self.enter(papers, protocols).await;
            assert!(entered.is_err(), "{told}: it was let in");
            self.has_logged(told).then_some(())
        })
        .await;
    }

    pub(crate) fn has_logged(&self, what: &str) -> bool {
        let log = self.host.supervisor_log();
        log.lines().any(|line| line.contains("a caller by TCP was turned away") && line.contains(what))
    }
}

impl Host {
    pub(crate) async fn certificates(&self) -> CertificateServiceClient<Channel> {
        CertificateServiceClient::new(self.channel().await.unwrap())
    }

    /// Writes `listen` into the settings, in place of what was there.
    pub(crate) fn listen(&self, places: &str) {
        let path = self.data_dir().join("settings.yaml");
        let settings = fs::read_to_string(&path).unwrap();
        let rest: Vec<&str> = settings.lines().filter(|line| !line.starts_with("listen:")).collect();
        fs::write(&path, format!("{}\nlisten: {places}\n", rest.join("\n"))).unwrap();
    }

    pub(crate) async fn alarms(&self) -> Vec<String> {
        self.system().await.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().alarms
    }
}

pub(crate) fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn request_of(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A caller's certificate as this authority would issue it, but for `adjust`.
pub(crate) fn signed_by(
    issuer: &Issuer<'_, KeyPair>,
    trusts: String,
    adjust: impl FnOnce(&mut CertificateParams),
) -> Papers {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "mallory");
    params.not_before = now() - Duration::from_secs(3600);
    params.not_after = now() + Duration::from_secs(3600);
    params.subject_alt_names = vec![SanType::URI("openclaw:role/admin".try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    adjust(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap();
    Papers { ca: trusts, own: Some((certificate.pem(), key.serialize_pem())) }
}

/// An authority that nobody here knows.
pub(crate) fn strange_authority() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Issuer::new(params, KeyPair::generate().unwrap())
}

pub(crate) fn reason_of(status: &tonic::Status) -> Option<Reason> {
    use tonic_types::StatusExt;
    Reason::from_str_name(&format!("REASON_{}", status.get_details_error_info()?.reason))
}
