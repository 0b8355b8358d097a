//! Who may do what on the web and through the API, and how long somebody waits who guesses. Pure: nothing here knows a
//! password.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::FieldError;

/// What a person may do. Each may all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Register, edit and poll endpoints; create, renew and remove managed certificates; mute alerts.
    Operator,
    /// All else: people, tokens, settings.
    Admin,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read `/metrics`, and nothing else.
    Metrics,
    /// Follow the log's stream `certs`, as a load balancer does, and nothing else.
    Certs,
    /// What a viewer may.
    Read,
    /// What an operator may.
    Write,
    /// What an admin may.
    Admin,
}

/// Passwords are at least this long.
pub const SHORTEST_PASSWORD: usize = 12;

/// And at most: what hashing them costs is bounded.
pub const LONGEST_PASSWORD: usize = 1024;

/// A link that lets somebody choose a password is good for this long.
pub const INVITATION_LASTS: Duration = Duration::from_secs(3600);

/// A session ends after this long without a request.
pub const SESSION_IDLE: Duration = Duration::from_secs(86_400);

/// And after this long in any case.
pub const SESSION_LASTS: Duration = Duration::from_secs(7 * 86_400);

/// So many failed logins of one person from one address cost nothing.
pub const FREE_OF_ONE: u32 = 3;

/// And so many from one address, whoever: many people may share it.
pub const FREE_OF_ALL: u32 = 50;

/// Nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How long after the last of so many failed logins in a row the next attempt is looked at, where `free` of them cost nothing.
pub fn wait_after(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(16)).min(LONGEST_WAIT),
    }
}

/// A name to log in with: 1 to 64 of letters, digits, `.`, `_`, `-`, `@`, `+`, in lower case.
///
/// # Errors
/// What would be right.
pub fn parse_person(text: &str) -> Result<String, FieldError> {
    let text = text.trim().to_lowercase();
    let good = |c: char| c.is_alphanumeric() || "._-@+".contains(c);
    if (1..=64).contains(&text.chars().count()) && text.chars().all(good) {
        return Ok(text);
    }
    Err(FieldError { field: "name", why: "write 1 to 64 letters, digits, or one of . _ - @ +".into() })
}

/// Whether a password may be one.
///
/// # Errors
/// What would be right.
pub fn check_password(password: &str, person: &str) -> Result<(), FieldError> {
    let why = match password.chars().count() {
        short if short < SHORTEST_PASSWORD => format!("it has {short} characters; write at least {SHORTEST_PASSWORD}"),
        _ if password.len() > LONGEST_PASSWORD => format!("it is longer than {LONGEST_PASSWORD} bytes"),
        _ if password.to_lowercase().contains(person) && person.len() > 3 => "it has the name in it".into(),
        _ if password.chars().all(|c| password.starts_with(c)) => "it is one character again and again".into(),
        _ => return Ok(()),
    };
    Err(FieldError { field: "password", why })
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Scope {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Metrics, Self::Certs, Self::Read, Self::Write, Self::Admin];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Certs => "certs",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The person whom its bearer may do as; None: nobody.
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Metrics | Self::Certs => None,
            Self::Read => Some(Role::Viewer),
            Self::Write => Some(Role::Operator),
            Self::Admin => Some(Role::Admin),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no role; write viewer, operator or admin"))
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no scope; write metrics, read, write or admin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_longer_each_time_and_who_mistypes_does_not() {
        let waits: Vec<u64> = (0..8).map(|failures| wait_after(failures, FREE_OF_ONE).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(wait_after(u32::MAX, FREE_OF_ALL), LONGEST_WAIT);
    }

    #[test]
    fn names_and_passwords_say_what_is_wrong_with_them() {
        assert_eq!(parse_person(" Ann@Example.COM "), Ok("ann@example.com".to_owned()));
        assert!(parse_person("a b").is_err() && parse_person("").is_err() && parse_person(&"x".repeat(65)).is_err());
        assert!(check_password("short", "ann").unwrap_err().why.contains("at least 12"));
        assert!(check_password("aaaaaaaaaaaaaaa", "ann").is_err());
        assert!(check_password("anna-is-the-best", "anna").is_err());
        assert_eq!(check_password("correct horse battery", "ann"), Ok(()));
    }

    #[test]
    fn each_role_may_what_the_one_before_may_and_each_word_reads_back() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert!(Role::ALL.iter().all(|role| role.as_str().parse() == Ok(*role)));
        assert!(Scope::ALL.iter().all(|scope| scope.as_str().parse() == Ok(*scope)));
        assert_eq!(Scope::Metrics.role(), None);
    }
}
