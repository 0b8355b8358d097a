//! What goes wrong with a request, said to people as a page and to programs as a problem document (RFC 9457).

use std::net::IpAddr;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use certbus_core::endpoint::FieldError;
use certbus_store::StoreError;

use crate::manager::ManageError;

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    /// In few words.
    pub(crate) title: &'static str,
    /// What exactly, and what would be right.
    pub(crate) detail: String,
    /// Each field that is wrong.
    pub(crate) errors: Vec<FieldError>,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// A number that a program goes on with, and what it is called.
    pub(crate) number: Option<(&'static str, u64)>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), errors: Vec::new(), retry_after: None, number: None }
    }

    /// There is no such thing.
    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", what)
    }

    /// What was sent cannot be done.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// What was written cannot be: each field with what would be right.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self { errors, ..Self::bad(detail) }
    }

    /// As a program is told.
    pub(crate) fn problem(&self) -> Response {
        let mut body = serde_json::json!({ "type": "about:blank", "title": self.title, "status": self.status.as_u16(),
            "detail": self.detail, "errors": self.errors });
        if let (Some((name, number)), Some(fields)) = (self.number, body.as_object_mut()) {
            fields.insert(name.into(), number.into());
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        self.headers(response)
    }

    /// With what a client is to know beside the body.
    pub(crate) fn headers(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Fault {
    /// The gate, which knows who asked and for what, makes the page or the problem document of it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let (status, title) = match &error {
            StoreError::Duplicate { .. } | StoreError::Taken { .. } => (StatusCode::CONFLICT, "it is there already"),
            StoreError::Changed { .. } => (StatusCode::CONFLICT, "changed meanwhile"),
            StoreError::LastAdmin { .. } => (StatusCode::CONFLICT, "the last admin"),
            StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not found"),
            StoreError::Unavailable { .. } => {
                tracing::error!("{error}");
                // Where it lies is nobody's business.
                let what = "the inventory cannot be read or written; what the server logged says why";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "the inventory cannot be used", what);
            }
        };
        Self::new(status, title, error.to_string())
    }
}

impl From<ManageError> for Fault {
    fn from(error: ManageError) -> Self {
        let (status, title) = match &error {
            ManageError::UnknownCertificate(_) => (StatusCode::NOT_FOUND, "not found"),
            ManageError::ChangedMeanwhile | ManageError::Busy | ManageError::Claimed { .. } => {
                (StatusCode::CONFLICT, "changed meanwhile")
            }
            ManageError::Settings(_) | ManageError::NoRecipient => (StatusCode::CONFLICT, "the settings forbid it"),
            _ => {
                tracing::error!("{error}");
                (StatusCode::SERVICE_UNAVAILABLE, "the log cannot be used")
            }
        };
        Self::new(status, title, error.to_string())
    }
}

/// An address as a line of the trail has it.
pub(crate) fn source(address: IpAddr) -> String {
    address.to_canonical().to_string()
}
