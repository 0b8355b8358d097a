//! Tokens of the API: what programs show. Only what they hash to is kept.

use certbus_core::access::Scope;
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{Actor, note};
use crate::error::StoreError;
use crate::people::NOTE_USE_EVERY;
use crate::sqlite::Store;

/// A token as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// What its bearer may do.
    pub scope: Scope,
    /// Of whose managed certificates.
    pub tenant: String,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub added_at: Timestamp,
    /// Until when it is good, if not for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was last used, within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

impl Store {
    /// Makes a token, known by what it hashes to.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if there is one of that name, [`StoreError::Unavailable`].
    pub async fn add_token(&self, token: &Token, secret: Hash, actor: &Actor) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let fault = |e: sqlx::Error| self.fault(&e);
        let added = sqlx::query(
            "INSERT INTO bearer (name, hash, scope, tenant, made_by, added_at, until) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(&token.name)
        .bind(secret.as_bytes().as_slice())
        .bind(token.scope.as_str())
        .bind(&token.tenant)
        .bind(&token.made_by)
        .bind(token.added_at.millis())
        .bind(token.until.map(Timestamp::millis))
        .execute(&mut *write)
        .await
        .map_err(fault)?;
        if added.rows_affected() == 0 {
            return Err(StoreError::Taken { what: format!("a token `{}`", token.name) });
        }
        let detail = format!("{} of {}", token.scope, token.tenant);
        note(&mut write, actor, token.added_at, ["token new", &token.name, &detail]).await.map_err(fault)?;
        self.commit(write).await
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> =
            sqlx::query_as("SELECT name, scope, tenant, made_by, added_at, until, used_at FROM bearer ORDER BY name")
                .fetch_all(self.readers())
                .await
                .map_err(|e| self.fault(&e))?;
        Ok(rows.into_iter().filter_map(token).collect())
    }

    /// The token that hashes to this, if it is good.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn token(&self, secret: Hash, now: Timestamp) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> = sqlx::query_as(
            "SELECT name, scope, tenant, made_by, added_at, until, used_at FROM bearer
             WHERE hash = ? AND (until IS NULL OR until > ?)",
        )
        .bind(secret.as_bytes().as_slice())
        .bind(now.millis())
        .fetch_optional(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let Some(found) = row.and_then(token) else { return Ok(None) };
        if found.used_at.is_none_or(|used| now.millis() - used.millis() >= NOTE_USE_EVERY) {
            let used = sqlx::query("UPDATE bearer SET used_at = ? WHERE name = ?");
            self.changes_one(used.bind(now.millis()).bind(found.name.clone())).await?;
        }
        Ok(Some(found))
    }

    /// Removes a token: it opens nothing from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`].
    pub async fn remove_token(&self, name: &str, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let fault = |e: sqlx::Error| self.fault(&e);
        let gone = sqlx::query("DELETE FROM bearer WHERE name = ?").bind(name).execute(&mut *write).await;
        if gone.map_err(fault)?.rows_affected() == 0 {
            return Err(StoreError::NotFound { what: format!("token `{name}`") });
        }
        note(&mut write, actor, now, ["token rm", name, ""]).await.map_err(fault)?;
        self.commit(write).await
    }
}

type TokenRow = (String, String, String, String, i64, Option<i64>, Option<i64>);

fn token((name, scope, tenant, made_by, added_at, until, used_at): TokenRow) -> Option<Token> {
    let at = Timestamp::from_millis;
    let (until, used_at) = (until.map(at), used_at.map(at));
    Some(Token { name, scope: scope.parse().ok()?, tenant, made_by, added_at: at(added_at), until, used_at })
}
