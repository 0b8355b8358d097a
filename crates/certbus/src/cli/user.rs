//! `certbus user`: who may log in to the web.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use certbus_core::access::{Role, check_password, parse_person};
use certbus_manager::clock;
use certbus_manager::web::{password, secret::Secret};
use certbus_store::Store;
use clap::Subcommand;
use zeroize::Zeroizing;

use super::audit::actor;
use super::exit::{Missing, Mistake};
use super::output;
use super::reach::Reach;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Let somebody log in, with a password that is typed, or read from standard input
    Add {
        /// What he logs in with
        name: String,
        /// viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: Role,
        /// A file with the password in its first line
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List users.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Set a password; his sessions end.
    Passwd {
        /// Whose
        name: String,
        /// A file with the password in its first line
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Print a one-time link by which somebody, new or not, chooses his password within an hour.
    Invite {
        /// What he logs in with
        name: String,
        /// viewer, operator or admin [default: as he is, or viewer]
        #[arg(long)]
        role: Option<Role>,
    },
    /// Let somebody in no longer.
    Rm {
        /// Whom
        name: String,
    },
}

impl UserCommand {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        if let Self::Ls { json } = self {
            let people = reach.inventory().await?.people().await?;
            output::listing(json, &["name", "role", "state", "last login"], people, |one| {
                let seen = one.seen_at.map_or_else(|| "never".into(), |at| at.to_string());
                let state = if one.active { "active" } else { "invited" };
                vec![one.name, one.role.to_string(), state.into(), seen]
            });
            return Ok(());
        }
        let settings =
            reach.here("user", "people alone, and no token, say who may log in; do it on its web, at /users")?;
        let store = wire::inventory(settings).await?;
        match self {
            Self::Add { name, role, password_file } => {
                let name = person(&name)?;
                let hashed = chosen(password_file.as_deref(), &name).await?;
                store.add_person(&name, role, &hashed, &actor(), clock::now()).await?;
                output::done(format!("{name} may log in, as {role}"));
            }
            Self::Ls { .. } => {}
            Self::Passwd { name, password_file } => {
                let name = known(&store, &name).await?;
                let hashed = chosen(password_file.as_deref(), &name).await?;
                store.passwd(&name, &hashed, &actor(), clock::now()).await?;
                output::done(format!("{name} has another password; his sessions are over"));
            }
            Self::Invite { name, role } => {
                let name = person(&name)?;
                let known = store.people().await?.into_iter().find(|one| one.name == name).map(|one| one.role);
                let role = role.or(known).unwrap_or(Role::Viewer);
                if let Some(before) = known.filter(|before| *before != role) {
                    bail!(Mistake::new(format!(
                        "{name} is {before}; change that on the web, and invite him without --role"
                    )));
                }
                let secret = Secret::new();
                store.invite(&name, role, secret.hash(), &actor(), clock::now()).await?;
                output::line(format!("{}/welcome/{}", settings.web(None)?.url, secret.text()));
                output::remark(format!("{name} chooses a password there, once and within an hour"));
            }
            Self::Rm { name } => {
                let name = person(&name)?;
                store.remove_person(&name, &actor(), clock::now()).await?;
                output::done(format!("{name} is let in no longer"));
            }
        }
        Ok(())
    }
}

fn person(name: &str) -> Result<String> {
    Ok(parse_person(name)
        .map_err(|error| Mistake::new(format!("`{name}` is no name to log in with: {}", error.why)))?)
}

/// The user of that name: nobody types a password in vain.
async fn known(store: &Store, name: &str) -> Result<String> {
    let name = person(name)?;
    if store.people().await?.iter().any(|one| one.name == name) {
        return Ok(name);
    }
    bail!(Missing::new(format!("there is no user `{name}`; `certbus user ls` lists them")))
}

/// A password that may be one, hashed.
async fn chosen(file: Option<&Path>, name: &str) -> Result<String> {
    let password = match file {
        Some(file) => first_line(std::fs::File::open(file).with_context(|| file.display().to_string())?)?,
        None if std::io::stdin().is_terminal() => {
            let password = Zeroizing::new(rpassword::prompt_password(format!("Password of {name}: "))?);
            let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
            if password != again {
                bail!(Mistake::new("they are not the same; nothing was changed"));
            }
            password
        }
        None => first_line(std::io::stdin())?,
    };
    check_password(&password, name).map_err(|error| Mistake::new(error.to_string()))?;
    password::hashed(password).await.map_err(anyhow::Error::msg)
}

fn first_line(from: impl std::io::Read) -> Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    std::io::BufReader::new(from).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
