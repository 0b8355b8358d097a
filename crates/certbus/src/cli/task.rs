//! `certbus task`: work that waits, is under way, or was given up.

use anyhow::{Result, bail};
use clap::Subcommand;

use super::exit::Missing;
use super::output;
use super::reach::Reach;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks, those that were given up first.
    Ls {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Have tasks tried again that were given up.
    Retry {
        /// Their numbers, as `task ls` prints them
        #[arg(required = true, value_name = "NUMBER")]
        ids: Vec<i64>,
    },
}

impl TaskCommand {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        let inventory = reach.inventory().await?;
        match self {
            Self::Ls { limit, json } => {
                let tasks = inventory.tasks(limit).await?;
                let heading = ["number", "state", "lane", "attempts", "not before", "why", "task"];
                output::listing(json, &heading, tasks, |task| {
                    let body: String = task.body.chars().take(60).collect();
                    let (attempts, ready) = (task.attempts.to_string(), task.ready_at.to_string());
                    vec![task.id.to_string(), task.state.as_str().into(), task.lane, attempts, ready, task.why, body]
                });
                Ok(())
            }
            Self::Retry { ids } => {
                let mut missing = Vec::new();
                for id in ids {
                    if inventory.retry(id).await? {
                        output::done(format!("task {id} is tried again"));
                    } else {
                        missing.push(id.to_string());
                    }
                }
                if missing.is_empty() {
                    return Ok(());
                }
                bail!(Missing::new(format!(
                    "no task that was given up has number {}; `certbus task ls` lists them",
                    missing.join(", ")
                )))
            }
        }
    }
}
