//! `certbus serve`: a manager that is left alone. It renews whatever is due, again and again, until it is told to stop.

use anyhow::{Result, bail};
use certbus_agent::Notifier;
use certbus_manager::keeper::Keeper;
use clap::Args;

use super::example_server::until_ended;
use super::output;
use super::renew::windows;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// One round, for cron
    #[arg(long)]
    once: bool,
}

impl Serve {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let manager = wire::manager(settings).await?;
        let mut keeper = Keeper::new(manager, settings.solvers(), windows(&settings.data));
        if self.once {
            let round = keeper.round().await?;
            output::line(round.to_string());
            for (id, error) in &round.failed {
                output::problem(format!("{id}: {error}"));
            }
            return match round.failed.len() {
                0 => Ok(()),
                many => bail!("{many} not issued; `certbus cert ls` says when they are tried again"),
            };
        }
        output::line("renewing whatever is due; Ctrl-C ends it");
        let notifier = Notifier::from_environment();
        notifier.say("READY=1");
        tokio::select! {
            () = keeper.run(async { until_ended().await; notifier.say("STOPPING=1") }) => {}
            () = notifier.keep_alive() => {}
        }
        Ok(())
    }
}
