//! When an endpoint is polled: a pure decision of what is known of it and `now`.

use std::time::Duration;

use crate::time::Timestamp;

/// As often as usual.
pub const USUAL_INTERVAL: Duration = Duration::from_secs(3600);

/// As often when its certificate lives shortly, or somebody should have renewed it.
pub const CLOSE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Lives under this are short.
pub const SHORT_LIFE: Duration = Duration::from_secs(10 * 86_400);

/// How long after one poll the next is to come: as a person said, else by the life of what is served and whether it is
/// overdue.
pub fn interval(said: Option<Duration>, life: Option<Duration>, overdue: bool) -> Duration {
    let close = overdue || life.is_some_and(|life| life < SHORT_LIFE);
    said.unwrap_or(if close { CLOSE_INTERVAL } else { USUAL_INTERVAL })
}

/// So many endpoints in a row are polled at one moment: what is written of neighbours shares pages of the disk.
const NEIGHBOURS: i64 = 16;

/// The first of the endpoint's own moments after `now`. They lie `interval` apart, and those of other than its neighbours
/// lie elsewhere within it, so that a fleet is polled evenly whatever it was added with, and a late poll does not move those
/// after it.
pub fn next_poll(endpoint: i64, site: &str, interval: Duration, now: Timestamp) -> Timestamp {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let phase = i64::from_ne_bytes(mixed(endpoint.div_euclid(NEIGHBOURS), site).to_ne_bytes()).rem_euclid(interval);
    let since = (now.millis() - phase).rem_euclid(interval);
    Timestamp::from_millis(now.millis() - since + interval)
}

/// Spreads numbers in a row over all numbers (the finalizer of SplitMix64), and sites apart.
fn mixed(endpoint: i64, site: &str) -> u64 {
    let site =
        site.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut z = u64::from_ne_bytes(endpoint.to_ne_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ site;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_and_overdue_ones_are_polled_closely_unless_a_person_says_how_often() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(interval(None, None, false), USUAL_INTERVAL);
        assert_eq!(interval(None, days(90), false), USUAL_INTERVAL);
        assert_eq!(interval(None, days(6), false), CLOSE_INTERVAL);
        assert_eq!(interval(None, days(90), true), CLOSE_INTERVAL);
        assert_eq!(interval(Some(Duration::from_secs(60)), days(6), true), Duration::from_secs(60));
    }

    #[test]
    fn moments_are_an_interval_apart_later_than_now_and_spread_evenly() {
        let now = Timestamp::parse("2026-11-22T10:20:30Z").unwrap();
        let mut minutes = [0_u32; 60];
        for endpoint in 0..1_000_000 {
            let first = next_poll(endpoint, "default", USUAL_INTERVAL, now);
            assert!(first > now && first <= now.plus(USUAL_INTERVAL));
            let late = first.plus(Duration::from_secs(1234));
            assert_eq!(next_poll(endpoint, "default", USUAL_INTERVAL, late), first.plus(USUAL_INTERVAL));
            assert_eq!(next_poll(endpoint, "default", USUAL_INTERVAL, first), first.plus(USUAL_INTERVAL));
            minutes[(first.since(now).as_secs() / 60).min(59) as usize] += 1;
        }
        let (least, most) = (minutes.iter().min().unwrap(), minutes.iter().max().unwrap());
        assert!(*least > 14_000 && *most < 20_000, "{minutes:?}");
        assert_ne!(next_poll(1, "a", USUAL_INTERVAL, now), next_poll(1, "b", USUAL_INTERVAL, now));
    }
}
