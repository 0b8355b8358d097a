//! The engines of this crate against the suite, and what is SQLite's own.
//! `cfg(test)` tells clippy that these files are tests throughout.

#[cfg(test)]
mod engines;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod sqlite_file;
