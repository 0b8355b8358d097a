//! What becomes of an attempt that failed: what is kept on `work` of it, and what it means for its order and for others at
//! the same CA.

use certbus_acme::{IssueError, SolverError};
use certbus_core::event::{AccountLimited, Event, IssuanceFailed};
use certbus_core::id::StreamKind;
use certbus_core::plan::{self, Due};
use certbus_core::work::LONGEST_WAIT;

use crate::appender::Scope;
use crate::clock;
use crate::manager::{ManageError, Manager, every_ca};

/// What is kept of a problem's words: a batch has room for so much, and a person no use for more.
const LONGEST_PROBLEM: usize = 4000;

/// A chain that is not what was ordered is fetched in this many attempts.
const FETCHES: u32 = 3;

impl Manager {
    /// Keeps a failure on `work`, unless somebody else has issued meanwhile: says so then.
    pub(super) async fn fail(&self, due: &Due, error: &ManageError) -> Result<bool, ManageError> {
        if matches!(error, ManageError::Claimed { .. } | ManageError::UnknownCertificate(_) | ManageError::NoRecipient)
        {
            return Ok(false);
        }
        let wait = error.retry_after().unwrap_or_default().min(LONGEST_WAIT).max(plan::retry_delay(due.attempt));
        let (id, known) = (due.request.certificate, due.newest);
        let failed = IssuanceFailed {
            certificate: id,
            attempt: due.attempt,
            problem: shortened(problem(error)),
            retry_at: clock::now().plus(wait),
            name: error.failed_name().cloned(),
        };
        self.record_for(StreamKind::Work, id, move |view| {
            let newest = view.catalog.newest(id).map(|version| version.fingerprint);
            let (wanted, overtaken) = (view.work.request(id).is_some(), newest.is_some() && newest != known);
            let failed = (wanted && !overtaken).then(|| Event::IssuanceFailed(failed.clone()));
            Ok((failed.into_iter().collect(), wanted && overtaken))
        })
        .await
    }

    /// Keeps that a CA takes no orders of the account for a while, for whoever would order next.
    pub(super) async fn note_limit(&self, ca: &str, error: &IssueError) {
        let IssueError::Problem(problem) = error else { return };
        let Some(wait) = problem.account_limit() else { return };
        let limited = AccountLimited { ca: ca.to_owned(), until: clock::now().plus(wait.min(LONGEST_WAIT)) };
        let scope = Scope::Record(format!("account:{ca}"));
        let kept = self.record_about(StreamKind::Work, scope, move |view| {
            let known = view.work.limited(&limited.ca, clock::now()).is_some();
            Ok((if known { Vec::new() } else { vec![Event::AccountLimited(limited.clone())] }, ()))
        });
        if let Err(unkept) = kept.await {
            tracing::warn!("that {ca} takes no orders could not be kept: {unkept}");
        }
    }
}

/// Whether nothing will come of an order any more. A chain that is not what was ordered may have been cut on its way, and
/// is fetched again before it is given up.
pub(super) fn is_spent(error: &IssueError, fetches: u32) -> bool {
    match error {
        IssueError::OrderInvalid { .. } | IssueError::ChallengeFailed { .. } | IssueError::OrderNotFound { .. } => true,
        IssueError::ChainMismatch { .. } => fetches >= FETCHES,
        _ => false,
    }
}

fn shortened(mut words: String) -> String {
    if let Some((cut, _)) = words.char_indices().nth(LONGEST_PROBLEM) {
        words.truncate(cut);
        words.push_str(" …");
    }
    words
}

/// What is kept on `work` of a failure: the words of the CA or of a server, but nothing that a user's program
/// or service said, which may be a secret.
fn problem(error: &ManageError) -> String {
    match error {
        ManageError::Issue(IssueError::Solver(SolverError::Hook { .. })) => {
            "the exec hook failed; what it printed is in the log output of the manager that ran it".into()
        }
        ManageError::Issue(IssueError::Solver(SolverError::HttpReq { .. })) => {
            "the httpreq service refused or is gone; what it said is in the log output of the manager that asked it"
                .into()
        }
        ManageError::Connect(error) => problem(error),
        ManageError::EveryCa(errors) => every_ca(errors, problem),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_users_program_printed_is_not_kept_on_work_whichever_ca_was_asked() {
        let hook = || {
            let (program, name, why) = ("/etc/hook".into(), "_acme-challenge.shop.example.".into(), "hush".into());
            ManageError::Issue(IssueError::Solver(SolverError::Hook { program, action: "present", name, why }))
        };
        let gone = ManageError::Connect(Arc::new(ManageError::Busy));
        for error in [hook(), ManageError::EveryCa(vec![("gone".into(), gone), ("other".into(), hook())])] {
            let kept = problem(&error);
            assert!(kept.contains("the exec hook failed") && !kept.contains("hush"), "{kept}");
        }
    }
}
