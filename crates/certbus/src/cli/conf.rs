//! The issuing settings: shown with their secrets masked, changed as a whole, checked before they are sealed.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_manager::issuing::seed;
use certbus_manager::{Issuing, Manager, clock};
use certbus_store::Store;
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use similar::{ChangeTag, TextDiff};

use super::audit::actor;
use super::exit::Mistake;
use super::output;
use super::reach::Reach;
use crate::remote::Server;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum Conf {
    /// Replace the issuing settings by TOML from a file or standard input (or take over the account in the first CertBus's
    /// JSON); shows what changes.
    Update {
        /// The file [default: standard input]
        file: Option<PathBuf>,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Change them in $EDITOR. Secrets are masked; a mask that stays keeps the secret.
    Edit,
    /// Show them.
    Display {
        /// Secrets too
        #[arg(long)]
        reveal: bool,
    },
}

/// Who seals settings onto the log, with the settings as they are.
enum Keeper {
    /// This machine, and where its trail is.
    Here { manager: Box<Manager>, before: Box<Issuing>, store: Store },
    /// A server, which shows them with their secrets masked.
    There { server: Server, shown: Shown },
}

/// Settings as a server shows them.
#[derive(Deserialize)]
struct Shown {
    issuing: String,
    mark: String,
}

impl Keeper {
    async fn of(reach: &Reach) -> Result<Self> {
        let Some(server) = reach.server().await? else {
            let manager = Box::new(wire::manager(reach.settings()).await?);
            let before = Box::new(manager.settings().await?);
            return Ok(Self::Here { manager, before, store: wire::inventory(reach.settings()).await? });
        };
        let shown = server.get("settings", &[]).await?;
        Ok(Self::There { server, shown })
    }

    /// As TOML with masks.
    fn masked(&self) -> String {
        match self {
            Self::Here { before, .. } => before.masked().to_toml(),
            Self::There { shown, .. } => shown.issuing.clone(),
        }
    }

    fn before(&self) -> Result<Issuing> {
        match self {
            Self::Here { before, .. } => Ok((**before).clone()),
            Self::There { shown, .. } => Ok(Issuing::parse_masked(&shown.issuing)?),
        }
    }

    async fn set(&self, after: &Issuing) -> Result<()> {
        match self {
            Self::Here { manager, before, store } => {
                manager.set_settings(before, after).await?;
                let what = before.differing(after).join(", ");
                Ok(store.note(&actor(), clock::now(), ["conf change", &manager.tenant().name, &what]).await?)
            }
            Self::There { server, shown } => {
                let body = serde_json::json!({ "issuing": after.to_toml(), "mark": shown.mark });
                server.tell(Method::PUT, "settings", &body).await
            }
        }
    }
}

impl Conf {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        let keeper = Keeper::of(reach).await?;
        match self {
            Self::Display { reveal: true } if matches!(keeper, Keeper::There { .. }) => {
                bail!(Mistake::new("a server shows no secret to anybody; `certbus conf display --reveal` on it does"))
            }
            Self::Display { reveal } => {
                let text = if reveal { keeper.before()?.to_toml() } else { keeper.masked() };
                output::line(text.trim_end());
                Ok(())
            }
            Self::Update { file, dry_run } => {
                let text = match &file {
                    Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
                    None if std::io::stdin().is_terminal() => {
                        bail!(Mistake::new("nothing to read: give a file, or `certbus conf update < FILE`"))
                    }
                    None => {
                        let mut text = String::new();
                        std::io::stdin().read_to_string(&mut text)?;
                        text
                    }
                };
                change(&keeper, &text, dry_run).await
            }
            Self::Edit => {
                let text = edit(keeper.masked())?;
                change(&keeper, &text, false).await
            }
        }
    }
}

async fn change(keeper: &Keeper, text: &str, dry_run: bool) -> Result<()> {
    if text.trim().is_empty() {
        bail!(Mistake::new("these settings are empty; nothing was changed (to start anew, remove entries one by one)"));
    }
    let before = &keeper.before()?;
    let after = if seed::looks_like_seed(text) {
        let mut after = before.clone();
        for left in seed::take_over(text, &mut after)? {
            output::warning(format!("not taken over: {left}"));
        }
        after
    } else {
        let mut after = match keeper {
            Keeper::Here { .. } => Issuing::changed(before, text)?,
            Keeper::There { .. } => Issuing::edited(before, text)?,
        };
        if let Some(alerts) = &mut after.alerts {
            alerts.take_files()?;
        }
        after
    };
    if after == *before {
        output::line("nothing changes");
        return Ok(());
    }
    show_diff(before, &after);
    if dry_run {
        return Ok(());
    }
    keeper.set(&after).await?;
    output::done("sealed the new issuing settings onto the log");
    Ok(())
}

/// What changes, with secrets masked: one that changed is said to have, and not shown.
fn show_diff(before: &Issuing, after: &Issuing) {
    let (old, new) = (before.masked().to_toml(), after.masked().to_toml());
    let diff = TextDiff::from_lines(&old, &new);
    for change in diff.iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => continue,
        };
        output::line(format!("{sign} {}", change.value().trim_end()));
    }
    if old == new {
        output::line("~ a secret changes");
    }
}

fn edit(text: String) -> Result<String> {
    let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).unwrap_or_else(|_| "vi".into());
    let file = tempfile::Builder::new().prefix("certbus-").suffix(".toml").tempfile()?;
    std::fs::write(file.path(), text)?;
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .with_context(|| format!("the editor `{editor}` cannot be started; set $EDITOR"))?;
    if !status.success() {
        bail!("the editor `{editor}` ended with {status}; nothing changes");
    }
    Ok(std::fs::read_to_string(file.path())?)
}
