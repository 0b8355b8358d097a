//! When a message that could not be delivered is tried again, and when it is given up.

use std::time::Duration;

use crate::time::Timestamp;

/// The first retry comes this much later, each further twice as much later as the one before …
const FIRST: Duration = Duration::from_secs(10);

/// … but never later than this.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// A destination that does not answer has this long to come back; then its oldest message is given up.
pub const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// A message that is refused for what it is itself is tried so often, since those behind it wait.
pub const REFUSED: u32 = 3;

/// When attempt number `attempt` (1, 2 …) of a message of `written` failed at `now`: when to try again. None: given up.
/// `refused`: the destination is well, and does not want this message.
pub fn retry_at(attempt: u32, refused: bool, written: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if (refused && attempt >= REFUSED) || now.since(written) >= KEPT {
        return None;
    }
    let wait = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10));
    Some(now.plus(wait.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_hangs_is_asked_ever_more_rarely_and_for_a_week() {
        let now = Timestamp::parse("2026-11-22").unwrap();
        let wait = |attempt| retry_at(attempt, false, now, now).map(|at| at.since(now).as_secs());
        assert_eq!([1, 2, 3, 7, 1000].map(wait), [Some(10), Some(20), Some(40), Some(600), Some(600)]);
        assert_eq!(retry_at(1000, false, now, now.plus(KEPT)), None);
    }

    #[test]
    fn a_message_that_is_refused_holds_those_behind_it_up_for_three_attempts() {
        let now = Timestamp::parse("2026-11-22").unwrap();
        assert!(retry_at(2, true, now, now).is_some());
        assert_eq!(retry_at(3, true, now, now), None);
    }
}
