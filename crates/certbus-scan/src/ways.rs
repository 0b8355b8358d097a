//! Which way comes first, and which after a failure: pure decisions, and what was learnt of hosts. It opens no connection.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::conversation::Way;
use crate::failure::{Failure, Phase};
use crate::found::Proof;
use crate::offer::{Hello, Version};

/// Which ways may be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The quick look, and where it shows nothing, the full way.
    #[default]
    Auto,
    /// Only the quick look.
    Quick,
    /// Only the full way.
    Full,
}

/// Which way worked where the first did not, for a bounded number of servers.
#[derive(Debug, Default)]
pub struct Learnt(HashMap<SocketAddr, Way>);

/// Of more servers nothing is remembered: 4 MB.
const MOST_LEARNT: usize = 65_536;

impl Learnt {
    /// What worked there.
    pub fn of(&self, server: SocketAddr) -> Option<Way> {
        if self.0.is_empty() { None } else { self.0.get(&server).copied() }
    }

    /// What worked at some servers: to be had by one scan of many.
    pub fn some(&self, servers: impl Iterator<Item = SocketAddr>) -> Self {
        Self(servers.filter_map(|server| Some((server, self.of(server)?))).collect())
    }

    /// Remembers also what another learnt.
    pub fn extend(&mut self, other: Self) {
        other.0.into_iter().for_each(|(server, way)| self.learn(server, way));
    }

    /// Remembers what worked.
    pub fn learn(&mut self, server: SocketAddr, way: Way) {
        if self.0.len() >= MOST_LEARNT {
            self.0.clear();
        }
        self.0.insert(server, way);
    }
}

/// The way that comes first. One hello for all versions comes before the one for old ones: it costs 1.4 times as much of this
/// side's CPU, shows what the server chooses when it may, and needs one connection whatever the server speaks.
pub fn first(method: Method, proof: Proof, hello: Hello, learnt: Option<Way>) -> Way {
    let possible = |way: &Way| allowed(method, *way) && fits(*way, hello);
    match learnt.filter(possible) {
        _ if method == Method::Full || proof == Proof::Finished => Way::Full,
        Some(way) => way,
        None if fits(Way::Combined, hello) => Way::Combined,
        None => Way::Clear,
    }
}

/// The way that comes next, if another may see more than those that failed.
pub fn next(method: Method, tried: &[Way], hello: Hello, failure: &Failure) -> Option<Way> {
    let another_hello_may_help = match failure {
        Failure::Alert { .. } | Failure::Incompatible { .. } => true,
        Failure::Reset { phase } | Failure::Closed { phase } => *phase == Phase::Handshake,
        _ => false,
    };
    if !another_hello_may_help {
        return None;
    }
    let possible = |way: &Way| allowed(method, *way) && fits(*way, hello) && !tried.contains(way);
    [Way::Combined, Way::Full, Way::Clear].into_iter().find(possible)
}

fn allowed(method: Method, way: Way) -> bool {
    match method {
        Method::Auto => true,
        Method::Quick => way != Way::Full,
        Method::Full => way == Way::Full,
    }
}

/// Whether a way offers any version of the hello, and none that another offers more cheaply.
fn fits(way: Way, hello: Hello) -> bool {
    match way {
        Way::Clear => hello.lowest <= Version::Tls12,
        Way::Combined => hello.highest == Version::Tls13,
        Way::Full => hello.highest >= Version::Tls12,
    }
}
