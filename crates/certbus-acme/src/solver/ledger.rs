//! Who in this process still needs a response. CAs give several orders the same authorization, hence the same value:
//! it is removed only when the last of them is done. It sets nothing up itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Counts of responses, by zone or other place. Locking a place keeps others of this process from changing it.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Needs>>>>);

/// How many orders need each response of one place.
#[derive(Debug, Default)]
pub(crate) struct Needs(HashMap<(String, String), usize>);

impl Ledger {
    /// Waits for the others who change this place.
    pub(crate) async fn lock(&self, place: &str) -> OwnedMutexGuard<Needs> {
        let needs = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(place.to_owned()).or_default().clone()
        };
        needs.lock_owned().await
    }
}

impl Needs {
    /// One more needs the response. To be said before it is set up, so that giving up midway is cleaned up too.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        *self.0.entry((name.to_owned(), value.to_owned())).or_default() += 1;
    }

    /// One less needs it; true if nobody does, also if nobody ever said so (a process that ended set it up).
    pub(crate) fn drop_one(&mut self, name: &str, value: &str) -> bool {
        let key = (name.to_owned(), value.to_owned());
        match self.0.get_mut(&key) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                self.0.remove(&key);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_that_two_orders_need_is_removed_after_the_second() {
        let ledger = Ledger::default();
        let mut zone = ledger.lock("example.com.").await;
        zone.add("_acme-challenge.example.com.", "a");
        zone.add("_acme-challenge.example.com.", "a");
        assert!(!zone.drop_one("_acme-challenge.example.com.", "a"));
        assert!(zone.drop_one("_acme-challenge.example.com.", "a"));
        assert!(zone.drop_one("_acme-challenge.example.com.", "left by another process"));
    }
}
