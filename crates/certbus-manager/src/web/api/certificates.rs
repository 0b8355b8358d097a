//! Certificates that were seen or issued.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use certbus_core::certificate::Facts;
use certbus_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;
use crate::web::Face;
use crate::web::certificates::{der as der_page, kept, pem as pem_page};
use crate::web::fault::Fault;

/// Places that are told.
const PLACES: i64 = 500;

/// A certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CertificateOut {
    /// SHA-256 of its DER.
    fingerprint: String,
    subject: String,
    issuer: String,
    /// Hex.
    serial: String,
    names: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    not_before: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    not_after: Timestamp,
    key: String,
    signature: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    spki: String,
    /// The managed certificate that it is a version of: tenant and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<String>,
    /// Where it is or was seen.
    seen: Vec<PlaceOut>,
}

/// A place where a certificate was seen.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceOut {
    endpoint: i64,
    name: String,
    address: String,
    site: String,
    #[schema(value_type = String, format = DateTime)]
    first: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last: Timestamp,
    still: bool,
}

/// One certificate, by the SHA-256 of its DER.
#[utoipa::path(get, path = "/api/v1/certificates/{fingerprint}", tag = "certificates",
    params(("fingerprint" = String, Path, pattern = "^[0-9a-f]{64}$")), responses(
    (status = 200, body = CertificateOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(State(face): State<Face>, Path(text): Path<String>) -> Result<Json<CertificateOut>, Fault> {
    let (fingerprint, kept) = kept(&face, &text).await?;
    let facts = Facts::read(&kept.der);
    let seen = face.store.seen_at(fingerprint, PLACES).await?;
    let place = |one: certbus_store::kept::SeenAt| PlaceOut {
        endpoint: one.endpoint,
        name: one.name,
        address: one.address,
        site: one.site,
        first: one.first,
        last: one.last,
        still: one.still,
    };
    Ok(Json(CertificateOut {
        fingerprint: fingerprint.to_string(),
        subject: facts.subject,
        issuer: facts.issuer,
        serial: facts.serial,
        names: facts.names,
        not_before: facts.not_before,
        not_after: facts.not_after,
        key: facts.key,
        signature: facts.signature,
        spki: facts.spki.to_string(),
        managed: kept.managed,
        seen: seen.into_iter().map(place).collect(),
    }))
}

/// A certificate with the chain that it was served with, in PEM.
#[utoipa::path(get, path = "/api/v1/certificates/{fingerprint}/pem", tag = "certificates",
    params(("fingerprint" = String, Path, pattern = "^[0-9a-f]{64}$")), responses(
    (status = 200, body = String, content_type = "application/x-pem-file"),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pem(state: State<Face>, path: Path<String>) -> Result<Response, Fault> {
    pem_page(state, path).await
}

/// A certificate alone, in DER.
#[utoipa::path(get, path = "/api/v1/certificates/{fingerprint}/der", tag = "certificates",
    params(("fingerprint" = String, Path, pattern = "^[0-9a-f]{64}$")), responses(
    (status = 200, body = [u8], content_type = "application/pkix-cert"),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn der(state: State<Face>, path: Path<String>) -> Result<Response, Fault> {
    der_page(state, path).await
}
