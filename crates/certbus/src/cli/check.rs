//! `certbus cert check`: what would fail before a CA is asked. It orders nothing.

use anyhow::{Result, bail};
use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use certbus_manager::Issuers;
use certbus_manager::check::{Level, Plan};
use certbus_manager::{Issuing, Manager};
use clap::Args;

use super::exit::Found;
use super::{mk, output};
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The names of one certificate
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How control would be shown: dns-01 or http-01
    #[arg(long)]
    challenge: Option<Challenge>,
    /// Which CA of the issuing settings
    #[arg(long)]
    ca: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) async fn run(self, settings: &Settings) -> Result<()> {
        let names = self.names.iter().map(|name| DnsName::parse(name)).collect::<Result<Vec<_>, _>>()?;
        let names = mk::limited(names)?;
        let manager = wire::manager(settings).await?;
        let issuing = manager.settings().await?;
        let challenge = mk::kind(self.challenge, &issuing, &names)?;
        let plan = Plan { names: &names, challenge, ca: self.ca.as_deref() };
        look(&manager, issuing, settings, &plan, self.json).await
    }
}

/// Prints what is found. A problem exits with 10.
pub(super) async fn look(
    manager: &Manager,
    issuing: Issuing,
    settings: &Settings,
    plan: &Plan<'_>,
    json: bool,
) -> Result<()> {
    let issuers = Issuers::new(issuing, &settings.solvers())?;
    let found = manager.check(plan, &issuers).await?;
    for finding in &found {
        match finding.level {
            _ if json => output::json(finding),
            Level::Ok => output::done(format!("{}: {}", finding.about, finding.what)),
            Level::Warning => output::warning(format!("{}: {}", finding.about, finding.what)),
            Level::Problem => output::problem(format!("{}: {}", finding.about, finding.what)),
        }
    }
    match found.iter().filter(|finding| finding.level == Level::Problem).count() {
        0 => Ok(()),
        count => bail!(Found::new(format!("{count} to mend before a CA would sign"))),
    }
}
