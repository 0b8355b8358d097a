//! A round of a manager: everything that is due is issued, many at once, and no failure stops the others.

use certbus_core::agenda::{self, Agenda, agenda};
use certbus_core::event::CertificateRequested;
use certbus_core::name::NameSet;
use certbus_core::plan::{self, Due};
use certbus_core::time::Timestamp;
use futures::StreamExt;

use crate::clock;
use crate::issue::Outcome;
use crate::issuers::Issuers;
use crate::issuing::Issuing;
use crate::manager::{ManageError, Manager};

/// How many orders are in flight at once.
pub const AT_ONCE: usize = 256;

impl Manager {
    /// What is due at `now`, and what of it has to wait for what.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn agenda(&self, settings: &Issuing, now: Timestamp) -> Result<Agenda, ManageError> {
        let cas_of = |request: &CertificateRequested| {
            let names = settings.ca_names(request.ca.as_deref()).unwrap_or_default();
            names.into_iter().map(|name| (name.clone(), settings.limits(&name))).collect()
        };
        let me = &self.identity().name;
        let view = self.view().await?;
        Ok(agenda(&view.catalog, &view.work, &view.certs, me, cas_of, now))
    }

    /// Reports the end of a round, unless something is overdue: then the alarm is to be raised. What is wrong is returned.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn check_in(&self, settings: &Issuing) -> Result<Vec<String>, ManageError> {
        let Some(check_in) = &settings.check_in else {
            return Ok(Vec::new());
        };
        let (overdue, log) = {
            let view = self.view().await?;
            let now = clock::now();
            let overdue = |request: &&CertificateRequested| {
                let version = view.catalog.newest(request.certificate);
                version.is_some_and(|v| plan::is_overdue(v, view.work.window(v.certificate), now))
            };
            let overdue: Vec<String> =
                view.work.requests().into_iter().filter(overdue).map(|r| NameSet::new(&r.names).to_string()).collect();
            (overdue, view.certs.log())
        };
        let Some(log) = log else { return Ok(Vec::new()) };
        if !overdue.is_empty() {
            let (count, first) = (overdue.len(), overdue.into_iter().take(5).collect::<Vec<_>>().join("; "));
            return Ok(vec![format!("no check-in: {count} overdue, {first}")]);
        }
        let failed = check_in.report(&self.tenant().name, log, clock::now()).await;
        Ok(failed.into_iter().map(|error| error.to_string()).collect())
    }

    /// As [`Manager::issue`], unless a CA has said since it was decided that it takes no orders. A person who asks for one
    /// certificate is not held back.
    pub(crate) async fn issue_in_turn(&self, due: &Due, issuers: &Issuers) -> Result<Outcome, ManageError> {
        match self.held_back(due, issuers).await {
            Some(held) => Err(held),
            None => self.issue(due, issuers, &|_| ()).await,
        }
    }

    /// Why `due` is not to be ordered now, if a CA has said since that was decided that it takes no orders.
    async fn held_back(&self, due: &Due, issuers: &Issuers) -> Option<ManageError> {
        let cas = issuers.settings().ca_names(due.request.ca.as_deref()).ok()?;
        let (view, now) = (self.view().await.ok()?, clock::now());
        if view.work.open_order(due.request.certificate).is_some() {
            return None;
        }
        let limit = agenda::limited(&view.catalog, &view.work, due, cas.iter().map(String::as_str), now);
        limit.map(|(until, ca)| ManageError::Limited { ca: ca.to_owned(), until })
    }

    /// Issues all of `due`, at most [`AT_ONCE`] at once, and tells of each as it ends.
    pub async fn issue_all(
        &self,
        due: Vec<Due>,
        issuers: &Issuers,
        mut ended: impl FnMut(&Due, Result<Outcome, ManageError>),
    ) {
        let flows = futures::stream::iter(due).map(|due| async move {
            let result = self.issue_in_turn(&due, issuers).await;
            (due, result)
        });
        let mut flows = std::pin::pin!(flows.buffer_unordered(AT_ONCE));
        while let Some((due, result)) = flows.next().await {
            ended(&due, result);
        }
    }
}
