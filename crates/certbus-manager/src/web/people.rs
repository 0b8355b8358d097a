//! Users: who may log in, with which role; and one's own password.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_core::access::{Role, parse_person};
use certbus_core::endpoint::FieldError;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::login::wrong;
use super::page::{self, Frame, When, when};
use super::password;
use super::secret::Secret;
use crate::clock;

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    frame: Frame,
    rows: Vec<PersonRow>,
    roles: [Role; 3],
    name: String,
    errors: Vec<FieldError>,
    /// A link that was just made, and for whom: it is shown this once.
    link: Option<(String, String)>,
}

struct PersonRow {
    name: String,
    role: Role,
    active: bool,
    seen: Option<When>,
    own: bool,
}

async fn users(
    face: &Face,
    asker: &Asker,
    name: String,
    errors: Vec<FieldError>,
    link: Option<(String, String)>,
) -> Result<UsersPage, Fault> {
    let now = clock::now();
    let row = |one: certbus_store::people::Person| PersonRow {
        own: one.name == asker.name,
        name: one.name,
        role: one.role,
        active: one.active,
        seen: one.seen_at.map(|at| when(at, now)),
    };
    let rows = face.store.people().await?.into_iter().map(row).collect();
    Ok(UsersPage { frame: Frame::new("Users", "users", asker), rows, roles: Role::ALL, name, errors, link })
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let mut page = users(&face, &asker, String::new(), Vec::new(), None).await?;
    page.frame = page.frame.said(&headers);
    page::show(&page, &page.frame)
}

#[derive(Deserialize)]
pub(super) struct Invited {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
}

pub(super) async fn invite(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(given): Form<Invited>,
) -> Result<Response, Fault> {
    let role = given.role.parse::<Role>().map_err(|why| FieldError { field: "role", why });
    match (parse_person(&given.name), role) {
        (Ok(name), Ok(role)) => {
            if face.store.people().await?.iter().any(|one| one.name == name) {
                let taken = FieldError { field: "name", why: format!("there is a user `{name}` already") };
                return page::refused(&users(&face, &asker, given.name, vec![taken], None).await?);
            }
            linked(&face, &asker, &name, role).await
        }
        (name, role) => {
            let errors = [name.err(), role.err()].into_iter().flatten().collect();
            page::refused(&users(&face, &asker, given.name, errors, None).await?)
        }
    }
}

/// The page with a new link on it.
async fn linked(face: &Face, asker: &Asker, name: &str, role: Role) -> Result<Response, Fault> {
    let secret = Secret::new();
    face.store.invite(name, role, secret.hash(), &asker.actor(), clock::now()).await?;
    let link = format!("{}/welcome/{}", face.url, secret.text());
    page::rendered(&users(face, asker, String::new(), Vec::new(), Some((name.to_owned(), link))).await?)
}

pub(super) async fn invite_again(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let people = face.store.people().await?;
    let person = people.into_iter().find(|one| one.name == name);
    let person = person.ok_or_else(|| Fault::missing(format!("there is no user `{name}`")))?;
    linked(&face, &asker, &person.name, person.role).await
}

#[derive(Deserialize)]
pub(super) struct NewRole {
    role: String,
}

pub(super) async fn set_role(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
    Form(given): Form<NewRole>,
) -> Result<Response, Fault> {
    let role: Role = given.role.parse().map_err(Fault::bad)?;
    face.store.set_role(&name, role, &asker.actor(), clock::now()).await?;
    page::go("/users", &format!("{name} is {role} now."))
}

pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    face.store.remove_person(&name, &asker.actor(), clock::now()).await?;
    page::go("/users", &format!("{name} is removed."))
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    errors: Vec<FieldError>,
}

pub(super) async fn account(Extension(asker): Extension<Asker>, headers: HeaderMap) -> Result<Response, Fault> {
    let page = AccountPage { frame: Frame::new("Your account", "account", &asker).said(&headers), errors: Vec::new() };
    page::show(&page, &page.frame)
}

#[derive(Deserialize)]
pub(super) struct Passwords {
    old: Zeroizing<String>,
    password: Zeroizing<String>,
    again: Zeroizing<String>,
}

pub(super) async fn passwd(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(given): Form<Passwords>,
) -> Result<Response, Fault> {
    let mut errors = wrong(&given.password, &given.again, &asker.name);
    if !password::verify(face.store.password(&asker.name).await?, given.old).await.map_err(password::fault)? {
        errors.push(FieldError { field: "old", why: "it is not your password".into() });
    }
    if !errors.is_empty() {
        return page::refused(&AccountPage { frame: Frame::new("Your account", "account", &asker), errors });
    }
    let hashed = password::hashed(given.password).await.map_err(password::fault)?;
    face.store.passwd(&asker.name, &hashed, &asker.actor(), clock::now()).await?;
    page::go("/login", "Your password is changed. Log in with it.")
}
