//! The page for Prometheus, beside the services: whoever may look at the fleet may read it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use http::header::{CONTENT_TYPE, HeaderName};
use supervisor_core::{
    ids::Name,
    instance::{Goal, Instance, Phase},
    ports::BLOCK,
    view::View,
};
use tokio::time::timeout;

use super::{access, context::Api, convert};
use crate::{
    figures::{self, Wanted},
    metrics::{Own, Scene, Standing},
};

/// So that Prometheus knows what it reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Looking at the processes of a thousand instances takes a tenth of a second. Where it takes longer than this, they are
/// shown as they were seen last.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is served beside the services.
pub(super) fn pages(api: Arc<Api>) -> Router {
    Router::new().route(access::METRICS, get(page)).with_state(api)
}

async fn page(State(api): State<Arc<Api>>) -> ([(HeaderName, &'static str); 1], String) {
    let view = api.handle.view();
    api.figures.retain(|name| view.instances.contains_key(name));
    let wanted = view.instances.values().filter_map(|instance| Wanted::of(instance)).collect();
    let _ = timeout(PATIENCE, api.figures.look(wanted)).await;
    let page = api.metrics.page(scene(&api, &view));
    ([(CONTENT_TYPE, OPEN_METRICS)], page)
}

fn scene(api: &Api, view: &View) -> Scene {
    let figure = figures::own();
    let blocks = |ports: u32| u64::from(ports / u32::from(BLOCK));
    let own = Own {
        version: env!("CARGO_PKG_VERSION"),
        started: seconds(api.started.0),
        store_failing: view.store_failing,
        blocks_held: u64::try_from(view.instances.len()).unwrap_or(u64::MAX),
        blocks: blocks(u32::from(view.pool.last) - u32::from(view.pool.first) + 1),
        figure,
    };
    let rescued = view.instances.values().flat_map(|instance| &instance.policy().rescues).collect();
    let instances = view.instances.values().map(|instance| standing(api, (view, &rescued), instance));
    Scene { own, instances: instances.collect() }
}

fn standing(api: &Api, (view, rescued): (&View, &BTreeSet<&Name>), instance: &Instance) -> Standing {
    let name = instance.name();
    let role = view.role_given(instance, || rescued.contains(name));
    Standing {
        name: name.clone(),
        phase: word(convert::phase(instance).as_str_name(), "PHASE_"),
        role: word(convert::role(role).as_str_name(), "ROLE_"),
        wanted: instance.goal() == Goal::Run,
        up: instance.process().is_some(),
        ready: *instance.phase() == Phase::Ready,
        since: seconds(instance.since().0),
        started: instance.process().map(|process| seconds(process.started.0)),
        port: instance.record().block.base,
        figure: api.figures.known(name, instance.incarnation()),
    }
}

/// The contract's name of one of several, in a word.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Since the Unix epoch.
fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}
