//! Logging in and out, and choosing a password by a one-time link. Whoever guesses waits longer each time, and is told no more
//! than that it was wrong.

use std::net::{IpAddr, Ipv6Addr};

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use certbus_core::access::{FREE_OF_ALL, FREE_OF_ONE, LONGEST_PASSWORD, check_password, parse_person};
use certbus_core::endpoint::FieldError;
use certbus_store::audit::Actor;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Face;
use super::asker::{self, Asker};
use super::fault::{Fault, source};
use super::page::{self, Frame};
use super::password;
use super::secret::{Secret, hash};
use crate::clock;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    name: String,
    to: String,
    wrong: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct To {
    #[serde(default)]
    to: String,
}

pub(super) async fn form(
    Extension(asker): Extension<Asker>,
    Query(To { to }): Query<To>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    if !asker.is_nobody() {
        return Ok(Redirect::to(within(&to)).into_response());
    }
    let frame = Frame::new("Log in", "", &asker).said(&headers);
    page::rendered(&LoginPage { frame, name: String::new(), to, wrong: None })
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: Zeroizing<String>,
    #[serde(default)]
    to: String,
}

pub(super) async fn login(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(given): Form<Credentials>,
) -> Result<Response, Fault> {
    let now = clock::now();
    let name = parse_person(&given.name).unwrap_or_else(|_| "?".into());
    let from = source(asker.address);
    let mine = format!("{name} from {}", network(asker.address));
    let address = network(asker.address);
    let subjects = [(mine.as_str(), FREE_OF_ONE), (address.as_str(), FREE_OF_ALL)];
    if given.password.len() > LONGEST_PASSWORD {
        return Err(Fault::bad(format!("the password is longer than {LONGEST_PASSWORD} bytes")));
    }
    if let Some(until) = face.store.knock(&subjects, now).await? {
        let seconds = until.since(now).as_secs().max(1);
        tracing::warn!(name, from, seconds, "a login is not looked at: too many failed");
        let what = format!("too many logins failed; the next is looked at in {seconds} s");
        let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "wait a little", what);
        return Err(Fault { retry_after: Some(seconds), ..fault });
    }
    let actor = Actor { name: name.clone(), source: from.clone() };
    let known = face.store.password(&name).await?;
    if !password::verify(known, given.password).await.map_err(password::fault)? {
        tracing::warn!(name, from, "login refused");
        face.store.note(&actor, now, ["login refused", &name, ""]).await?;
        let wrong = Some("Name or password is wrong.".to_owned());
        let frame = Frame::new("Log in", "", &asker);
        let mut response = page::rendered(&LoginPage { frame, name: given.name, to: given.to, wrong })?;
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(response);
    }
    face.store.logged_in(&mine, &[&address]).await?;
    begin(&face, &actor, within(&given.to)).await
}

/// Who has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{}/64", Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

/// A new session, and on to a page of it.
async fn begin(face: &Face, actor: &Actor, to: &str) -> Result<Response, Fault> {
    let (cookie, csrf) = (Secret::new(), Secret::new());
    face.store.begin_session(cookie.hash(), csrf.text(), actor, clock::now()).await?;
    let mut response = Redirect::to(to).into_response();
    set_cookie(face, &mut response, cookie.text())?;
    Ok(response)
}

fn set_cookie(face: &Face, response: &mut Response, secret: &str) -> Result<(), Fault> {
    let value = HeaderValue::try_from(asker::set_cookie(face, secret)).map_err(|_| Fault::bad("no such cookie"))?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

/// A page of this site: nobody is sent elsewhere by a link that he followed here.
fn within(to: &str) -> &str {
    let ours = to.starts_with('/') && !to.starts_with("//") && !to.contains(|c: char| c.is_control() || c == '\\');
    if ours { to } else { "/" }
}

pub(super) async fn logout(State(face): State<Face>, headers: HeaderMap) -> Result<Response, Fault> {
    if let Some(secret) = asker::session(&face, &headers) {
        face.store.end_session(hash(secret)).await?;
    }
    let mut response = Redirect::to("/login").into_response();
    set_cookie(&face, &mut response, "")?;
    Ok(response)
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    name: String,
    secret: String,
    errors: Vec<FieldError>,
}

fn no_link() -> Fault {
    Fault::missing(
        "this link was used, or its hour is over; ask an admin for another, or run `certbus user invite NAME`",
    )
}

pub(super) async fn welcome(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(secret): Path<String>,
) -> Result<Response, Fault> {
    let name = face.store.invited(hash(&secret), clock::now()).await?.ok_or_else(no_link)?;
    page::rendered(&WelcomePage { frame: Frame::new("Welcome", "", &asker), name, secret, errors: Vec::new() })
}

#[derive(Deserialize)]
pub(super) struct Chosen {
    password: Zeroizing<String>,
    again: Zeroizing<String>,
}

pub(super) async fn accept(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(secret): Path<String>,
    Form(chosen): Form<Chosen>,
) -> Result<Response, Fault> {
    let name = face.store.invited(hash(&secret), clock::now()).await?.ok_or_else(no_link)?;
    let errors = wrong(&chosen.password, &chosen.again, &name);
    if !errors.is_empty() {
        return page::refused(&WelcomePage { frame: Frame::new("Welcome", "", &asker), name, secret, errors });
    }
    let password = password::hashed(chosen.password).await.map_err(password::fault)?;
    let from = source(asker.address);
    let accepted = face.store.accept(hash(&secret), &password, &from, clock::now()).await?;
    let name = accepted.ok_or_else(no_link)?;
    begin(&face, &Actor { name, source: from }, "/").await
}

/// What is wrong with a password that was typed twice.
pub(super) fn wrong(password: &str, again: &str, name: &str) -> Vec<FieldError> {
    let differ = FieldError { field: "again", why: "it is not the same as above".into() };
    let wrong = check_password(password, name).err();
    wrong.into_iter().chain((password != again).then_some(differ)).collect()
}
