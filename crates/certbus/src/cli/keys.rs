//! Identities, recipients, managers and tenants: who may open and who may write.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use certbus_core::chain::Pin;
use certbus_core::id::PublicKey;
use certbus_core::identity::Role;
use certbus_manager::Manager;
use certbus_manager::ceremony::{admit_alone, new_identity};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::exit::Mistake;
use super::{init, output};
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make an identity whose private keys never leave this machine; prints its public half.
    New {
        /// For people, and for the log
        name: String,
        /// Whose it is
        #[arg(long, value_enum, default_value = "node")]
        role: IdentityRole,
        /// Where it goes [default: NAME.key in the data folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum IdentityRole {
    Node,
    Manager,
}

#[derive(Debug, Args)]
pub(crate) struct Owner {
    /// The owner file, if it is not in the data folder
    #[arg(long, value_name = "FILE")]
    owner: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipientCommand {
    /// Let a node, or a group of nodes, open this tenant's certificates.
    Add {
        /// For people, and for step-by-step rollouts
        name: String,
        /// The public key that `certbus identity new` printed; without it an identity file is made here
        #[arg(long, value_name = "PUBLIC-KEY")]
        key: Option<PublicKey>,
        /// Where the identity file goes [default: NAME.key in the data folder]
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        out: Option<PathBuf>,
        #[command(flatten)]
        owner: Owner,
    },
    /// List them.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Seal nothing more to a recipient. What it could open before, it still can.
    Rm {
        /// Its name
        name: String,
        /// Its key is in other hands: everything it could open becomes due again
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        owner: Owner,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManagerCommand {
    /// Admit another manager.
    Add {
        /// For people, and for the audit trail
        name: String,
        /// The two public keys that `certbus identity new --role manager` printed; without them a file is made here
        #[arg(long, value_name = "SIGN:OPEN")]
        key: Option<String>,
        /// Where the identity file goes [default: NAME.key in the data folder]
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        out: Option<PathBuf>,
        /// With no other manager's help: when none is left
        #[arg(long, conflicts_with = "key")]
        alone: bool,
        #[command(flatten)]
        owner: Owner,
    },
    /// List them.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Retire a manager: it writes no more.
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        owner: Owner,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Start a log of its own for a group of load balancers.
    Add {
        /// Its name
        name: String,
    },
    /// List them.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

impl IdentityCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<()> {
        let Self::New { name, role, out } = self;
        check_name(&name)?;
        let role = match role {
            IdentityRole::Node => Role::Node,
            IdentityRole::Manager => Role::Manager,
        };
        let identity = new_identity(role, &settings.tenant, &name, None)?;
        let path = out.unwrap_or_else(|| settings.identities().join(format!("{name}.key")));
        wire::write_identity(&path, &identity)?;
        output::done(format!("made {} (its private keys stay here)", path.display()));
        let open = identity.open.public();
        output::line("let the owner run:");
        output::line(match identity.sign {
            None => format!("  certbus recipient add {name} --key {open}"),
            Some(sign) => format!("  certbus manager add {name} --key {}:{open}", sign.public()),
        });
        Ok(())
    }
}

impl RecipientCommand {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let manager = wire::manager(settings).await?;
        match self {
            Self::Add { name, key, out, owner } => {
                check_name(&name)?;
                let owner = wire::owner(settings, owner.owner.as_ref())?;
                let pin = pin(&manager).await?;
                if let Some(key) = key {
                    manager.add_recipient(&owner, &name, key).await?;
                    output::done(format!("added the recipient {name}"));
                    print_trust(pin);
                    return Ok(());
                }
                let identity = new_identity(Role::Node, &settings.tenant, &name, Some(pin))?;
                let path = key_path(settings, out, &name);
                // The file first: a recipient whose key is lost would be worse than a file that opens nothing.
                wire::write_identity(&path, &identity)?;
                undo_on_error(manager.add_recipient(&owner, &name, identity.open.public()).await, &path)?;
                output::done(format!("added the recipient {name}"));
                output::done(format!("made {} (give it to the nodes)", path.display()));
                Ok(())
            }
            Self::Ls { json } => {
                #[derive(Serialize)]
                struct Row {
                    name: String,
                    key: String,
                    added: String,
                }
                let view = manager.view().await?;
                let rows: Vec<Row> = view
                    .certs
                    .recipients()
                    .iter()
                    .map(|r| Row { name: r.name.clone(), key: r.key.to_string(), added: r.added.to_string() })
                    .collect();
                output::listing(json, &["name", "public key", "added"], rows, |r| vec![r.name, r.key, r.added]);
                Ok(())
            }
            Self::Rm { name, compromised, owner } => {
                let owner = wire::owner(settings, owner.owner.as_ref())?;
                manager.remove_recipient(&owner, &name, compromised).await?;
                output::done(format!("removed the recipient {name} and started a new ring"));
                output::line(if compromised {
                    "every certificate it could open is due again: `certbus cert renew --due` replaces them now"
                } else {
                    "this protects what is issued from now on; what it could open before, it still can \
                     (--compromised replaces those)"
                });
                Ok(())
            }
        }
    }
}

impl ManagerCommand {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        if let Self::Add { name, out, alone: true, owner, .. } = self {
            return add_alone(settings, &name, out, &owner).await;
        }
        let manager = wire::manager(settings).await?;
        match self {
            Self::Add { name, key, out, owner, .. } => {
                check_name(&name)?;
                let owner = wire::owner(settings, owner.owner.as_ref())?;
                let pin = pin(&manager).await?;
                if let Some(keys) = key {
                    let parsed = keys.split_once(':').and_then(|(s, o)| Some((s.parse().ok()?, o.parse().ok()?)));
                    let Some((sign, open)) = parsed else {
                        bail!(Mistake::new(format!(
                            "--key {keys}: write the two public keys as `certbus identity new --role manager` prints them"
                        )));
                    };
                    manager.admit(&owner, &name, sign, open).await?;
                    output::done(format!("admitted the manager {name}"));
                    print_trust(pin);
                    return Ok(());
                }
                let identity = new_identity(Role::Manager, &settings.tenant, &name, Some(pin))?;
                let path = key_path(settings, out, &name);
                wire::write_identity(&path, &identity)?;
                let sign = identity.sign.as_ref().map_or(identity.open.public(), certbus_core::key::SigningKey::public);
                undo_on_error(manager.admit(&owner, &name, sign, identity.open.public()).await, &path)?;
                output::done(format!("admitted the manager {name}; the issuing settings are sealed to it too"));
                output::done(format!("made {} (take it to that machine, as manager.key)", path.display()));
                Ok(())
            }
            Self::Ls { json } => {
                #[derive(Serialize)]
                struct Row {
                    name: String,
                    state: String,
                    key: String,
                }
                let view = manager.view().await?;
                let rows: Vec<Row> = view
                    .certs
                    .all_writers()
                    .iter()
                    .map(|w| Row {
                        name: w.name.clone(),
                        state: w.retired.map_or("admitted".into(), |at| format!("retired at batch {at}")),
                        key: w.key.to_string(),
                    })
                    .collect();
                output::listing(json, &["name", "state", "public key"], rows, |r| vec![r.name, r.state, r.key]);
                Ok(())
            }
            Self::Rm { name, owner } => {
                let owner = wire::owner(settings, owner.owner.as_ref())?;
                manager.retire(&owner, &name).await?;
                output::done(format!(
                    "retired the manager {name}: what it writes from now on is refused by every reader"
                ));
                output::line("it knew the issuing settings; if it is in other hands, change:");
                let issuing = manager.settings().await?;
                for (ca, entry) in &issuing.ca {
                    let what = if entry.directory == "internal" { "root key" } else { "account" };
                    output::line(format!("  the {what} of the CA {ca}"));
                    if entry.eab_key.is_some() {
                        output::line(format!("  the external account key of the CA {ca}"));
                    }
                }
                if issuing.s3.as_ref().is_some_and(|s3| s3.secret_access_key.is_some()) {
                    output::line("  the access key of the S3 bucket");
                }
                if issuing.check_in.as_ref().is_some_and(|check_in| check_in.url.is_some()) {
                    output::line("  the URL of the check-in");
                }
                if let Some(dns01) = &issuing.dns01 {
                    output::line(format!("  the credentials of the DNS provider {}", dns01.provider));
                }
                Ok(())
            }
        }
    }
}

/// Makes a manager by the owner's word alone.
async fn add_alone(settings: &Settings, name: &str, out: Option<PathBuf>, owner: &Owner) -> Result<()> {
    check_name(name)?;
    let owner = wire::owner(settings, owner.owner.as_ref())?;
    let tenant = wire::tenant(settings, owner.pin.into_iter().collect(), false).await?;
    let identity = new_identity(Role::Manager, &settings.tenant, name, owner.pin)?;
    let path = key_path(settings, out, name);
    wire::write_identity(&path, &identity)?;
    undo_on_error(admit_alone(tenant, &owner, identity).await, &path)?;
    output::done(format!("admitted the manager {name}; the issuing settings are sealed to it"));
    output::done(format!("made {}", path.display()));
    output::line(format!("use it as manager.key, then retire the lost one: certbus manager rm NAME (not {name})"));
    Ok(())
}

#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Make a new owner file and hand the log over to it. The old one says nothing more.
    Change {
        /// Where the new owner file goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The old file is in other hands: everything it could recover becomes due again
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        owner: Owner,
    },
}

