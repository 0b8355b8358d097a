//! `certbus serve`: everything that has to be done, done by itself. It renews whatever is due, polls whatever is watched, and
//! keeps the inventory in line with the log, again and again, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use certbus_agent::Notifier;
use certbus_manager::alerts::Alerts;
use certbus_manager::clock;
use certbus_manager::inventory::projector::Projector;
use certbus_manager::inventory::{scheduler, worker::Worker};
use certbus_manager::keeper::Keeper;
use certbus_manager::web::{Face, Parts};
use certbus_manager::{Manager, Tenant, wishes};
use certbus_store::Store;
use clap::Args;
use tokio::sync::watch;

use super::audit::process;
use super::example_server::until_ended;
use super::output;
use super::renew::windows;
use crate::settings::{Settings, Web};
use crate::{web_tls, wire};

/// How long an inventory that cannot be opened, or a port that is taken, is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// One round, for cron
    #[arg(long)]
    once: bool,
    /// Where the web is served [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", env = "CERTBUS_WEB_LISTEN")]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let web = settings.web(self.listen)?;
        let manager = Arc::new(wire::manager_from(settings, "serve").await?);
        let tenant = manager.tenant().clone();
        let mut keeper = Keeper::new(manager.clone(), settings.solvers(), windows(&settings.data));
        if self.once {
            let round = keeper.round().await?;
            output::line(round.to_string());
            for (id, error) in &round.failed {
                output::problem(format!("{id}: {error}"));
            }
            let polls = watch_once(settings, tenant).await;
            tell_once(settings, manager).await;
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
            ((), ()) = async { tokio::join!(keeper.run(stop_all), watch_all(settings, &web, manager, stopped)) } => {}
            () = notifier.keep_alive() => {}
        }
        Ok(())
    }
}

/// Polls what is watched and learns what is issued, until it is stopped. An inventory that cannot be opened keeps nothing
/// from being renewed: it is tried again.
async fn watch_all(settings: &Settings, web: &Web, manager: Arc<Manager>, mut stopped: watch::Receiver<bool>) {
    let opened = patiently("nothing is polled", &mut stopped, async || wire::inventory(settings).await).await;
    let Some(store) = opened else { return };
    tokio::join!(
        work(settings, manager.clone(), store.clone(), stopped.clone()),
        show(settings, web, manager, store, stopped)
    );
}

/// Polls, learns what is issued, and does what people ask for, until it is stopped.
pub(super) async fn work(settings: &Settings, manager: Arc<Manager>, store: Store, stopped: watch::Receiver<bool>) {
    let told = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tokio::join!(
        Worker::new(store.clone(), settings.site()).run(told(stopped.clone())),
        scheduler::run(store.clone(), process(), told(stopped.clone())),
        async {
            tokio::select! {
                () = Projector::new(manager.tenant().clone(), store.clone()).run() => {}
                () = told(stopped.clone()) => {}
            }
        },
        Alerts::new(manager.clone(), settings.alerts(), store.clone(), process()).run(told(stopped.clone())),
        wishes::run(manager.clone(), settings.solvers(), store.clone(), told(stopped.clone())),
    );
}

/// Tries until it is done, or all is to stop; says why it is not, once for each reason.
async fn patiently<T>(
    otherwise: &str,
    stopped: &mut watch::Receiver<bool>,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Option<T> {
    let mut said = String::new();
    loop {
        match attempt().await {
            Ok(done) => return Some(done),
            Err(error) if format!("{error:#}") == said => {}
            Err(error) => {
                said = format!("{error:#}");
                tracing::error!("{otherwise}: {said}");
            }
        }
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return None,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Serves the web until it is stopped. A port that is taken keeps nothing from being renewed: it is tried again.
async fn show(settings: &Settings, web: &Web, manager: Arc<Manager>, store: Store, mut stopped: watch::Receiver<bool>) {
    let opened = patiently("the web is not served", &mut stopped, async || {
        let (listener, url) = web.open().await.with_context(|| format!("web.listen {}", web.listen))?;
        let tls = web_tls::config(settings, web)?;
        Ok((tls, listener, url))
    });
    let Some((tls, listener, url)) = opened.await else { return };
    match certbus_manager::web::first_login(&store).await {
        Ok(None) => output::line(format!("the web is at {url}")),
        Ok(Some(link)) => output::line(format!("the web is at {url}; the first login, good for an hour: {url}{link}")),
        Err(error) => tracing::error!("nobody can be let in: {error}"),
    }
    let ended = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    face(settings, web, url, manager, store).serve(listener, tls, ended).await;
}

/// The web of a manager and an inventory.
pub(super) fn face(settings: &Settings, web: &Web, url: String, manager: Arc<Manager>, store: Store) -> Face {
    Face::new(Parts {
        store,
        manager: Some(manager),
        site: settings.site().to_owned(),
        local_alerts: settings.alerts(),
        proxies: web.proxies.clone(),
        url,
    })
}

/// Tells people what is wrong, once. Whoever cannot be told keeps nothing from being renewed.
async fn tell_once(settings: &Settings, manager: Arc<Manager>) {
    let Ok(store) = wire::inventory(settings).await else { return };
    if let Err(error) = Alerts::new(manager, settings.alerts(), store, process()).once().await {
        tracing::error!("nobody is told what is wrong: {error}");
    }
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
