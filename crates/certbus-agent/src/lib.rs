//! Beside a load balancer, as a program: writes the files it reads, checks them, and tells it to read them again.
//! It follows the log through `certbus-client`, and knows no SQL, no web and no ACME. Programs that it runs come from the
//! local settings only, never from the log.
//!
//! A round brings one target in line with what is served: [`plan`](plan()) says which file is to hold which version, files
//! are staged and swapped in ([`swap`]), the target's own program checks them, the load balancer takes them. Whatever
//! fails, the old files are back.

mod account;
mod agent;
mod command;
mod deploy;
mod haproxy;
pub mod layout;
mod notify;
mod plan;
mod state;
mod swap;
mod target;
mod template;

pub use agent::{Agent, AgentError};
pub use command::CommandError;
pub use deploy::{DeployError, Round, Told};
pub use haproxy::RuntimeError;
pub use notify::Notifier;
pub use plan::Conflict;
pub use state::{Deployed, Failure, StateFile, TargetState};
pub use swap::FileError;
pub use target::{Kind, Target, TargetError, TargetSettings};
