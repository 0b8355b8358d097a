//! `certbus agent`: keeps the files of load balancers in line with the log, as the `[[target]]` tables say. The work is
//! done by the agent's crate; here is what people see of it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use certbus_agent::{Agent as Worker, Round, Told};
use certbus_client::{LogHealth, Status};
use clap::Args;

use super::exit::Mistake;
use super::{example_server::until_ended, output};
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Follow to the log's head, bring every target in line, and end: 0 if all went well
    #[arg(long)]
    once: bool,
    /// Print what an agent with this state folder last wrote down, and do nothing
    #[arg(long, conflicts_with = "once")]
    status: bool,
    /// With --status: one JSON object for each target
    #[arg(long, requires = "status")]
    json: bool,
    /// The node's identity [default: nodes.key in the data folder]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Where snapshot and state are kept [default: agent in the data folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Agent {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let folder = self.state.clone().unwrap_or_else(|| settings.identities().join("agent"));
        if self.status {
            return self.show(&folder);
        }
        if settings.targets().is_empty() {
            bail!(Mistake::new(format!(
                "settings {}: there is no [[target]]; write one, such as\n\n[[target]]\nkind = \"nginx\"\ngroup = \
                 \"www-data\"\n\n(docs/AGENT.md has them all)",
                settings.path.display()
            )));
        }
        let key = self.identity.clone().unwrap_or_else(|| settings.node_key());
        let client = wire::client_for_files(settings, &key, &folder)?;
        let agent = Worker::open(client.clone(), settings.targets().to_vec(), &folder)?;
        if !self.once {
            tokio::spawn(wire::follow(client, settings.clone()));
            agent.run(until_ended(), |round| say(round, false)).await?;
            return Ok(());
        }
        let mut failures = Vec::new();
        match wire::tenant(settings, Vec::new(), false).await {
            Err(error) => {
                client.not_opened(format!("{error:#}"));
                failures.push(format!("{}; deployed from the snapshot on disk", client.status().log));
            }
            Ok(tenant) => match client.clone().follow_to_head(tenant.certs.log, tenant.certs.snapshots).await {
                log @ (LogHealth::Unreachable { .. } | LogHealth::Refused { .. }) => {
                    failures.push(format!("{log}; deployed from the snapshot on disk"));
                }
                log @ LogHealth::Silent { .. } => output::remark(format!("warning: {log}")),
                LogHealth::NotReadYet | LogHealth::Following => {}
            },
        }
        for round in agent.once().await? {
            say(&round, true);
            failures.extend(round.failures.iter().map(|failure| format!("target `{}`: {failure}", round.target)));
        }
        failures.extend(troubles(&client.status()));
        if failures.is_empty() { Ok(()) } else { bail!(failures.join("\n")) }
    }

    fn show(&self, folder: &std::path::Path) -> Result<()> {
        let state = Worker::state_file(folder);
        if let Some(log) = state.log.as_ref().filter(|_| !self.json) {
            output::problem(log);
        }
        for (name, target) in state.targets {
            if self.json {
                output::json(&serde_json::json!({ "target": name, "state": target, "log": state.log }));
                continue;
            }
            let held = format!("{name}: {} certificates", target.deployed.len());
            match (target.next_try, &target.last_failure) {
                (Some(next), Some(failure)) => {
                    output::problem(format!("{held}; failing since {}, tried again at {next}", failure.at));
                    failure.causes.iter().for_each(|cause| output::line(format!("  {cause}")));
                }
                _ => output::done(format!("{held}, in line{}", since(target.last_success))),
            }
        }
        Ok(())
    }
}

fn since(time: Option<certbus_core::time::Timestamp>) -> String {
    time.map_or_else(String::new, |time| format!(" since {time}"))
}

/// Versions that are not deployed because they do not hold, and a disk that does not keep what was read.
fn troubles(status: &Status) -> Vec<String> {
    let refused =
        status.refused.iter().map(|(id, why)| format!("certificate {id}: its newest version is refused: {why}"));
    refused.chain(status.unwritten.iter().map(|why| format!("the snapshot cannot be written: {why}"))).collect()
}

/// A round in one line. Failures are told elsewhere: in the log, or at the end of `--once`.
fn say(round: &Round, also_nothing: bool) {
    let target = &round.target;
    let how = match round.told {
        Told::Nothing => "",
        Told::Reloaded => ", reloaded",
        Told::Committed => ", taken over its socket",
    };
    match (round.written, round.failures.is_empty()) {
        (0, true) if also_nothing => output::done(format!("{target}: {} certificates, unchanged{how}", round.wanted)),
        (0, true) if round.told == Told::Nothing => {}
        (0, false) => output::problem(format!("{target}: failed")),
        (written, true) => output::done(format!("{target}: {written} of {} certificates written{how}", round.wanted)),
        (written, false) => {
            output::problem(format!(
                "{target}: {written} of {} certificates written{how}, others failed",
                round.wanted
            ));
        }
    }
}
