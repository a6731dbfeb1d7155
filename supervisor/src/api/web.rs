//! `WebService`.

use std::sync::Arc;

use supervisor_proto::v1::{CreateLinkRequest, CreateLinkResponse, web_service_server::WebService};
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, Peer},
    context::Api,
    inlet::Visitor,
    status::{Refusal, Unmet},
};
use crate::settings;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Webs(pub(super) Arc<Api>);

impl Webs {
    fn create(&self, request: &Request<CreateLinkRequest>) -> Result<CreateLinkResponse, Refusal> {
        let dashboard = self.0.web.as_ref().ok_or_else(|| Unmet::NoDashboard {
            settings: self.0.host().control.data_dir.join(settings::FILE),
        })?;
        if let Some(trouble) = dashboard.trouble() {
            return Err(Unmet::DashboardShut(trouble).into());
        }
        let peer = request.extensions().get::<Caller>().map(|caller| &caller.peer);
        let Some(Peer::Unix { uid, gid, groups, .. }) = peer else {
            return Err(Unmet::Remote("links").into());
        };
        let visitor = Visitor { uid: *uid, gid: *gid, groups: Arc::clone(groups) };
        let (url, expires) = dashboard.link(&visitor).map_err(|error| Refusal::storage(&error))?;
        let expire_time = i64::try_from(expires).unwrap_or(i64::MAX);
        let expire_time = Some(prost_types::Timestamp { seconds: expire_time, nanos: 0 });
        Ok(CreateLinkResponse { url, expire_time })
    }
}

#[tonic::async_trait]
impl WebService for Webs {
    async fn create_link(
        &self,
        request: Request<CreateLinkRequest>,
    ) -> Result<Response<CreateLinkResponse>, Status> {
        Ok(Response::new(self.create(&request)?))
    }
}
