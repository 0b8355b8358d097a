//! Passwords: hashed with argon2id, on the side, and few at a time.

use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::secret::Secret;

/// Passwords that are hashed at a time: each takes 19 MiB and a processor.
static HASHING: Semaphore = Semaphore::const_new(2);

/// And that wait for it.
static QUEUE: Semaphore = Semaphore::const_new(32);

/// A password as it is kept: argon2id, in PHC form.
///
/// # Errors
/// Words, if this process ends.
pub async fn hashed(password: Zeroizing<String>) -> Result<String, String> {
    on_the_side(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())).await
}

/// Whether a password is the one that is kept. It takes as long where none is kept.
pub(super) async fn verify(kept: Option<String>, password: Zeroizing<String>) -> Result<bool, String> {
    static NOBODYS: OnceLock<String> = OnceLock::new();
    on_the_side(move || {
        let known = kept.is_some();
        let kept = match (kept, NOBODYS.get()) {
            (Some(kept), _) => kept,
            (None, Some(nobodys)) => nobodys.clone(),
            (None, None) => {
                let made = Argon2::default().hash_password(Secret::new().text().as_bytes())?.to_string();
                NOBODYS.get_or_init(|| made).clone()
            }
        };
        let hash = PasswordHash::new(&kept)?;
        Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && known)
    })
    .await
}

async fn on_the_side<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
) -> Result<T, String> {
    let _place = QUEUE.try_acquire().map_err(|_| "too many are looked at now; try again in a moment".to_owned())?;
    let _turn = HASHING.acquire().await.map_err(|error| error.to_string())?;
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

pub(super) fn fault(why: String) -> Fault {
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "the password cannot be looked at", why)
}
