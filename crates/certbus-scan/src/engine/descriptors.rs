//! How many connections the system lets a process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no connections: the log, standard streams, the event queue, the resolver's sockets.
const OTHERS: u64 = 64;
/// More than this are not asked for: every probe in flight costs memory, here and in the kernel.
const ENOUGH: u64 = 65_536;

/// Raises the limit of open files as far as the system allows, and gives the number of probes that fit in it.
pub fn most_in_flight() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let mut allowed = limit.current.unwrap_or(ENOUGH);
    if wanted > allowed && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok()
    {
        allowed = wanted;
    }
    usize::try_from(allowed.min(ENOUGH).saturating_sub(OTHERS)).unwrap_or(1).max(1)
}
