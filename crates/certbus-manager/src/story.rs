//! A certificate's whole story, read from the log as far back as it is kept, and what comes next.

use certbus_bus::follow::{FollowError, catch_up, load};
use certbus_bus::log::LogError;
use certbus_core::batch::Batch;
use certbus_core::chain::Chain;
use certbus_core::event::Event;
use certbus_core::id::{CertificateId, StreamKind};
use certbus_core::plan;
use certbus_core::story::{Story, about};
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::issuing::Issuing;
use crate::manager::{ManageError, Manager};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it.
    pub actor: String,
    /// From where.
    pub source: String,
    /// The event's kind.
    pub kind: String,
    /// What it says.
    pub what: String,
}

impl Manager {
    /// All that the log says of a managed certificate, the oldest first. Empty if it never heard of it. What a snapshot
    /// left out of a trimmed log is not told.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn story(&self, id: CertificateId) -> Result<Vec<Told>, ManageError> {
        let mut events: Vec<(Told, Event)> = Vec::new();
        for kind in StreamKind::ALL {
            let stream = self.tenant().stream(kind);
            let start = Chain::new(kind, self.tenant().pins.clone());
            let mut found = Vec::new();
            let mut keep = |batch: &Batch, all: &[Event]| {
                let envelope = batch.envelope();
                for event in all.iter().filter(|event| about(event) == Some(id)) {
                    let (at, actor, source) = (envelope.time, envelope.actor.clone(), envelope.source.clone());
                    let told = Told { at, actor, source, kind: event.kind().to_owned(), what: String::new() };
                    found.push((told, event.clone()));
                }
            };
            let mut chain = start.clone();
            match catch_up(&*stream.log, &mut chain, &mut keep).await {
                Err(FollowError::Log(LogError::Trimmed { .. })) => {
                    load(&*stream.log, &*stream.snapshots, start, keep).await?;
                }
                other => other?,
            }
            events.extend(found);
        }
        events.sort_by_key(|(told, _)| told.at);
        let mut story = Story::new(id);
        let tell = |(told, event): (Told, Event)| Some(Told { what: story.tell(&event)?, ..told });
        Ok(events.into_iter().filter_map(tell).collect())
    }

    /// What will happen to a managed certificate next, and when. None if it is not managed any more.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn next_step(&self, id: CertificateId, settings: &Issuing) -> Result<Option<String>, ManageError> {
        let agenda = self.agenda(settings, clock::now()).await?;
        let view = self.view().await?;
        if view.work.request(id).is_none() {
            return Ok(None);
        }
        if let Some(waiting) = agenda.waiting.iter().find(|waiting| waiting.due.request.certificate == id) {
            return Ok(Some(format!("it is due and waits until {}: {}", waiting.until, waiting.why)));
        }
        if agenda.ready.iter().any(|due| due.request.certificate == id) {
            let order = match view.work.open_order(id) {
                Some(open) => format!("the order {} is open and gone on with", open.order),
                None => "it is due".to_owned(),
            };
            return Ok(Some(format!("{order}: by `certbus serve`, or now by `certbus cert renew {id}`")));
        }
        let Some(version) = view.catalog.newest(id) else { return Ok(None) };
        let window = view.work.window(id).filter(|window| window.version == version.fingerprint);
        let by = if window.is_some() { "a moment in the CA's window" } else { "two thirds of its life" };
        Ok(Some(format!("renewed after {}, {by}", plan::renewal_point(version, window))))
    }
}
