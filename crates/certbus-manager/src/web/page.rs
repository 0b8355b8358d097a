//! What every page has: who looks at it, where he is, what was just done; and how one is made of a template.

use askama::Template;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use certbus_core::access::Role;
use certbus_core::time::Timestamp;

use super::asker::{Asker, cookie};
use super::assets;
use super::fault::Fault;

/// The cookie that carries what was just done over a redirect.
const SAID: &str = "certbus_said";

/// The frame of a page.
pub(crate) struct Frame {
    /// What stands in the title bar.
    pub(crate) title: String,
    /// Which part of the navigation it is.
    pub(crate) section: &'static str,
    /// Whose session it is; None: nobody's.
    pub(crate) person: Option<String>,
    pub(crate) role: Option<Role>,
    /// What its forms say.
    pub(crate) csrf: String,
    /// What was just done.
    pub(crate) said: Option<String>,
    /// The version of script and style.
    pub(crate) assets: &'static str,
}

impl Frame {
    /// For who asks.
    pub(crate) fn new(title: impl Into<String>, section: &'static str, asker: &Asker) -> Self {
        let person = (!asker.is_nobody()).then(|| asker.name.clone());
        let csrf = asker.csrf.clone().unwrap_or_default();
        Self { title: title.into(), section, person, role: asker.role, csrf, said: None, assets: assets::version() }
    }

    /// With what was just done.
    pub(crate) fn said(self, headers: &HeaderMap) -> Self {
        let said = cookie(headers, SAID).and_then(|text| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok());
        Self { said: said.and_then(|bytes| String::from_utf8(bytes).ok()), ..self }
    }

    pub(crate) fn operator(&self) -> bool {
        self.role >= Some(Role::Operator)
    }

    pub(crate) fn admin(&self) -> bool {
        self.role >= Some(Role::Admin)
    }
}

/// A page of a template.
pub(crate) fn show(template: &impl Template, frame: &Frame) -> Result<Response, Fault> {
    let mut response = rendered(template)?;
    if frame.said.is_some() {
        // Said once.
        response.headers_mut().append(header::SET_COOKIE, said_cookie("", 0)?);
    }
    Ok(response)
}

/// A template without a frame, or one that was refused.
pub(crate) fn rendered(template: &impl Template) -> Result<Response, Fault> {
    let text = template.render().map_err(|error| {
        tracing::error!("a page cannot be made: {error}");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be made", error.to_string())
    })?;
    Ok(Html(text).into_response())
}

/// A form that was refused, with what was typed still in it.
pub(crate) fn refused(template: &impl Template) -> Result<Response, Fault> {
    let mut response = rendered(template)?;
    *response.status_mut() = StatusCode::BAD_REQUEST;
    Ok(response)
}

/// A file to keep; its name is plain.
pub(crate) fn download(body: impl IntoResponse, kind: &'static str, name: &str) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, &disposition)], body).into_response()
}

/// On to another page, which says what was done.
pub(crate) fn go(to: &str, said: &str) -> Result<Response, Fault> {
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().append(header::SET_COOKIE, said_cookie(said, 60)?);
    Ok(response)
}

fn said_cookie(text: &str, seconds: u32) -> Result<axum::http::HeaderValue, Fault> {
    let text = data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let value = format!("{SAID}={text}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    value.parse().map_err(|_| Fault::bad("this cannot be said"))
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage<'a> {
    frame: Frame,
    fault: &'a Fault,
}

/// A fault as people see it. Within a page, only its words.
pub(crate) fn fault(asker: Option<Asker>, fault: &Fault, within: bool) -> Response {
    if within {
        return (fault.status, fault.detail.clone()).into_response();
    }
    let frame = Frame::new(fault.title, "", &asker.unwrap_or_else(|| Asker::nobody([0, 0, 0, 0].into())));
    match (FaultPage { frame, fault }).render() {
        Ok(text) => (fault.status, Html(text)).into_response(),
        Err(_) => (fault.status, fault.detail.clone()).into_response(),
    }
}

/// A moment as a page has it: how far away, and exactly when.
#[derive(Clone, Debug)]
pub(crate) struct When {
    pub(crate) away: String,
    pub(crate) exact: String,
}

/// See [`When`].
pub(crate) fn when(at: Timestamp, now: Timestamp) -> When {
    // `2026-11-22 02:11:55 UTC`: nobody reads the milliseconds.
    let exact = at.to_string();
    let exact = exact.split('.').next().unwrap_or_default().replace('T', " ");
    When { away: at.away(now), exact: format!("{exact} UTC") }
}
