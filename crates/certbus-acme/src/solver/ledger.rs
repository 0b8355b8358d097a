//! Who in this process still needs a response. CAs give several orders the same authorization, hence the same value:
//! it is removed only when the last of them is done. It sets nothing up itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::ca::PlannedChallenge;

/// One lock for each place, with what is kept of it: others of this process wait until a place is changed.
#[derive(Debug, Default)]
pub(crate) struct Places<T>(Mutex<HashMap<String, Arc<tokio::sync::Mutex<T>>>>);

/// How many orders need each response of one place.
#[derive(Debug, Default)]
pub(crate) struct Needs(HashMap<PlannedChallenge, usize>);

impl<T: Default> Places<T> {
    /// Waits for the others who change this place.
    pub(crate) async fn lock(&self, place: &str) -> OwnedMutexGuard<T> {
        let kept = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(place.to_owned()).or_default().clone()
        };
        kept.lock_owned().await
    }
}

impl Needs {
    /// One more needs the response. To be said before it is set up, so that giving up midway is cleaned up too.
    pub(crate) fn add(&mut self, response: &PlannedChallenge) {
        *self.0.entry(response.clone()).or_default() += 1;
    }

    /// One less needs it; true if nobody does, also if nobody ever said so (a process that ended set it up).
    pub(crate) fn drop_one(&mut self, response: &PlannedChallenge) -> bool {
        match self.0.get_mut(response) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                self.0.remove(response);
                true
            }
        }
    }
}
