//! When the CA is asked whether an order has come further: about when its last orders had. One order asks soon; of many at
//! once none asks in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No order waits longer before it asks.
const LONGEST: Duration = Duration::from_secs(2);

/// How long a step lately took, in milliseconds: a quarter of it is the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<AtomicU64>);

impl Pace {
    /// How long to wait before asking for the first time.
    pub(crate) fn first(&self) -> Duration {
        // Somewhat sooner than lately: else it would never be found that it goes faster now.
        Duration::from_millis(self.0.load(Ordering::Relaxed) * 3 / 4).min(LONGEST)
    }

    /// A step took so long.
    pub(crate) fn took(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(10_000);
        let before = self.0.load(Ordering::Relaxed);
        self.0.store((before * 3 + time) / 4, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_follows_how_long_it_took_lately_and_never_waits_long() {
        let pace = Pace::default();
        assert_eq!(pace.first(), Duration::ZERO);
        (0..20).for_each(|_| pace.took(Duration::from_secs(1)));
        assert!((600..=750).contains(&pace.first().as_millis()), "{:?}", pace.first());
        (0..20).for_each(|_| pace.took(Duration::from_secs(3600)));
        assert_eq!(pace.first(), LONGEST);
        (0..120).for_each(|_| pace.took(pace.first() + Duration::from_millis(10)));
        assert!(pace.first() < Duration::from_millis(100), "it finds back: {:?}", pace.first());
    }
}
