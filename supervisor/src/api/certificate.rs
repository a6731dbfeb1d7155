//! `CertificateService`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use supervisor_core::ids::Name;
use supervisor_proto::v1::{
    Certificate, InitAuthorityRequest, InitAuthorityResponse, IssueCertificateRequest,
    IssueCertificateResponse, ListCertificatesRequest, ListCertificatesResponse, RevokeCertificateRequest,
    RevokeCertificateResponse, certificate::State, certificate_service_server::CertificateService,
};
use tokio::{sync::Mutex, task};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    caller::{Caller, Peer},
    context::Api,
    gate::Admission,
    status::{Refusal, Unmet},
};
use crate::{
    pki::{self, Authority, Facts, Files, Listed, PkiError, Selection, Subject, Wish},
    role::{Grant, GrantError, Role},
};

/// How long a certificate is good for unless somebody says otherwise.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    api: Arc<Api>,
    files: Files,
    /// Changes of the files, one at a time.
    turns: Arc<Mutex<()>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Certificates {
    pub(super) fn new(api: Arc<Api>) -> Self {
        let files = Files::of(&api.host().control.data_dir);
        Self { api, files, turns: Arc::default() }
    }

    /// Does something with the files if the caller still may, then has whoever depends on them look at them.
    async fn with_files<T: Send + 'static>(
        &self,
        admission: &Admission,
        work: impl FnOnce(&Files) -> Result<T, PkiError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.turns.lock().await;
        admission.again()?;
        let files = self.files.clone();
        let done = task::spawn_blocking(move || work(&files)).await.map_err(|_| Refusal::ShuttingDown)?;
        self.api.doors.keeper().look().await;
        done.map_err(|error| refused(&error))
    }

    async fn init(
        self,
        request: InitAuthorityRequest,
        admission: Admission,
    ) -> Result<InitAuthorityResponse, Refusal> {
        let made = self.with_files(&admission, move |files| Authority::init(files, &request.hosts)).await?;
        info!(hosts = ?made.server.hosts, "the server has a new certificate");
        let server = Some(shown(&made.server, None));
        Ok(InitAuthorityResponse { ca_certificate: made.ca, server, steps: made.steps })
    }

    async fn issue(
        self,
        request: IssueCertificateRequest,
        admission: Admission,
    ) -> Result<IssueCertificateResponse, Refusal> {
        let wish = wish(request)?;
        let issued = self.with_files(&admission, move |files| Authority::open(files)?.issue(&wish)).await?;
        let Facts { name, grant, serial, .. } = &issued.facts;
        let role = grant.as_ref().map(ToString::to_string).unwrap_or_default();
        info!(name, role, serial, "a certificate was issued");
        let files = self.files.clone();
        let own = task::spawn_blocking(move || pki::own(&files)).await.map_err(|_| Refusal::ShuttingDown)?;
        let hosts = own.1.map(|server| server.hosts).unwrap_or_default();
        let addresses = self.api.doors.addresses();
        Ok(IssueCertificateResponse {
            certificate: issued.certificate,
            ca_certificate: issued.ca,
            issued: Some(shown(&issued.facts, None)),
            addresses: addresses.iter().flat_map(|address| reached_at(*address, &hosts)).collect(),
        })
    }

    async fn list(&self) -> Result<ListCertificatesResponse, Refusal> {
        let files = self.files.clone();
        let read = move || Ok((pki::list(&files)?, pki::own(&files)));
        let read = task::spawn_blocking(read).await.map_err(|_| Refusal::ShuttingDown)?;
        let (listed, (authority, server)) = read.map_err(|error: PkiError| refused(&error))?;
        Ok(ListCertificatesResponse {
            certificates: listed.iter().map(told).collect(),
            authority: authority.map(|facts| shown(&facts, None)),
            server: server.map(|facts| shown(&facts, None)),
            addresses: self.api.doors.addresses().iter().map(ToString::to_string).collect(),
        })
    }

    async fn revoke(
        self,
        request: RevokeCertificateRequest,
        admission: Admission,
    ) -> Result<RevokeCertificateResponse, Refusal> {
        let which = match (request.name.as_str(), request.serial.as_str()) {
            (name, "") => Selection::Of(subject(name)?),
            ("", serial) => Selection::Serial(serial.to_ascii_lowercase().replace(':', "")),
            (_, _) => return Err(Refusal::field("serial", "there is a name, too", "give one of the two")),
        };
        let revoked =
            self.with_files(&admission, move |files| Authority::open(files)?.revoke(&which)).await?;
        for Listed { facts, .. } in &revoked {
            info!(name = facts.name, serial = facts.serial, "a certificate was revoked");
        }
        Ok(RevokeCertificateResponse { revoked: revoked.iter().map(told).collect() })
    }
}

