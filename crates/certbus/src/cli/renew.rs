//! Renewals by hand or by cron: what is due, and issuing it, many at once.

use std::path::Path;

use anyhow::{Result, bail};
use certbus_core::agenda::{Agenda, Waiting, Why};
use certbus_core::id::CertificateId;
use certbus_core::name::NameSet;
use certbus_core::plan::{self, Due};
use certbus_core::time::Timestamp;
use certbus_manager::Issuers;
use certbus_manager::issue::on_demand;
use certbus_manager::windows::Windows;
use certbus_manager::{ManageError, Manager, clock};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::cert::print_outcome;
use super::exit::Mistake;
use super::output;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Renewable {
    /// What will be due by then [default: now]
    date: Option<String>,
    /// Renew the one that is due the longest
    #[arg(long, conflicts_with = "renew_all")]
    renew_first: bool,
    /// Renew all that are due
    #[arg(long)]
    renew_all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// Its id
    #[arg(required_unless_present = "due")]
    pub(super) id: Option<CertificateId>,
    /// All that are due
    #[arg(long, conflicts_with = "id")]
    due: bool,
}

impl Renewable {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let at = match &self.date {
            Some(date) => Timestamp::parse(date).map_err(Mistake::new)?,
            None => clock::now(),
        };
        let manager = wire::manager(settings).await?;
        let issuers = Issuers::new(manager.settings().await?, &settings.solvers())?;
        manager.refresh_windows(&issuers, &mut windows(&settings.data)).await?;
        let mut due = if self.renew_first || self.renew_all {
            ready(manager.agenda(issuers.settings(), at).await?)
        } else {
            let view = manager.view().await?;
            plan::all_due(&view.catalog, &view.work, &view.certs, at)
        };
        if self.renew_first {
            due.truncate(1);
        }
        for one in &due {
            if self.json {
                output::json(&serde_json::json!({
                    "id": one.request.certificate, "names": one.request.names, "since": one.since,
                }));
            } else {
                output::line(format!("{} {}", one.request.certificate, NameSet::new(&one.request.names)));
            }
        }
        if !(self.renew_first || self.renew_all) {
            return Ok(());
        }
        let outcome = issue_due(&manager, &issuers, due).await;
        check_in(&manager, &issuers).await?;
        outcome
    }
}

impl Renew {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let manager = wire::manager(settings).await?;
        let issuers = Issuers::new(manager.settings().await?, &settings.solvers())?;
        let Some(id) = self.id else {
            manager.refresh_windows(&issuers, &mut windows(&settings.data)).await?;
            let outcome =
                issue_due(&manager, &issuers, ready(manager.agenda(issuers.settings(), clock::now()).await?)).await;
            check_in(&manager, &issuers).await?;
            return outcome;
        };
        let due = on_demand(&*manager.view().await?, id)?;
        let outcome = manager.issue(&due, &issuers, &|step| output::remark(format!("  {step} …"))).await?;
        print_outcome(&outcome);
        Ok(())
    }
}

/// That rounds are made is one thing, how they end another: a certificate that is overdue is not hidden here.
async fn check_in(manager: &Manager, issuers: &Issuers) -> Result<()> {
    for problem in manager.check_in(issuers.settings()).await? {
        output::remark(format!("warning: {problem}"));
    }
    Ok(())
}

/// Where the times of the next questions for renewal windows are kept.
pub(crate) fn windows(data: &Path) -> Windows {
    Windows::load(data.join("windows.json"))
}

/// Issues what is due. Fails after all were tried, naming those that failed.
pub(super) async fn issue_due(manager: &Manager, issuers: &Issuers, due: Vec<Due>) -> Result<()> {
    // A round of a manager: clients tell a quiet log from a dead one by this.
    manager.say_alive().await?;
    if due.is_empty() {
        output::remark("nothing is due");
        return Ok(());
    }
    let count = due.len();
    let bar = bar(count);
    let mut failed = Vec::new();
    let ended = |one: &Due, result| {
        bar.suspend(|| match result {
            Ok(outcome) => print_outcome(&outcome),
            // Another manager is at it: this round has nothing to do for it.
            Err(error @ ManageError::Claimed { .. }) => output::remark(error.to_string()),
            Err(error) => failed.push((one.request.clone(), error)),
        });
        bar.inc(1);
    };
    manager.issue_all(due, issuers, ended).await;
    bar.finish_and_clear();
    for (request, error) in failed.iter().filter(|_| count > 1) {
        output::problem(format!("{} {}: {error}", request.certificate, NameSet::new(&request.names)));
    }
    match (failed.len(), failed.pop()) {
        (1, Some((_, error))) if count == 1 => Err(error.into()),
        (_, None) => Ok(()),
        (many, _) => bail!("{many} of {count} not renewed; `certbus cert ls` says when they are tried again"),
    }
}

/// On a terminal only; elsewhere the lines speak for themselves.
fn bar(count: usize) -> ProgressBar {
    let target = if count > 1 { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(count as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} renewed, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// What can be issued now; what has to wait is named, with the reason.
fn ready(agenda: Agenda) -> Vec<Due> {
    for Waiting { due, until, why } in agenda.waiting {
        let id = due.request.certificate;
        let now = match why {
            Why::Claimed(_) | Why::Limited(_) => String::new(),
            _ => format!("; `cert renew {id}` tries now"),
        };
        output::remark(format!("{id} waits until {until}: {why}{now}"));
    }
    agenda.ready
}
