//! The issuing settings, as TOML with its secrets masked.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use super::input::Input;
use crate::web::Face;
use crate::web::asker::Asker;
use crate::web::fault::Fault;
use crate::web::{managed, settings};

/// The settings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettingsOut {
    /// TOML; each secret is a mask.
    issuing: String,
    /// What these settings are known by.
    mark: String,
}

/// The issuing settings.
#[utoipa::path(get, path = "/api/v1/settings", tag = "settings", responses(
    (status = 200, body = SettingsOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
) -> Result<Json<SettingsOut>, Fault> {
    let found = managed::manager(&face, &asker)?.settings().await?;
    Ok(Json(SettingsOut { issuing: found.masked().to_toml(), mark: settings::mark(&found) }))
}

/// Settings as they are to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsIn {
    /// TOML; a mask that stays keeps its secret.
    issuing: String,
    /// The mark of the settings that these replace.
    mark: String,
}

/// Seals new issuing settings onto the log.
#[utoipa::path(put, path = "/api/v1/settings", tag = "settings", request_body = SettingsIn, responses(
    (status = 200, body = SettingsOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn change(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(given): Input<SettingsIn>,
) -> Result<Json<SettingsOut>, Fault> {
    settings::set(&face, &asker, &given.issuing, &given.mark).await?;
    show(State(face), Extension(asker)).await
}
