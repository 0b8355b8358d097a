//! What people ask for on the web: a renewal now. The web writes a task, and whoever has the manager's identity does it; so
//! the web needs none.

use std::sync::Arc;
use std::time::Duration;

use certbus_core::id::CertificateId;
use certbus_store::Store;
use certbus_store::tasks::{Leased, NewTask, TaskQueue};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::issue::on_demand;
use crate::issuers::{Issuers, LocalSolvers};
use crate::manager::{ManageError, Manager};

/// How long a wish is this process's without its word: longer than an order takes.
const LEASE: Duration = Duration::from_secs(15 * 60);

/// How long it waits when nobody wishes anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    renew: CertificateId,
}

fn lane(tenant: &str) -> String {
    format!("issue/{tenant}")
}

/// A task that renews a managed certificate now. Asked for twice, it is done once.
pub fn renewal(tenant: &str, id: CertificateId) -> NewTask {
    let body = serde_json::to_string(&Wish { renew: id }).unwrap_or_default();
    NewTask { lane: lane(tenant), key: Some(format!("renew {tenant} {id}")), body }
}

/// Does what is wished, until `stop`.
pub async fn run(manager: Arc<Manager>, local: LocalSolvers, store: Store, stop: impl Future<Output = ()>) {
    let lane = lane(&manager.tenant().name);
    let work = async {
        let mut said = None;
        loop {
            match store.lease(&lane, 1, clock::now(), LEASE).await {
                Ok(tasks) => {
                    said = None;
                    for task in &tasks {
                        done(&manager, &local, &store, task).await;
                    }
                }
                Err(error) if said.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::error!("nobody's wishes are done: {error}");
                    said = Some(error);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
}

async fn done(manager: &Manager, local: &LocalSolvers, store: &Store, task: &Leased) {
    let outcome = match serde_json::from_str::<Wish>(&task.body) {
        Ok(Wish { renew }) => renewed(manager, local, renew).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the task is no wish: {error}")),
    };
    let told = match outcome {
        Ok(()) => store.done(task).await,
        Err(why) => {
            tracing::warn!(task = task.id, "a renewal that was asked for failed: {why}");
            // What the CA said is on the log, and the keeper goes on with it: it is not tried again from here.
            store.done(task).await
        }
    };
    if let Err(error) = told {
        tracing::warn!(task = task.id, "how it ended could not be noted: {error}");
    }
}

async fn renewed(manager: &Manager, local: &LocalSolvers, id: CertificateId) -> Result<(), ManageError> {
    let issuers = Issuers::new(manager.settings().await?, local)?;
    let due = on_demand(&*manager.view().await?, id)?;
    manager.issue(&due, &issuers, &|_| {}).await.map(drop)
}
