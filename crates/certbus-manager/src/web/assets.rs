//! Style, script and picture, from the program itself. Their address changes when they do, so they are kept for ever.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use certbus_core::id::Hash;

use super::fault::Fault;

const FILES: [(&str, &str, &[u8]); 4] = [
    ("style.css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css")),
    ("htmx.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/htmx-2.0.11.min.js")),
    ("live.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/live.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
];

/// What all of them together hash to, in short.
pub(crate) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let all: Vec<u8> = FILES.iter().flat_map(|(_, _, bytes)| bytes.iter().copied()).collect();
        Hash::of(&all).to_string().chars().take(12).collect()
    })
}

pub(super) async fn show(Path((_, file)): Path<(String, String)>) -> Result<Response, Fault> {
    let (_, kind, bytes) = FILES.iter().find(|(name, _, _)| *name == file).ok_or_else(|| Fault::missing(file))?;
    let mut response = bytes.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, kept);
    Ok(response)
}

pub(super) async fn icon() -> Result<Response, Fault> {
    show(Path((String::new(), "icon.svg".into()))).await
}
