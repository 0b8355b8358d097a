//! A watch of an engine that wakes nobody: it is read again and again, soon after something came and more rarely when nothing
//! does.

use std::time::Duration;

use certbus_core::id::Cursor;
use futures::stream::{BoxStream, StreamExt};
use tokio::time::sleep;

use crate::log::{EventLog, LogError, Page};

/// How long is waited after an error.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often is looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// After something came.
    pub(crate) soonest: Duration,
    /// When nothing came for long.
    pub(crate) latest: Duration,
}

impl Pace {
    /// The pause after one in which nothing came.
    fn longer(self, pause: Duration) -> Duration {
        (pause + pause / 4).min(self.latest)
    }
}

/// Pages after `after`, without end. `read` is never stale.
pub(crate) fn watch(
    log: impl EventLog + 'static,
    after: Cursor,
    pace: Pace,
) -> BoxStream<'static, Result<Page, LogError>> {
    async_stream::stream! {
        let (mut after, mut pause) = (after, pace.soonest);
        loop {
            match log.read(after, usize::MAX).await {
                Ok(page) => match page.batches.last() {
                    Some(last) => {
                        (after, pause) = (last.cursor(), pace.soonest);
                        yield Ok(page);
                    }
                    None => {
                        sleep(pause).await;
                        pause = pace.longer(pause);
                    }
                },
                Err(error) => {
                    yield Err(error);
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }
    .boxed()
}
