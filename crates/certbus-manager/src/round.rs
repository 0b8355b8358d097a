//! A round of a manager: everything that is due is issued, many at once, and no failure stops the others.

use certbus_core::plan::{self, Due};
use futures::StreamExt;

use crate::clock;
use crate::issue::Outcome;
use crate::issuing::Issuers;
use crate::manager::{ManageError, Manager};

/// How many orders are in flight at once.
pub const AT_ONCE: usize = 256;

impl Manager {
    /// What is due now, the longest due first.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn due(&self) -> Result<Vec<Due>, ManageError> {
        let view = self.view().await?;
        Ok(plan::all_due(&view.catalog, &view.work, &view.certs, clock::now()))
    }

    /// Issues all of `due`, at most [`AT_ONCE`] at once, and tells of each as it ends.
    pub async fn issue_all(
        &self,
        due: Vec<Due>,
        issuers: &Issuers,
        mut ended: impl FnMut(&Due, Result<Outcome, ManageError>),
    ) {
        let flows = futures::stream::iter(due).map(|due| async move {
            let result = self.issue(&due, issuers, &|_| ()).await;
            (due, result)
        });
        let mut flows = std::pin::pin!(flows.buffer_unordered(AT_ONCE));
        while let Some((due, result)) = flows.next().await {
            ended(&due, result);
        }
    }
}
