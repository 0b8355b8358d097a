//! How many open files a scan may have, and what it does with them: probes, look-ups of names, and what it fetches.

use super::fetch::MOST_CONNECTIONS;

/// What is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Probes in flight.
    pub(super) probes: usize,
    /// Names looked up for targets.
    pub(super) look_ups: usize,
    /// Certificates for which something is fetched: one address at a time for each.
    pub(super) fetching: usize,
}

/// Sockets of a look-up: A and AAAA are asked of two servers at a time, and of silent ones three times.
const LOOK_UP: usize = 12;
/// What is fetched looks up a server first, and then has no more than its few connections.
const FETCH: usize = LOOK_UP;
const _: () = assert!(MOST_CONNECTIONS <= FETCH);
/// So many look-ups have room beside the probes that the engine counts.
const FREE: usize = 5;
/// More are of no use.
const MOST_LOOK_UPS: usize = 128;
const MOST_FETCHING: usize = 256;

impl Room {
    /// Divides what the system allows for connections.
    pub(super) fn of(all: usize, fetches: bool) -> Self {
        let look_ups = (all / 4 / LOOK_UP).clamp(FREE, MOST_LOOK_UPS);
        let fetching = if fetches { (all / 4 / FETCH).clamp(1, MOST_FETCHING) } else { 0 };
        let taken = (look_ups - FREE) * LOOK_UP + fetching * FETCH;
        Self { probes: all.saturating_sub(taken).max(1), look_ups, fetching }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_done_at_a_time_has_its_descriptors() {
        for all in (1..4096).chain([65_472]) {
            let Room { probes, look_ups, fetching } = Room::of(all, true);
            let taken = probes + (look_ups - FREE) * LOOK_UP + fetching * FETCH;
            assert!(probes >= 1 && look_ups >= 1 && fetching >= 1, "{all}");
            assert!(taken <= all.max(1 + FETCH), "{all}: {taken}");
            assert!(probes >= all / 2 || all < 2 * FETCH, "{all}: {probes}");
        }
        assert_eq!(Room::of(960, false), Room { probes: 780, look_ups: 20, fetching: 0 });
        assert_eq!(Room::of(960, true), Room { probes: 540, look_ups: 20, fetching: 20 });
        assert_eq!(Room::of(26, false), Room { probes: 26, look_ups: 5, fetching: 0 });
        let most = Room { probes: 65_472 - 123 * 12 - 256 * 12, look_ups: 128, fetching: 256 };
        assert_eq!(Room::of(65_472, true), most);
    }
}
