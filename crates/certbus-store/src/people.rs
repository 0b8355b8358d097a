//! People and their sessions. It keeps hashes only, and knows neither passwords nor cookies.

use certbus_core::access::{INVITATION_LASTS, Role, SESSION_IDLE, SESSION_LASTS, Scope};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use crate::audit::{Actor, note};
use crate::error::StoreError;
use crate::sqlite::Store;

/// That a session or a token was used is noted at most this often: reading pages is no writing.
pub(crate) const NOTE_USE_EVERY: i64 = 60_000;

/// A person as others see him.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// What he logs in with.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// Whether he has chosen a password.
    pub active: bool,
    /// Since when he is here.
    pub added_at: Timestamp,
    /// When he was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub person: String,
    /// What he may do.
    pub role: Role,
    /// What its forms say.
    pub csrf: String,
}

impl Store {
    /// Lets a person in who chooses his password by the link whose secret hashes to `secret`; who is here gets a new link, and
    /// the role. Links that were made for him before are good no longer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn invite(
        &self,
        name: &str,
        role: Role,
        secret: Hash,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            sqlx::query(
                "INSERT INTO person (name, role, password, added_at) VALUES (?, ?, '', ?)
                 ON CONFLICT (name) DO UPDATE SET role = excluded.role",
            )
            .bind(name)
            .bind(role.as_str())
            .bind(now.millis())
            .execute(&mut *write)
            .await?;
            sqlx::query("DELETE FROM invitation WHERE person = ? OR until <= ?")
                .bind(name)
                .bind(now.millis())
                .execute(&mut *write)
                .await?;
            sqlx::query("INSERT INTO invitation (hash, person, until) VALUES (?, ?, ?)")
                .bind(secret.as_bytes().as_slice())
                .bind(name)
                .bind(now.plus(INVITATION_LASTS).millis())
                .execute(&mut *write)
                .await?;
            note(&mut write, actor, now, ["user invite", name, role.as_str()]).await
        };
        done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }

    /// Lets a person in with a password.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if there is one of that name, [`StoreError::Unavailable`].
    pub async fn add_person(
        &self,
        name: &str,
        role: Role,
        password: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let fault = |e: sqlx::Error| self.fault(&e);
        let added = sqlx::query(
            "INSERT INTO person (name, role, password, added_at) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(role.as_str())
        .bind(password)
        .bind(now.millis())
        .execute(&mut *write)
        .await
        .map_err(fault)?;
        if added.rows_affected() == 0 {
            return Err(StoreError::Taken { what: format!("a user `{name}`") });
        }
        note(&mut write, actor, now, ["user add", name, role.as_str()]).await.map_err(fault)?;
        self.commit(write).await
    }

    /// Whom a link is for, if it is still good.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn invited(&self, secret: Hash, now: Timestamp) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT person FROM invitation WHERE hash = ? AND until > ?")
            .bind(secret.as_bytes().as_slice())
            .bind(now.millis())
            .fetch_optional(self.readers())
            .await
            .map_err(|e| self.fault(&e))
    }

    /// Sets the password of whom a link is for, and uses the link up. None: it is good no longer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn accept(
        &self,
        secret: Hash,
        password: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            let person: Option<String> =
                sqlx::query_scalar("DELETE FROM invitation WHERE hash = ? AND until > ? RETURNING person")
                    .bind(secret.as_bytes().as_slice())
                    .bind(now.millis())
                    .fetch_optional(&mut *write)
                    .await?;
            let Some(person) = person else { return Ok(None) };
            set_password(&mut write, &person, password).await?;
            let actor = Actor { name: person.clone(), source: source.to_owned() };
            note(&mut write, &actor, now, ["user passwd", &person, "by a one-time link"]).await?;
            Ok(Some(person))
        };
        let person = done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(person)
    }

    /// Sets a person's password, and ends his sessions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`].
    pub async fn passwd(&self, name: &str, password: &str, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        if !set_password(&mut write, name, password).await.map_err(|e| self.fault(&e))? {
            return Err(no_person(name));
        }
        note(&mut write, actor, now, ["user passwd", name, ""]).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }

    /// Gives a person another role. The last admin who can log in stays one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::LastAdmin`], [`StoreError::Unavailable`].
    pub async fn set_role(&self, name: &str, role: Role, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let fault = |e: sqlx::Error| self.fault(&e);
        if role != Role::Admin {
            self.others_rule(&mut write, name).await?;
        }
        let set = sqlx::query("UPDATE person SET role = ? WHERE name = ?").bind(role.as_str()).bind(name);
        if set.execute(&mut *write).await.map_err(fault)?.rows_affected() == 0 {
            return Err(no_person(name));
        }
        for scope in Scope::ALL.iter().filter(|scope| scope.role() > Some(role)) {
            let gone = sqlx::query_scalar("DELETE FROM bearer WHERE made_by = ? AND scope = ? RETURNING name");
            let gone: Vec<String> = gone.bind(name).bind(scope.as_str()).fetch_all(&mut *write).await.map_err(fault)?;
            for token in gone {
                let why = format!("made by {name}, who is {role} now");
                note(&mut write, actor, now, ["token rm", &token, &why]).await.map_err(fault)?;
            }
        }
        note(&mut write, actor, now, ["user edit", name, role.as_str()]).await.map_err(fault)?;
        self.commit(write).await
    }

    /// Removes a person with his sessions. The last admin who can log in stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::LastAdmin`], [`StoreError::Unavailable`].
    pub async fn remove_person(&self, name: &str, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let fault = |e: sqlx::Error| self.fault(&e);
        self.others_rule(&mut write, name).await?;
        // What he made for programs would let him in again.
        let tokens: Vec<String> = sqlx::query_scalar("DELETE FROM bearer WHERE made_by = ? RETURNING name")
            .bind(name)
            .fetch_all(&mut *write)
            .await
            .map_err(fault)?;
        for token in tokens {
            note(&mut write, actor, now, ["token rm", &token, "with who made it"]).await.map_err(fault)?;
        }
        for statement in ["DELETE FROM session WHERE person = ?", "DELETE FROM invitation WHERE person = ?"] {
            sqlx::query(statement).bind(name).execute(&mut *write).await.map_err(fault)?;
        }
        let gone = sqlx::query("DELETE FROM person WHERE name = ?").bind(name).execute(&mut *write).await;
        if gone.map_err(fault)?.rows_affected() == 0 {
            return Err(no_person(name));
        }
        note(&mut write, actor, now, ["user rm", name, ""]).await.map_err(fault)?;
        self.commit(write).await
    }

    /// Refuses if this person is the only admin who can log in.
    async fn others_rule(&self, write: &mut SqliteConnection, name: &str) -> Result<(), StoreError> {
        let (all, others): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(name <> ?), 0) FROM person WHERE role = 'admin' AND password <> ''",
        )
        .bind(name)
        .fetch_one(write)
        .await
        .map_err(|e| self.fault(&e))?;
        if all > 0 && others == 0 { Err(StoreError::LastAdmin { name: name.to_owned() }) } else { Ok(()) }
    }

    /// All people, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        type Row = (String, String, bool, i64, Option<i64>);
        let rows: Vec<Row> =
            sqlx::query_as("SELECT name, role, password <> '', added_at, seen_at FROM person ORDER BY name")
                .fetch_all(self.readers())
                .await
                .map_err(|e| self.fault(&e))?;
        let at = Timestamp::from_millis;
        let person = |(name, role, active, added_at, seen_at): Row| Person {
            name,
            role: role.parse().unwrap_or(Role::Viewer),
            active,
            added_at: at(added_at),
            seen_at: seen_at.map(at),
        };
        Ok(rows.into_iter().map(person).collect())
    }

    /// What a person's password hashes to; None: there is no such person, or he has chosen none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn password(&self, name: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT password FROM person WHERE name = ? AND password <> ''")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(|e| self.fault(&e))
    }

    /// Begins a session, known by what its cookie hashes to, and says so in the trail.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin_session(
        &self,
        cookie: Hash,
        csrf: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            sqlx::query("DELETE FROM session WHERE until <= ? OR seen_at <= ?")
                .bind(now.millis())
                .bind(now.minus(SESSION_IDLE).millis())
                .execute(&mut *write)
                .await?;
            sqlx::query(
                "INSERT INTO session (hash, person, csrf, source, begun_at, seen_at, until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)",
            )
            .bind(cookie.as_bytes().as_slice())
            .bind(&actor.name)
            .bind(csrf)
            .bind(&actor.source)
            .bind(now.millis())
            .bind(now.plus(SESSION_LASTS).millis())
            .execute(&mut *write)
            .await?;
            sqlx::query("UPDATE person SET seen_at = ? WHERE name = ?")
                .bind(now.millis())
                .bind(&actor.name)
                .execute(&mut *write)
                .await?;
            note(&mut write, actor, now, ["login", &actor.name, ""]).await
        };
        done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }

    /// The session that a cookie is of, if it goes on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn session(&self, cookie: Hash, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let row: Option<(String, String, String, i64)> = sqlx::query_as(
            "SELECT person, role, csrf, session.seen_at FROM session JOIN person ON person.name = session.person
             WHERE hash = ? AND until > ? AND session.seen_at > ?",
        )
        .bind(cookie.as_bytes().as_slice())
        .bind(now.millis())
        .bind(now.minus(SESSION_IDLE).millis())
        .fetch_optional(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let Some((person, role, csrf, seen)) = row else { return Ok(None) };
        if now.millis() - seen >= NOTE_USE_EVERY {
            let seen = sqlx::query("UPDATE session SET seen_at = ? WHERE hash = ?")
                .bind(now.millis())
                .bind(cookie.as_bytes().to_vec());
            self.changes_one(seen).await?;
        }
        Ok(role.parse().ok().map(|role| Session { person, role, csrf }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn end_session(&self, cookie: Hash) -> Result<(), StoreError> {
        let gone = sqlx::query("DELETE FROM session WHERE hash = ?").bind(cookie.as_bytes().to_vec());
        self.changes_one(gone).await.map(drop)
    }
}

fn no_person(name: &str) -> StoreError {
    StoreError::NotFound { what: format!("user `{name}`; `certbus user ls` lists them") }
}

/// Sets a password, and ends what was begun with the old one. False: there is no such person.
async fn set_password(write: &mut SqliteConnection, name: &str, password: &str) -> Result<bool, sqlx::Error> {
    for statement in ["DELETE FROM session WHERE person = ?", "DELETE FROM invitation WHERE person = ?"] {
        sqlx::query(statement).bind(name).execute(&mut *write).await?;
    }
    let set = sqlx::query("UPDATE person SET password = ? WHERE name = ?").bind(password).bind(name);
    Ok(set.execute(write).await?.rows_affected() == 1)
}
