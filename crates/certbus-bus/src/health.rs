//! What an engine says of itself, for `certbus doctor`: its version, its clock, and what makes its promises weaker than the log
//! takes them to be.

/// An engine's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// As it says it.
    pub version: String,
    /// Its clock, in milliseconds since 1970, if it tells.
    pub clock: Option<i64>,
    /// What is wrong, with what to do.
    pub wrong: Vec<String>,
    /// What is well for some and not for others.
    pub remarks: Vec<String>,
}
