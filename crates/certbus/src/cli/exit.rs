//! Exit codes, and the errors that have one of their own. Everything else is 1.

use std::fmt;
use std::process::ExitCode;

use certbus_manager::ManageError;
use certbus_store::StoreError;

/// For `certbus exit-codes`.
pub(crate) const CODES: &str = "\
 0  done; also an empty listing, and nothing due
 1  failed: a file, the log, the CA, the network
 2  usage: the command line or the settings say something that cannot be
 3  a named thing (certificate, recipient, identity file …) does not exist
10  a check found something (doctor, cert check, cert mk --dry-run, scan --fail-on, stream verify)";

/// What was asked for cannot be: exit code 2.
#[derive(Debug)]
pub(crate) struct Mistake(String);

/// A named thing does not exist: exit code 3.
#[derive(Debug)]
pub(crate) struct Missing(String);

/// A check found something: exit code 10.
#[derive(Debug)]
pub(crate) struct Found(String);

macro_rules! error_type {
    ($($name:ident),*) => {
        $(
            impl $name {
                pub(crate) fn new(text: impl Into<String>) -> Self {
                    Self(text.into())
                }
            }
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
            impl std::error::Error for $name {}
        )*
    };
}
error_type!(Mistake, Missing, Found);

/// Prints the error and says which code it has.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    super::output::error(&told(error));
    ExitCode::from(code(error))
}

/// The error and its causes, each once: many say their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Mistake>()
            || cause.is::<certbus_core::name::NameError>()
            || cause.is::<certbus_manager::SettingsError>()
        {
            return 2;
        }
        if cause.is::<Missing>() {
            return 3;
        }
        if cause.is::<Found>() {
            return 10;
        }
        match cause.downcast_ref::<StoreError>() {
            Some(StoreError::NotFound { .. }) => return 3,
            Some(
                StoreError::Duplicate { .. }
                | StoreError::Changed { .. }
                | StoreError::Taken { .. }
                | StoreError::LastAdmin { .. },
            ) => return 2,
            _ => {}
        }
        match cause.downcast_ref::<ManageError>() {
            Some(ManageError::UnknownCertificate(_)) => return 3,
            Some(ManageError::Authority(certbus_core::authority::AuthorityError::Unknown { .. })) => return 3,
            Some(ManageError::Settings(_) | ManageError::NoRecipient) => return 2,
            _ => {}
        }
    }
    1
}
