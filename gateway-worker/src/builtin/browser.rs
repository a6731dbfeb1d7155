//! Browser control, of which this gateway has only the status: there is no browser. The same answer is given
//! over HTTP at base+2 and to the method `browser.request`.

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::http::is_read;
use crate::reply::{self, Body};

/// The first CDP port of OpenClaw's default browser profile, counted from the base port.
const CDP_OFFSET: u16 = 11;

/// What the browser does: nothing. The keys are OpenClaw's.
pub(crate) fn status(gateway: &Gateway) -> Value {
    json!({
        "ok": true,
        "enabled": false,
        "profile": "openclaw",
        "driver": "openclaw",
        "transport": "cdp",
        "running": false,
        "cdpReady": false,
        "cdpHttp": false,
        "pageReady": false,
        "pid": null,
        "cdpPort": gateway.config.port.above(CDP_OFFSET),
        "cdpUrl": null,
        "chosenBrowser": null,
        "detectedBrowser": null,
        "detectedExecutablePath": null,
        "detectError": null,
        "userDataDir": null,
        "color": "#FF4500",
        "headless": true,
        "noSandbox": false,
        "executablePath": null,
        "attachOnly": false,
    })
}

/// Answers at base+2.
pub(crate) fn answer(gateway: &Gateway, request: &Request<Incoming>) -> Response<Body> {
    if request.uri().path() != "/" {
        return reply::json(
            StatusCode::NOT_FOUND,
            &json!({ "error": "the built-in gateway has no browser" }),
        );
    }
    if !is_read(request.method()) {
        return reply::method_not_allowed();
    }
    reply::json(StatusCode::OK, &status(gateway))
}
