//! `certbus worker` and `certbus scheduler`: parts of `certbus serve` that run apart, beside others that share an inventory.

use anyhow::Result;
use certbus_agent::Notifier;
use certbus_core::endpoint::Word;
use certbus_manager::clock;
use certbus_manager::inventory::{scheduler, worker};
use clap::Args;

use super::audit::process;
use super::example_server::until_ended;
use super::output;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// From where it polls [default: as the settings say, else `default`]
    #[arg(long, value_name = "SITE")]
    site: Option<Word>,
    /// What waits now, and end
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scheduler {
    /// What is due now, and end
    #[arg(long)]
    once: bool,
}

impl Worker {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let store = wire::inventory(settings).await?;
        let site = self.site.as_ref().map_or(settings.site(), Word::as_str);
        let worker = worker::Worker::new(store, site);
        if self.once {
            let done = worker.work_off().await?;
            output::line(format!("{done} polls made from site {site}"));
            return Ok(());
        }
        output::line(format!("polling from site {site}; Ctrl-C ends it"));
        until_stopped(|stop| worker.run(stop)).await;
        Ok(())
    }
}

impl Scheduler {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let store = wire::inventory(settings).await?;
        if self.once {
            let asked = scheduler::ask_for_due(&store, &store, clock::now()).await?;
            output::line(format!("{asked} polls asked for"));
            return Ok(());
        }
        output::line("asking for polls when they are due; Ctrl-C ends it");
        until_stopped(|stop| scheduler::run(store, process(), stop)).await;
        Ok(())
    }
}

/// Runs a part until the program is told to end, and tells a service manager of it.
async fn until_stopped<F: Future<Output = ()>>(
    part: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
) {
    let notifier = Notifier::from_environment();
    notifier.say("READY=1");
    tokio::select! {
        () = part(Box::pin(until_ended())) => notifier.say("STOPPING=1"),
        () = notifier.keep_alive() => {}
    }
}
