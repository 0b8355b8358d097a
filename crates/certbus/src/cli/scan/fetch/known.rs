//! What was fetched or is being fetched: each address once, in bounded time and memory. It does not know what it is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use certbus_scan::failure::Failure;
use certbus_scan::resolve::Resolver;
use certbus_scan::verdict::{List, certificates};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::http;
use super::reach::Reach;

/// What anybody holds, and what nobody does until room is short.
pub(super) struct Known {
    resolver: Result<Resolver, Failure>,
    /// Whether private addresses may be asked too.
    private: bool,
    lists: Answers<List>,
    issuers: Answers<Vec<CertificateDer<'static>>>,
    /// Bytes of all of it.
    held: Arc<AtomicUsize>,
    /// What takes the processor for long waits for its turn: the probes beside it have deadlines.
    turns: Semaphore,
}

/// By address, and for whom.
type Answers<T> = Mutex<HashMap<(String, Reach), Answer<T>>>;
type Answer<T> = Arc<OnceCell<Result<Arc<Held<T>>, String>>>;

/// Something fetched, and the room that it takes.
pub(super) struct Held<T> {
    what: T,
    _taken: Taken,
}

struct Taken {
    bytes: usize,
    held: Arc<AtomicUsize>,
}

/// For one address.
const WITHIN: Duration = Duration::from_secs(10);
/// Some 300,000 revoked certificates: lists of large CAs have as many.
const LARGEST_LIST: usize = MOST_HELD / 4;
const LARGEST_BUNDLE: usize = 256 * 1024;
/// All that is held at a time.
const MOST_HELD: usize = 256 * 1024 * 1024;
/// What is larger takes the processor for long.
const LARGE: usize = 256 * 1024;

impl Known {
    pub(super) fn new(resolver: Result<Resolver, Failure>, private: bool) -> Self {
        let turns = Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get));
        Self { resolver, private, lists: Answers::default(), issuers: Answers::default(), held: Arc::default(), turns }
    }

    /// The revocation list at an address.
    pub(super) async fn list(&self, url: &str, reach: Reach) -> Result<Arc<Held<List>>, String> {
        let read = |body: &[u8]| {
            let list = List::read(body, LARGEST_LIST)?;
            let takes = list.takes();
            Ok((list, takes))
        };
        self.get(&self.lists, url, reach, LARGEST_LIST, read).await
    }

    /// The certificates at an address.
    pub(super) async fn issuers(
        &self,
        url: &str,
        reach: Reach,
    ) -> Result<Arc<Held<Vec<CertificateDer<'static>>>>, String> {
        let read = |body: &[u8]| match certificates(body) {
            none if none.is_empty() => bail!("no certificate is there"),
            found => Ok((found, body.len())),
        };
        self.get(&self.issuers, url, reach, LARGEST_BUNDLE, read).await
    }

    /// Does what takes long if it is about so many bytes.
    pub(super) async fn at_length<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if bytes <= LARGE {
            return work();
        }
        let _turn = self.turns.acquire().await;
        tokio::task::block_in_place(work)
    }

    /// What stands at an address; who asks for the same waits for the same answer. `read` says what it is, and how many bytes
    /// that takes.
    async fn get<T>(
        &self,
        answers: &Answers<T>,
        url: &str,
        reach: Reach,
        largest: usize,
        read: impl FnOnce(&[u8]) -> Result<(T, usize)>,
    ) -> Result<Arc<Held<T>>, String> {
        let answer = {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry((url.to_owned(), reach)).or_default().clone()
        };
        let fetched = answer.get_or_init(async || {
            let fetched = async {
                let (body, mut taken) = self.fetch(url, reach, largest).await?;
                let (what, takes) = self.at_length(body.len(), || read(&body)).await?;
                drop(body);
                let more = takes.saturating_sub(taken.bytes);
                self.take(&mut taken, more)?;
                Ok(Arc::new(Held { what, _taken: taken }))
            };
            let fetched = timeout(WITHIN, fetched).await;
            fetched
                .map_err(|_| format!("no answer within {WITHIN:?}"))?
                .map_err(|error: anyhow::Error| format!("{error:#}"))
        });
        fetched.await.clone()
    }

    async fn fetch(&self, url: &str, reach: Reach, largest: usize) -> Result<(Vec<u8>, Taken)> {
        let (mut body, mut taken) = (Vec::new(), Taken { bytes: 0, held: self.held.clone() });
        let refuse = |address: IpAddr| reach.refuses(address, self.private);
        let take = |part: &[u8]| {
            ensure!(body.len() + part.len() <= largest, "more than {largest} bytes");
            self.take(&mut taken, part.len())?;
            body.extend_from_slice(part);
            Ok(())
        };
        http::get(url, &self.resolver, refuse, take).await?;
        Ok((body, taken))
    }

    /// Takes so many bytes more. If they are too many, what nobody uses is let go.
    fn take(&self, taken: &mut Taken, more: usize) -> Result<()> {
        taken.bytes += more;
        if self.held.fetch_add(more, Ordering::Relaxed) + more > MOST_HELD {
            self.lists.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.issuers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        ensure!(self.held.load(Ordering::Relaxed) <= MOST_HELD, "too much is fetched at the same time");
        Ok(())
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_of_the_largest_lists_fit_beside_each_other_and_what_is_let_go_makes_room() {
        let known = Known::new(Err(Failure::Dns { why: String::new() }), false);
        let none = || Taken { bytes: 0, held: known.held.clone() };
        let mut lists = [none(), none(), none(), none()];
        for list in &mut lists {
            known.take(list, LARGEST_LIST).unwrap();
        }
        assert_eq!(known.take(&mut none(), 1).unwrap_err().to_string(), "too much is fetched at the same time");
        drop(lists);
        known.take(&mut none(), LARGEST_LIST).unwrap();
    }
}
