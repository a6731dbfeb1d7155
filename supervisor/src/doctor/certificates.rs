//! Certificates that are damaged, or will end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    finding::{Finding, Mend, Severity},
    scene::{Budget, Scene},
};
use crate::{
    pki::{self, Files, INIT, Listed, Trust},
    role::Grant,
};

/// So long before a caller's certificate ends it is told of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The supervisor's own, and those of its callers.
pub(super) fn ending(scene: &Scene, _: &Budget) -> Vec<Finding> {
    let files = Files::of(scene.data_dir());
    if scene.wanted.is_some() || !files.exist() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    match Trust::load(&files) {
        Err(error) => {
            let why = "nobody can call by TCP from the supervisor's next start on";
            let mend = Mend::Do(format!("put it right; `{INIT}` makes a new certificate for the server"));
            findings.push(Finding::new(
                "certificates.damaged",
                Severity::Error,
                error.to_string(),
                why,
                mend,
            ));
        }
        Ok(trust) => findings.extend(trust.warning().map(|(what, mend)| {
            let why = "callers by TCP do not believe the supervisor without it";
            Finding::new("certificates.server", Severity::Warning, what, why, Mend::Do(mend))
        })),
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let known = pki::list(&files).unwrap_or_default();
    findings.extend(known.iter().filter_map(|one| ends_soon(one, &known, now)));
    findings
}

/// A caller's last certificate that is about to end.
fn ends_soon(one: &Listed, all: &[Listed], now: Duration) -> Option<Finding> {
    let end = |one: &Listed| Duration::from_secs(u64::try_from(one.facts.not_after).unwrap_or_default());
    let is_last = !all
        .iter()
        .any(|other| other.revoked.is_none() && other.facts.name == one.facts.name && end(other) > end(one));
    let left = end(one).checked_sub(now).filter(|left| *left < SOON)?;
    if one.revoked.is_some() || !is_last {
        return None;
    }
    let name = &one.facts.name;
    let grant = one.facts.grant.as_ref();
    let role = grant.map(|grant| grant.role().to_string()).unwrap_or_default();
    let instance =
        grant.and_then(Grant::instance).map(|name| format!(" --instance {name}")).unwrap_or_default();
    Some(Finding::new(
        "certificates.caller",
        Severity::Note,
        format!("the certificate of `{name}` ends in {} days", left.as_secs() / (24 * 3600)),
        "its holder is turned away from then on",
        Mend::Type(format!("openclawctl cert issue {name} --role {role}{instance}")),
    ))
}
