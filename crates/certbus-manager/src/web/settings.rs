//! Settings: how this server is set up, to be read, and the issuing settings of the log, to be changed. Secrets are masked;
//! a mask that stays keeps its secret.

use std::sync::OnceLock;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use certbus_core::id::Hash;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::managed::manager;
use super::page::{self, Frame};
use crate::clock;
use crate::issuing::Issuing;
use crate::manager::ManageError;

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    /// What certbus.toml says of this server.
    local: Vec<(&'static str, String)>,
    /// TOML.
    text: String,
    /// Which settings the form follows.
    follows: String,
    error: Option<String>,
}

fn local(face: &Face) -> Vec<(&'static str, String)> {
    let proxies = face.proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut local = vec![
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Address", face.url.clone()),
        ("Site", face.site.clone()),
        ("Tenant", face.tenant().unwrap_or("none: no manager's identity").to_owned()),
        ("Trusted proxies", if proxies.is_empty() { "none".into() } else { proxies }),
    ];
    local.extend(face.local_alerts.exec.iter().map(|program| ("Alerts run", program.display().to_string())));
    local
}

/// What settings are known by: whoever changes what another changed meanwhile is told. Nobody else can tell from it what is
/// secret in them: it is keyed, anew with each start of the server.
pub(super) fn mark(settings: &Issuing) -> String {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let text = zeroize::Zeroizing::new(settings.to_toml());
    Hash::of(&[KEY.get_or_init(clock::random::<32>).as_slice(), text.as_bytes()].concat()).to_string()
}

pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let settings = manager(&face, &asker)?.settings().await?;
    let page = SettingsPage {
        frame: Frame::new("Settings", "settings", &asker).said(&headers),
        local: local(&face),
        text: settings.masked().to_toml(),
        follows: mark(&settings),
        error: None,
    };
    page::show(&page, &page.frame)
}

#[derive(Deserialize)]
pub(super) struct Typed {
    text: String,
    follows: String,
}

pub(super) async fn change(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(Typed { text, follows }): Form<Typed>,
) -> Result<Response, Fault> {
    // A form has its line ends from HTML.
    let text = text.replace("\r\n", "\n");
    match set(&face, &asker, &text, &follows).await {
        Ok(true) => page::go("/settings", "The settings are sealed onto the log."),
        Ok(false) => page::go("/settings", "Nothing changed."),
        Err(fault) if fault.status == StatusCode::BAD_REQUEST || fault.status == StatusCode::CONFLICT => {
            let frame = Frame::new("Settings", "settings", &asker);
            let (local, error) = (local(&face), Some(fault.detail.clone()));
            let mut response = page::rendered(&SettingsPage { frame, local, text, follows, error })?;
            *response.status_mut() = fault.status;
            Ok(response)
        }
        Err(fault) => Err(fault),
    }
}

/// Puts these settings in place of those that are known by `follows`. False: they are these already.
pub(super) async fn set(face: &Face, asker: &Asker, text: &str, follows: &str) -> Result<bool, Fault> {
    let manager = manager(face, asker)?;
    let before = manager.settings().await?;
    if follows != mark(&before) {
        return Err(ManageError::ChangedMeanwhile.into());
    }
    if text.trim().is_empty() {
        return Err(Fault::bad("these settings are empty; to start anew, remove entries one by one"));
    }
    let after = Issuing::changed(&before, text).map_err(|error| Fault::bad(error.to_string()))?;
    if after.alerts.as_ref().is_some_and(crate::alerts::settings::AlertSettings::names_files) {
        return Err(Fault::bad(
            "password_file and secret_file are read where `certbus conf edit` runs; write the secret itself here",
        ));
    }
    if after == before {
        return Ok(false);
    }
    manager.set_settings(&before, &after).await?;
    face.store
        .note(
            &asker.actor(),
            clock::now(),
            ["conf change", &manager.tenant().name, &before.differing(&after).join(", ")],
        )
        .await?;
    Ok(true)
}
