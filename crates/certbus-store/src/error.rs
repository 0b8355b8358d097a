//! What can go wrong with a store: named with its place, and with what to do.

use certbus_core::endpoint::Key;

/// Why the store did not do it. Nothing is half written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error("inventory {place}: {cause}")]
    Unavailable {
        /// Which.
        place: String,
        /// What is wrong, and what would be right.
        cause: String,
    },
    /// An endpoint like this is there.
    #[error("{key} is an endpoint already (number {id}, `{name}`); edit that one")]
    Duplicate {
        /// What makes them one.
        key: Box<Key>,
        /// The one that is there.
        id: i64,
        /// Its name.
        name: String,
    },
    /// Somebody else changed it since it was read.
    #[error("`{name}` was changed by somebody else meanwhile; look at it again")]
    Changed {
        /// The endpoint.
        name: String,
    },
    /// One of this name is there.
    #[error("there is {what} already")]
    Taken {
        /// Of what kind, and its name.
        what: String,
    },
    /// Nobody could let anybody in any more.
    #[error("`{name}` is the only admin who can log in; make another one first")]
    LastAdmin {
        /// Who.
        name: String,
    },
    /// There is none.
    #[error("there is no {what}")]
    NotFound {
        /// Of what kind, and how it was named.
        what: String,
    },
}