fn wish(request: IssueCertificateRequest) -> Result<Wish, Refusal> {
    let role: Role = request.role.parse().map_err(|_| {
        let message = format!("`{}` is no role", request.role.escape_default());
        Refusal::field("role", message, "choose viewer, operator, admin or rescue")
    })?;
    let instance = Some(request.instance.as_str()).filter(|instance| !instance.is_empty());
    let instance = instance.map(Name::new).transpose()?;
    let grant = Grant::new(role, instance).map_err(|error| {
        let mend = match error {
            GrantError::NoInstance => "name it",
            GrantError::Instance(_) => "leave it out",
        };
        Refusal::field("instance", error.to_string(), mend)
    })?;
    let valid_for = match request.valid_for {
        None => VALID_FOR,
        Some(asked) => Duration::try_from(asked).map_err(|_| {
            Refusal::field("valid_for", "it is not a time to come", "choose one hour to ten years")
        })?,
    };
    Ok(Wish { subject: subject(&request.name)?, grant, valid_for, request: request.signing_request })
}

fn subject(name: &str) -> Result<Subject, Refusal> {
    name.parse().map_err(|error: PkiError| refused(&error))
}

fn refused(error: &PkiError) -> Refusal {
    match error {
        PkiError::Read { .. } | PkiError::Write { .. } | PkiError::Make(_) => Refusal::storage(error),
        PkiError::Missing { .. }
        | PkiError::Exposed { .. }
        | PkiError::Damaged { .. }
        | PkiError::NoKey { .. } => Unmet::BadCertificates(error.to_string()).into(),
        PkiError::Unfit(what) => Refusal::field("request", what, "correct it"),
        PkiError::TooMany(_) => Refusal::field("name", error.to_string(), "wait until some have ended"),
        PkiError::Unknown(_) => Unmet::UnknownCertificate(error.to_string()).into(),
    }
}

/// Certificates are made where the supervisor is: whoever has got hold of an administrator's certificate must not be
/// able to make himself others, which outlive that.
fn local<T>(request: &Request<T>) -> Result<(), Refusal> {
    match request.extensions().get::<Caller>().map(|caller| &caller.peer) {
        Some(Peer::Unix { .. }) => Ok(()),
        Some(Peer::Certificate { .. }) | None => Err(Unmet::Remote("certificates").into()),
    }
}

/// By which addresses others come to where the supervisor listens.
fn reached_at(listens: SocketAddr, hosts: &[String]) -> Vec<String> {
    if !listens.ip().is_unspecified() {
        return vec![listens.to_string()];
    }
    let written = |host: &String| match host.contains(':') {
        true => format!("[{host}]:{}", listens.port()),
        false => format!("{host}:{}", listens.port()),
    };
    let own: BTreeSet<&str> = ["localhost", "127.0.0.1", "::1"].into();
    hosts.iter().filter(|host| !own.contains(host.as_str()) && !host.contains('*')).map(written).collect()
}

fn told(listed: &Listed) -> Certificate {
    shown(&listed.facts, listed.revoked)
}

fn shown(facts: &Facts, revoked: Option<i64>) -> Certificate {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let state = match revoked {
        Some(_) => State::Revoked,
        None if u64::try_from(facts.not_after).unwrap_or_default() <= now => State::Expired,
        None => State::Good,
    };
    let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    let instance = facts.grant.as_ref().and_then(Grant::instance);
    Certificate {
        name: facts.name.clone(),
        role: facts.grant.as_ref().map(|grant| grant.role().to_string()).unwrap_or_default(),
        instance: instance.map(ToString::to_string).unwrap_or_default(),
        serial: facts.serial.clone(),
        not_before: Some(at(facts.not_before)),
        not_after: Some(at(facts.not_after)),
        state: state.into(),
        revoke_time: revoked.map(at),
        hosts: facts.hosts.clone(),
    }
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn init_authority(&self, request: Request<InitAuthorityRequest>) -> Answer<InitAuthorityResponse> {
        local(&request)?;
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().init(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Answer<IssueCertificateResponse> {
        local(&request)?;
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().issue(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Answer<ListCertificatesResponse> {
        local(&request)?;
        Ok(Response::new(self.list().await?))
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Answer<RevokeCertificateResponse> {
        local(&request)?;
        let (admission, request) = (Admission::of(&request)?, request.into_inner());
        let work = self.clone().revoke(request.clone(), admission);
        Ok(Response::new(self.api.requests.once(&request.request_id.clone(), request, work).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_addresses_that_lead_here() {
        let hosts = ["localhost", "127.0.0.1", "::1", "box.example.org", "2001:db8::1"].map(str::to_owned);
        let reached = |listens: &str| reached_at(listens.parse().unwrap(), &hosts);
        assert_eq!(reached("192.0.2.7:7443"), ["192.0.2.7:7443"]);
        assert_eq!(reached("0.0.0.0:7443"), ["box.example.org:7443", "[2001:db8::1]:7443"]);
    }
}
