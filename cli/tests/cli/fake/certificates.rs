//! The fake's certificates.

use supervisor_proto::v1::{certificate_service_server::CertificateService, *};
use tonic::{Request, Status};

use super::{Answer, Service, respond};

/// What the fake knows of them.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) steps: Vec<String>,
    pub(crate) listed: ListCertificatesResponse,
}

#[tonic::async_trait]
impl CertificateService for Service {
    async fn init_authority(&self, request: Request<InitAuthorityRequest>) -> Answer<InitAuthorityResponse> {
        self.admit("InitAuthority", &request.into_inner().request_id)?;
        respond(InitAuthorityResponse {
            steps: self.world().certificates.steps.clone(),
            ..Default::default()
        })
    }

    async fn issue_certificate(
        &self,
        _: Request<IssueCertificateRequest>,
    ) -> Answer<IssueCertificateResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_certificates(
        &self,
        _: Request<ListCertificatesRequest>,
    ) -> Answer<ListCertificatesResponse> {
        self.admit("ListCertificates", "")?;
        respond(self.world().certificates.listed.clone())
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Answer<RevokeCertificateResponse> {
        self.admit("RevokeCertificate", &request.into_inner().request_id)?;
        respond(RevokeCertificateResponse { revoked: self.world().certificates.listed.certificates.clone() })
    }
}
