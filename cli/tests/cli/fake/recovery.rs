//! The fake's configurations, incidents and audit.

use supervisor_proto::v1::{
    audit_service_server::AuditService, config_service_server::ConfigService,
    incident_service_server::IncidentService, *,
};
use tonic::{Code, Request};

use super::{Answer, Fake, Service, refusal, respond};

/// What the fake knows of them.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) snapshots: ListSnapshotsResponse,
    pub(crate) diff: DiffSnapshotResponse,
    pub(crate) diffs: Vec<DiffSnapshotRequest>,
    /// What a rollback answers, but for the instance.
    pub(crate) rollback: RollBackResponse,
    pub(crate) rollbacks: Vec<RollBackRequest>,
    pub(crate) marked: Vec<MarkGoodRequest>,
    pub(crate) notes: Vec<String>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) incident: GetIncidentResponse,
    pub(crate) listings: Vec<ListIncidentsRequest>,
    pub(crate) audit: ListAuditResponse,
    pub(crate) audits: Vec<ListAuditRequest>,
}

#[tonic::async_trait]
impl ConfigService for Service {
    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        self.admit("ListSnapshots", "")?;
        self.get(&request.into_inner().name)?;
        respond(self.world().recovery.snapshots.clone())
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let request = request.into_inner();
        self.admit("CreateSnapshot", &request.request_id)?;
        let mut world = self.world();
        world.recovery.notes.push(request.note);
        respond(CreateSnapshotResponse { snapshot: world.recovery.snapshots.snapshots.first().cloned() })
    }

    async fn diff_snapshot(&self, request: Request<DiffSnapshotRequest>) -> Answer<DiffSnapshotResponse> {
        self.admit("DiffSnapshot", "")?;
        let mut world = self.world();
        world.recovery.diffs.push(request.into_inner());
        respond(world.recovery.diff.clone())
    }

    async fn roll_back(&self, request: Request<RollBackRequest>) -> Answer<RollBackResponse> {
        let request = request.into_inner();
        self.admit("RollBack", &request.request_id)?;
        let instance = Some(self.get(&request.name)?);
        let mut world = self.world();
        world.recovery.rollbacks.push(request);
        respond(RollBackResponse { instance, ..world.recovery.rollback.clone() })
    }

    async fn mark_good(&self, request: Request<MarkGoodRequest>) -> Answer<MarkGoodResponse> {
        let request = request.into_inner();
        self.admit("MarkGood", &request.request_id)?;
        let mut world = self.world();
        world.recovery.marked.push(request);
        let snapshot = world.recovery.snapshots.snapshots[0].id.clone();
        respond(MarkGoodResponse { snapshot, ..Default::default() })
    }
}

#[tonic::async_trait]
impl IncidentService for Service {
    async fn list_incidents(&self, request: Request<ListIncidentsRequest>) -> Answer<ListIncidentsResponse> {
        self.admit("ListIncidents", "")?;
        let mut world = self.world();
        world.recovery.listings.push(request.into_inner());
        let incidents = world.recovery.incidents.clone();
        respond(ListIncidentsResponse { incidents, ..Default::default() })
    }

    async fn get_incident(&self, request: Request<GetIncidentRequest>) -> Answer<GetIncidentResponse> {
        self.admit("GetIncident", "")?;
        let number = request.into_inner().number;
        let incident = self.world().recovery.incident.clone();
        match incident.incident.as_ref().is_some_and(|known| known.number == number) {
            true => respond(incident),
            false => Err(refusal(Code::NotFound, "UNKNOWN_INCIDENT", "no incident has the number.")),
        }
    }
}

impl Fake {
    /// Its audit.
    pub(crate) fn audit(&self, answer: ListAuditResponse) {
        self.world().recovery.audit = answer;
    }

    /// How it was asked for last.
    pub(crate) fn asked_audit(&self) -> ListAuditRequest {
        self.world().recovery.audits.last().cloned().unwrap()
    }
}

#[tonic::async_trait]
impl AuditService for Service {
    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Answer<ListAuditResponse> {
        self.admit("ListAudit", "")?;
        let mut world = self.world();
        world.recovery.audits.push(request.into_inner());
        respond(world.recovery.audit.clone())
    }
}
