//! What programs send: read whole, with a problem document where it cannot be.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::web::fault::Fault;

/// A JSON body.
pub(crate) struct Input<T>(pub(crate) T);

/// The query of an address.
pub(crate) struct Params<T>(pub(crate) T);

/// A number in the path.
pub(crate) struct Id(pub(crate) i64);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            let what = format!("the body is `{kind}`; send `Content-Type: application/json`");
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported media type", what));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| Fault::new(error.status(), "the body cannot be read", error.body_text()))?;
        serde_json::from_slice(&body).map(Self).map_err(|error| Fault::bad(format!("the body: {error}")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params)).map_err(|error| Fault::bad(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let read =
            Path::<String>::from_request_parts(parts, state).await.map_err(|error| Fault::bad(error.body_text()))?;
        let Path(text) = read;
        text.parse().map(Self).map_err(|_| Fault::missing(format!("`{text}` is no number of anything")))
    }
}

/// A whole number, also as `443.0`: to JSON Schema that is one too.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let exact = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    let whole = number.as_i64().or_else(|| exact(number.as_f64()?)).and_then(|number| T::try_from(number).ok());
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is not such a whole number")))
}