impl OwnerCommand {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let Self::Change { out, compromised, owner } = self;
        let manager = wire::manager(settings).await?;
        let old = wire::owner(settings, owner.owner.as_ref())?;
        let log = pin(&manager).await?.log;
        let mut new = new_identity(Role::Owner, &settings.tenant, "owner", None)?;
        new.pin = new.sign.as_ref().map(|key| Pin { log, authority: key.public() });
        wire::write_identity(&out, &new)?;
        undo_on_error(manager.change_owner(&old, &new, compromised).await, &out)?;
        output::done(format!("made {} and handed the log over to it: keep it offline", out.display()));
        output::line("the old owner file says nothing more; whoever has it can still open what was sealed before");
        if compromised {
            output::line(
                "every certificate it could recover is due again: `certbus cert renew --due` replaces them now",
            );
        }
        output::line("identities that trust the old authority go on; a new node is given the new one by itself");
        output::line(
            "so that a copy of the log from before cannot fool them, trust only the new one in their settings:",
        );
        print_trust(pin(&manager).await?);
        Ok(())
    }
}

impl TenantCommand {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Self::Add { name } => {
                let settings = settings.for_tenant(&name)?;
                init::found(&settings).await?;
                output::line(format!("use it with --tenant {name}; next: certbus --tenant {name} init --ca internal"));
                Ok(())
            }
            Self::Ls { json } => {
                for name in wire::tenants(settings).await? {
                    if json {
                        output::json(&serde_json::json!({ "name": name }));
                    } else {
                        output::line(name);
                    }
                }
                Ok(())
            }
        }
    }
}

async fn pin(manager: &Manager) -> Result<Pin> {
    let view = manager.view().await?;
    match (view.certs.log(), view.certs.authority()) {
        (Some(log), Some(authority)) => Ok(Pin { log, authority }),
        _ => bail!("the log has not been started"),
    }
}

/// What to paste on the machine where the key was made: there is no trust on first use.
fn print_trust(pin: Pin) {
    output::line("paste into certbus.toml on that machine:");
    output::line(format!("  [[trust]]\n  log = \"{}\"\n  authority = \"{}\"", pin.log, pin.authority));
}

fn key_path(settings: &Settings, out: Option<PathBuf>, name: &str) -> PathBuf {
    out.unwrap_or_else(|| settings.identities().join(format!("{name}.key")))
}

fn undo_on_error<T, E: Into<anyhow::Error>>(result: Result<T, E>, path: &Path) -> Result<T> {
    result.map_err(|error| {
        let _ = std::fs::remove_file(path);
        error.into()
    })
}

fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
    if good {
        return Ok(());
    }
    bail!(Mistake::new(format!(
        "`{name}` is not a name for an identity; write up to 64 of A-Z, a-z, 0-9, `-`, `_`, `.`, `@`"
    )))
}
