//! `certbus serve`: everything that has to be done, done by itself. It renews whatever is due, polls whatever is watched, and
//! keeps the inventory in line with the log, again and again, until it is told to stop.

use std::time::Duration;

use anyhow::{Result, bail};
use certbus_agent::Notifier;
use certbus_manager::Tenant;
use certbus_manager::clock;
use certbus_manager::inventory::projector::Projector;
use certbus_manager::inventory::{scheduler, worker::Worker};
use certbus_manager::keeper::Keeper;
use certbus_store::Store;
use clap::Args;
use tokio::sync::watch;

use super::audit::process;
use super::example_server::until_ended;
use super::output;
use super::renew::windows;
use crate::settings::Settings;
use crate::wire;

/// How long an inventory that cannot be opened is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// One round, for cron
    #[arg(long)]
    once: bool,
}

impl Serve {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let manager = wire::manager(settings).await?;
        let tenant = manager.tenant().clone();
        let mut keeper = Keeper::new(manager, settings.solvers(), windows(&settings.data));
        if self.once {
            let round = keeper.round().await?;
            output::line(round.to_string());
            for (id, error) in &round.failed {
                output::problem(format!("{id}: {error}"));
            }
            let polls = watch_once(settings, tenant).await;
            match &polls {
                Ok(0) => {}
                Ok(1) => output::line("1 endpoint polled"),
                Ok(polls) => output::line(format!("{polls} endpoints polled")),
                Err(error) => output::problem(format!("{error:#}")),
            }
            return match (round.failed.len(), polls) {
                (0, Ok(_)) => Ok(()),
                (0, Err(_)) => bail!("no endpoint was polled"),
                (many, _) => bail!("{many} not issued; `certbus cert ls` says when they are tried again"),
            };
        }
        output::line("renewing whatever is due, polling whatever is watched; Ctrl-C ends it");
        let notifier = Notifier::from_environment();
        notifier.say("READY=1");
        let (stop, stopped) = watch::channel(false);
        let stop_all = async {
            until_ended().await;
            notifier.say("STOPPING=1");
            let _ = stop.send(true);
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(keeper.run(stop_all), watch_all(settings, tenant, stopped)) } => {}
            () = notifier.keep_alive() => {}
        }
        Ok(())
    }
}

/// Polls what is watched and learns what is issued, until it is stopped. An inventory that cannot be opened keeps nothing
/// from being renewed: it is tried again.
async fn watch_all(settings: &Settings, tenant: Tenant, mut stopped: watch::Receiver<bool>) {
    let mut said = String::new();
    let store = loop {
        match wire::inventory(settings).await {
            Ok(store) => break store,
            Err(error) if format!("{error:#}") == said => {}
            Err(error) => {
                said = format!("{error:#}");
                tracing::error!("nothing is polled: {said}");
            }
        }
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    };
    let told = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tokio::join!(
        Worker::new(store.clone(), settings.site()).run(told(stopped.clone())),
        scheduler::run(store.clone(), process(), told(stopped.clone())),
        async {
            tokio::select! {
                () = Projector::new(tenant, store.clone()).run() => {}
                () = told(stopped.clone()) => {}
            }
        }
    );
}

/// The same, what is due now, once. Returns how many polls that were.
async fn watch_once(settings: &Settings, tenant: Tenant) -> Result<usize> {
    let store: Store = wire::inventory(settings).await?;
    Projector::new(tenant, store.clone()).catch_up().await?;
    let worker = Worker::new(store.clone(), settings.site());
    let mut polled = 0;
    loop {
        let asked = scheduler::ask_for_due(&store, &store, clock::now()).await?;
        polled += worker.work_off().await?;
        // What waits for a worker of another site is not this one's to count.
        if asked == 0 {
            return Ok(polled);
        }
    }
}
