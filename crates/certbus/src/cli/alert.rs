//! `certbus alert`: what is wrong, who is told, and what became of each message.

use anyhow::{Result, bail};
use certbus_core::time::Span;
use certbus_manager::alerts;
use certbus_store::alerts::Shown;
use clap::Subcommand;

use super::audit::actor;
use super::exit::{Missing, Mistake};
use super::output;
use super::reach::Reach;
use crate::inventory;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// List what is wrong, and what is muted.
    Ls {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Only after the problem of this key
        #[arg(long, default_value = "", hide_default_value = true, value_name = "KEY")]
        after: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Send a test message to every destination, or to one; a server sends its own to every one.
    Test {
        /// The destination: smtp, webhook/NAME or exec
        #[arg(value_name = "DESTINATION")]
        to: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Have nobody told of a problem, or of all of an endpoint's (`endpoint/12`).
    Mute {
        /// A key, or the begin of keys, as `alert ls` prints them
        #[arg(value_name = "KEY")]
        subject: String,
        /// For how long (7d, 12h) [default: until it is unmuted]
        #[arg(long, value_name = "TIME")]
        r#for: Option<Span>,
    },
    /// Have people told again.
    Unmute {
        /// What was muted
        #[arg(value_name = "KEY")]
        subject: String,
    },
    /// List messages and what became of each, the newest first.
    Log {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Only messages before this number
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

impl AlertCommand {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        if let Self::Test { to, json } = self {
            let outcomes = match reach.server().await? {
                None => test(reach.settings(), to.as_deref()).await?,
                Some(_) if to.is_some() => {
                    bail!(Mistake::new("a server sends its test to every destination; leave the destination out"))
                }
                Some(server) => inventory::alerts::test(&server).await?,
            };
            return tell(outcomes, json);
        }
        let inventory = reach.inventory().await?;
        match self {
            Self::Ls { limit, after, json } => {
                let problems = inventory.problems(&after, limit).await?;
                output::listing(json, &["problem", "of", "since", "told", "what"], problems, |one| {
                    let told = told(&one);
                    let Shown { problem, .. } = one;
                    vec![problem.key, problem.name, problem.since.to_string(), told, problem.words]
                });
                if !json {
                    for mute in inventory.mutes().await? {
                        let until = mute.until.map_or_else(|| "until it is unmuted".into(), |at| format!("until {at}"));
                        output::remark(format!("{} is muted {until}, by {}", mute.subject, mute.actor));
                    }
                }
                Ok(())
            }
            Self::Mute { subject, r#for } => {
                inventory.mute(&subject, r#for).await?;
                output::done(format!("nobody is told of {subject}"));
                Ok(())
            }
            Self::Unmute { subject } => {
                inventory.unmute(&subject).await?;
                output::done(format!("people are told of {subject} again"));
                Ok(())
            }
            Self::Log { limit, before, json } => {
                let heading = ["number", "when", "destination", "state", "attempts", "message", "why"];
                output::listing(json, &heading, inventory.delivery_log(before, limit).await?, |one| {
                    let (number, at) = (one.message.to_string(), one.at.to_string());
                    vec![number, at, one.destination, one.state, one.attempts.to_string(), one.title, one.why]
                });
                Ok(())
            }
            Self::Test { .. } => Ok(()),
        }
    }
}

fn told(one: &Shown) -> String {
    match (one.is_muted, one.gone_at, one.told_at) {
        (true, ..) => "muted".into(),
        (_, Some(gone), _) => format!("ending since {gone}"),
        (_, _, Some(told)) => told.to_string(),
        _ => "not yet".into(),
    }
}

/// What became of a test message at each destination: its name, and why it did not arrive.
async fn test(settings: &Settings, to: Option<&str>) -> Result<Vec<(String, Option<String>)>> {
    let manager = wire::manager(settings).await?;
    let issuing = manager.settings().await?.alerts.unwrap_or_default();
    let local = settings.alerts();
    let known = alerts::destination_names(&issuing, &local);
    match to {
        Some(to) if !known.iter().any(|name| name == to) => {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!(Missing::new(format!("no destination is called `{to}`; known: {known}")));
        }
        None if known.is_empty() => bail!(Mistake::new(
            "nobody is told: write [alerts.smtp] or [[alerts.webhook]] with `certbus conf edit`, or [alert] exec into \
             certbus.toml"
        )),
        _ => {}
    }
    let store = wire::inventory(settings).await?;
    let tenant = &manager.tenant().name;
    let outcomes = alerts::test(&store, tenant, (&issuing, &local), to, &actor()).await?;
    Ok(outcomes.into_iter().map(|(name, outcome)| (name, outcome.err().map(|error| error.to_string()))).collect())
}

fn tell(outcomes: Vec<(String, Option<String>)>, json: bool) -> Result<()> {
    let mut failed = Vec::new();
    for (name, why) in outcomes {
        match (&why, json) {
            (_, true) => output::json(&serde_json::json!({
                "destination": name, "state": if why.is_none() { "delivered" } else { "failed" }, "why": why,
            })),
            (None, _) => output::done(format!("{name} took it")),
            (Some(why), _) => output::problem(format!("{name}: {why}")),
        }
        failed.extend(why.map(|_| name));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("the test did not reach {}", failed.join(", ")),
    }
}
