//! `AuditService`.

use std::sync::Arc;

use supervisor_proto::v1::{
    AuditCaller, AuditEntry, ListAuditRequest, ListAuditResponse, audit_entry::Outcome as Shown,
    audit_service_server::AuditService,
};
use tonic::{Request, Response, Status};

use super::{
    context::Api,
    convert::timestamp_ns,
    page::{self, Sizes},
    status::Refusal,
};
use crate::audit::{self, Caller, Entry, Outcome, Query};

/// Pages of `ListAudit`.
const PAGES: Sizes = Sizes { usual: 50, most: 1_000 };

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Audits(pub(super) Arc<Api>);

impl Audits {
    async fn list(&self, request: ListAuditRequest) -> Result<ListAuditResponse, Refusal> {
        let limit = PAGES.of(request.page_size)?;
        let since_ns = nanoseconds("since", request.since.as_ref())?;
        let until_ns = nanoseconds("until", request.until.as_ref())?;
        let conditions = page::conditions(
            "audit",
            &[
                &request.instance,
                &request.caller,
                &request.method,
                &format!("{since_ns:?}"),
                &format!("{until_ns:?}"),
            ],
        );
        let before = page::begin(conditions, &request.page_token)?;
        let before =
            before.map(|before| before.parse().map_err(|_| Refusal::InvalidPageToken)).transpose()?;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let query = Query {
            before,
            instance: given(request.instance),
            caller: given(request.caller),
            method: given(request.method),
            since_ns,
            until_ns,
            limit,
            died: self.0.audit.before(),
        };
        // Who has seen the answer of a call finds the call here.
        self.0.audit.caught_up().await;
        let page = self.0.journal.with(move |db| audit::read(db, &query)).await?;
        let last = page.entries.last().filter(|_| page.more);
        let next_page_token =
            last.map(|last| page::token(conditions, &last.id.to_string())).unwrap_or_default();
        let missing = self.0.audit.lost();
        let entries = page.entries.into_iter().map(shown).collect();
        Ok(ListAuditResponse { entries, next_page_token, missing })
    }
}

fn nanoseconds(field: &str, time: Option<&prost_types::Timestamp>) -> Result<Option<u64>, Refusal> {
    let Some(time) = time else { return Ok(None) };
    let seconds = u64::try_from(time.seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    let whole = seconds.zip(u64::try_from(time.nanos).ok());
    let Some((seconds, nanos)) = whole else {
        return Err(Refusal::field(field, "no such time is known here", "give a time after 1970"));
    };
    Ok(Some(seconds.saturating_add(nanos)))
}

fn shown(entry: Entry) -> AuditEntry {
    let outcome = match entry.outcome {
        Outcome::UnderWay => Shown::UnderWay,
        Outcome::Done => Shown::Done,
        Outcome::Refused => Shown::Refused,
        Outcome::Left => Shown::CallerLeft,
        Outcome::Died => Shown::SupervisorDied,
        Outcome::Lost => Shown::Lost,
    };
    AuditEntry {
        number: entry.id,
        time: Some(timestamp_ns(entry.began_ns)),
        last_time: Some(timestamp_ns(entry.last_ns)),
        calls: entry.calls,
        caller: Some(caller(entry.caller)),
        method: entry.method,
        target: entry.target,
        request_id: entry.request_id,
        repeat: entry.repeat,
        outcome: outcome.into(),
        reason: entry.reason,
        duration: entry.took.and_then(|took| prost_types::Duration::try_from(took).ok()),
    }
}

fn caller(caller: Caller) -> AuditCaller {
    AuditCaller {
        uid: caller.uid,
        user: caller.user,
        pid: caller.pid.unwrap_or(0),
        instance: caller.inside,
        certificate: caller.certificate,
        certificate_serial: caller.serial,
        token_file: caller.token,
        from: caller.from,
        role: caller.role,
        gid: caller.gid,
    }
}

#[tonic::async_trait]
impl AuditService for Audits {
    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }
}
