//! How targets come to the engine: a channel, and a bell that is rung only where the engine sleeps. It looks at no target.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use mio::{Poll, Token, Waker};

use super::Target;

/// Gives targets to a scan. When the last of its clones is gone, no more can come.
#[derive(Clone)]
pub struct Feed {
    // Dropped in this order: who is woken finds the channel closed.
    channel: SyncSender<Target>,
    bell: Ringer,
}

/// The targets of a scan, as it takes them.
pub struct Targets {
    channel: Receiver<Target>,
    bell: Arc<Bell>,
    /// The scan's event queue: the bell wakes it.
    pub(super) poll: Poll,
}

struct Bell {
    asleep: AtomicBool,
    waker: Waker,
}

struct Ringer(Arc<Bell>);

/// The token of the bell. No connection has it.
const BELL: Token = Token(usize::MAX);

/// A way for targets to a scan, with room for so many that wait.
///
/// # Errors
/// If the system gives no event queue.
pub fn feed(room: usize) -> io::Result<(Feed, Targets)> {
    let poll = Poll::new()?;
    let bell = Arc::new(Bell { asleep: AtomicBool::new(false), waker: Waker::new(poll.registry(), BELL)? });
    // One without room would wait for a reader that never waits.
    let (send, channel) = sync_channel(room.max(1));
    Ok((Feed { channel: send, bell: Ringer(bell.clone()) }, Targets { channel, bell, poll }))
}

impl Feed {
    /// How long to wait where there is no room: many places are free then.
    pub const FULL: Duration = Duration::from_millis(1);

    /// Waits for room, and gives a target. False: the scan has ended.
    pub fn send(&self, mut target: Target) -> bool {
        loop {
            match self.try_send(target) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                // Who were woken for each place that is free would wake and sleep for each target.
                Err(TrySendError::Full(back)) => target = back,
            }
            std::thread::sleep(Self::FULL);
        }
    }

    /// Gives a target if there is room.
    ///
    /// # Errors
    /// With the target, if there is none, or the scan has ended.
    pub fn try_send(&self, target: Target) -> Result<(), TrySendError<Target>> {
        self.channel.try_send(target)?;
        self.bell.ring();
        Ok(())
    }
}

impl Targets {
    pub(super) fn take(&self) -> Result<Target, TryRecvError> {
        self.channel.try_recv()
    }

    /// From now on a target that comes ends the engine's sleep. One that came before must be looked for after this.
    pub(super) fn falls_asleep(&self) {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn is_awake(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }
}

impl Ringer {
    /// Called after something came: either the engine sees it before it sleeps, or this sees that it sleeps.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::Relaxed) {
            // Should it fail, the engine looks around by itself soon.
            let _ = self.0.waker.wake();
        }
    }
}

impl Clone for Ringer {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Ringer {
    fn drop(&mut self) {
        self.ring();
    }
}
