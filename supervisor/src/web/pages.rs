//! The page itself: three files that are part of this program, and what a browser is told to allow them.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind and content.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../web/style.css")),
    ("/app.js", SCRIPT, include_str!("../../web/app.js")),
    ("/api.js", SCRIPT, include_str!("../../web/api.js")),
    ("/ui.js", SCRIPT, include_str!("../../web/ui.js")),
    ("/pages.js", SCRIPT, include_str!("../../web/pages.js")),
    ("/instance.js", SCRIPT, include_str!("../../web/instance.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg")),
];

/// Nothing from elsewhere, nothing written into the page, no frames around it, and nobody told where it was.
const PROTECTION: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Tells the browser what is allowed, and to keep nothing: the next supervisor may be a newer one.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in PROTECTION {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// The file at this path.
pub(super) fn page(path: &str) -> Response<Body> {
    let Some((_, kind, content)) = FILES.iter().find(|(known, ..)| *known == path) else {
        return super::plain(StatusCode::NOT_FOUND, "there is no such page");
    };
    let mut answer = Response::new(Body::from(*content));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
