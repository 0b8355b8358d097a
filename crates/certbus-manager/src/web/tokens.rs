//! Tokens of the API: made, shown once, removed.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_core::access::Scope;
use certbus_core::endpoint::{FieldError, Word};
use certbus_store::StoreError;
use certbus_store::tokens::Token;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::endpoint_form::by_field;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use super::secret::Secret;
use crate::clock;

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    rows: Vec<TokenRow>,
    scopes: [Scope; 5],
    typed: Typed,
    errors: std::collections::BTreeMap<&'static str, String>,
    /// The token that was just made: it is shown this once.
    made: Option<String>,
}

impl TokensPage {
    fn fields(&self) -> [(&'static str, &'static str, &str, &'static str); 2] {
        [
            ("name", "Name", &self.typed.name, "Who uses it, such as ci or prometheus"),
            ("days", "Days", &self.typed.days, "After which it ends; empty: never"),
        ]
    }

    fn error(&self, field: &str) -> Option<&String> {
        self.errors.get(field)
    }
}

struct TokenRow {
    name: String,
    scope: Scope,
    tenant: String,
    by: String,
    added: When,
    until: Option<When>,
    used: Option<When>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    days: String,
}

async fn tokens(
    face: &Face,
    asker: &Asker,
    typed: Typed,
    errors: Vec<FieldError>,
    made: Option<String>,
) -> Result<TokensPage, Fault> {
    let now = clock::now();
    let row = |one: Token| TokenRow {
        name: one.name,
        scope: one.scope,
        tenant: one.tenant,
        by: one.made_by,
        added: when(one.added_at, now),
        until: one.until.map(|at| when(at, now)),
        used: one.used_at.map(|at| when(at, now)),
    };
    let rows = face.store.tokens().await?.into_iter().map(row).collect();
    let errors = by_field(errors);
    Ok(TokensPage { frame: Frame::new("Tokens", "tokens", asker), rows, scopes: Scope::ALL, typed, errors, made })
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let mut page = tokens(&face, &asker, Typed::default(), Vec::new(), None).await?;
    page.frame = page.frame.said(&headers);
    page::show(&page, &page.frame)
}

/// What was written, as a token; each field with what is wrong with it.
fn parsed(typed: &Typed, by: &str, tenant: &str) -> Result<Token, Vec<FieldError>> {
    let now = clock::now();
    let name: Result<Word, String> = typed.name.trim().to_lowercase().parse();
    let name = name.map_err(|why| FieldError { field: "name", why });
    let scope = typed.scope.parse::<Scope>().map_err(|why| FieldError { field: "scope", why });
    let days = match typed.days.trim() {
        "" => Ok(None),
        days => match days.parse::<u64>() {
            Ok(days @ 1..=3650) => Ok(Some(now.plus(Duration::from_secs(days * 86_400)))),
            _ => Err(FieldError {
                field: "days",
                why: "write 1 to 3650 days, or nothing for a token that does not end".into(),
            }),
        },
    };
    match (name, scope, days) {
        (Ok(name), Ok(scope), Ok(until)) => Ok(Token {
            name: name.as_str().to_owned(),
            scope,
            tenant: tenant.to_owned(),
            made_by: by.to_owned(),
            added_at: now,
            until,
            used_at: None,
        }),
        (name, scope, days) => Err([name.err(), scope.err(), days.err()].into_iter().flatten().collect()),
    }
}

pub(super) async fn new(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(typed): Form<Typed>,
) -> Result<Response, Fault> {
    let tenant = face.manager.as_ref().map_or("default", |manager| manager.tenant().name.as_str());
    let token = match parsed(&typed, &asker.name, tenant) {
        Ok(token) => token,
        Err(errors) => return page::refused(&tokens(&face, &asker, typed, errors, None).await?),
    };
    let secret = Secret::token();
    match face.store.add_token(&token, secret.hash(), &asker.actor()).await {
        Ok(()) => {
            let made = Some(secret.text().to_owned());
            page::rendered(&tokens(&face, &asker, Typed::default(), Vec::new(), made).await?)
        }
        Err(error @ StoreError::Taken { .. }) => {
            let taken = FieldError { field: "name", why: error.to_string() };
            page::refused(&tokens(&face, &asker, typed, vec![taken], None).await?)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    face.store.remove_token(&name, &asker.actor(), clock::now()).await?;
    page::go("/tokens", &format!("Token {name} opens nothing any more."))
}
