//! Asks endpoints for their certificates: every node of each, as the prober does it, with its result in the inventory's
//! words. It stores nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certbus_core::endpoint::{Endpoint, Host, Key};
use certbus_core::name::DnsName;
use certbus_core::starttls::Starttls;
use certbus_core::time::Timestamp;
use certbus_scan::failure::Failure;
use certbus_scan::found::Proof;
use certbus_scan::observation::Observation;
use certbus_scan::offer::Hello;
use certbus_scan::resolve::{Nodes, Resolver};
use certbus_scan::ways::Learnt;
use certbus_scan::{Options, Target, feed, scan};
use certbus_store::observations::{Failed, Look, Poll};
use futures::StreamExt;

/// Names looked up at a time.
const LOOK_UPS: usize = 64;

/// How long one may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Makes polls from one site. What it learns of servers it knows the next time.
#[derive(Clone)]
pub struct Poller {
    site: String,
    resolver: Result<Resolver, Failure>,
    options: Options,
    learnt: Arc<Mutex<Learnt>>,
}

/// What tells the answers of one endpoint from another's.
type Asked = (SocketAddr, Option<DnsName>, Option<Starttls>);

impl Poller {
    /// From `site`, with this machine's resolver.
    pub fn new(site: &str) -> Self {
        let options = Options { proof: Proof::Signed, ..Options::default() };
        Self { site: site.to_owned(), resolver: Resolver::system(LOOK_UP), options, learnt: Arc::default() }
    }

    /// Polls endpoints; each begins at `now`. What a node answers to one endpoint it answers to all that ask the same.
    ///
    /// # Errors
    /// Words, if not every node could be asked: for want of this machine, not of a node.
    pub async fn poll(&self, endpoints: &[(i64, Endpoint)], now: Timestamp) -> Result<Vec<Poll>, String> {
        let look_ups: Vec<_> =
            endpoints.iter().map(|(id, endpoint)| self.clone().look_up(*id, endpoint.key.clone())).collect();
        let nodes: Vec<_> = futures::stream::iter(look_ups).buffer_unordered(LOOK_UPS).collect().await;
        let mut polls: HashMap<i64, Poll> = HashMap::new();
        let mut asked: HashMap<Asked, Vec<i64>> = HashMap::new();
        for (id, key, nodes) in nodes {
            let poll = polls.entry(id).or_insert(Poll {
                endpoint: id,
                site: self.site.clone(),
                at: now,
                looks: Vec::new(),
                whole: true,
            });
            match nodes {
                Err(failure) => poll.looks.push(look(None, "dns", Err(&failure))),
                Ok(nodes) => {
                    poll.whole &= nodes.unanswered.is_none();
                    for address in nodes.addresses {
                        let place = (SocketAddr::new(address, key.port), key.asked_for().cloned(), key.starttls);
                        asked.entry(place).or_default().push(id);
                    }
                }
            }
        }
        let targets: Vec<Target> = asked
            .keys()
            .map(|(address, name, starttls)| Target {
                host: name.as_ref().map_or_else(|| address.ip().to_string(), ToString::to_string).into(),
                address: address.ip(),
                port: address.port(),
                server_name: name.clone(),
                starttls: *starttls,
                hello: Hello::ANY,
                unanswered: None,
            })
            .collect();
        let wanted = targets.len();
        let found = self.scan(targets).await?;
        if found.len() < wanted {
            return Err(format!(
                "only {} of {wanted} nodes were asked; the others are asked the next time",
                found.len()
            ));
        }
        for observation in found {
            let Some(address) = observation.address else { continue };
            let place =
                (SocketAddr::new(address, observation.port), observation.server_name.clone(), observation.starttls);
            for id in asked.get(&place).into_iter().flatten() {
                if let Some(poll) = polls.get_mut(id) {
                    poll.looks.push(seen(address, &observation));
                }
            }
        }
        let mut polls: Vec<Poll> = polls.into_values().filter(|poll| !poll.looks.is_empty()).collect();
        polls.sort_by_key(|poll| poll.endpoint);
        Ok(polls)
    }

    async fn look_up(self, id: i64, key: Key) -> (i64, Key, Result<Nodes, Failure>) {
        let nodes = match (&key.host, &self.resolver) {
            (Host::Address(address), _) => Ok(Nodes { addresses: vec![*address], unanswered: None }),
            (Host::Name(name), Ok(resolver)) => resolver.nodes(name).await,
            (Host::Name(_), Err(failure)) => Err(failure.clone()),
        };
        (id, key, nodes)
    }

    /// The engine blocks, so it has a thread of its own; if nobody waits for it any more it ends.
    async fn scan(&self, targets: Vec<Target>) -> Result<Vec<Observation>, String> {
        let (options, learnt) = (self.options, self.learnt.clone());
        let cancel = Arc::new(AtomicBool::new(false));
        let ends = Cancelled(cancel.clone());
        let scanned = tokio::task::spawn_blocking(move || {
            let (feed, receive) = feed(targets.len().max(1))?;
            // Several scans may be under way: each takes what is known of its servers, and gives back what it learnt.
            let servers = targets.iter().map(|target| SocketAddr::new(target.address, target.port));
            let mut known = learnt.lock().map(|learnt| learnt.some(servers)).unwrap_or_default();
            for target in targets {
                let _ = feed.send(target);
            }
            drop(feed);
            let mut found = Vec::new();
            scan(receive, &options, &mut known, &cancel, |observation| found.push(observation))?;
            if let Ok(mut learnt) = learnt.lock() {
                learnt.extend(known);
            }
            Ok::<_, std::io::Error>(found)
        });
        let found = scanned.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string());
        drop(ends);
        found
    }
}

struct Cancelled(Arc<AtomicBool>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An observation in the inventory's words.
pub fn seen(address: IpAddr, observation: &Observation) -> Look {
    let offered = observation.offer.versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let look_word = match observation.method {
        certbus_scan::observation::Look::Quick => "quick",
        certbus_scan::observation::Look::Full => "full",
    };
    let method = format!("{look_word} {offered}");
    let chain = observation.result.as_ref().map(|found| found.chain.iter().map(|one| one.to_vec()).collect());
    look(Some(address), &method, chain)
}

fn look(address: Option<IpAddr>, method: &str, outcome: Result<Vec<Vec<u8>>, &Failure>) -> Look {
    let outcome = outcome.map_err(|failure| Failed { kind: failure.kind().to_owned(), why: failure.to_string() });
    Look { address, method: method.to_owned(), outcome }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use certbus_core::endpoint::Written;

    use super::*;

    /// A name server on loopback that gives every name the address 127.0.0.1, and says to AAAA what this code says (RFC 1035
    /// section 4.1.1).
    fn names(code_for_six: u8) -> Resolver {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut asked = [0; 512];
            while let Ok((count, who)) = socket.recv_from(&mut asked) {
                let end = 12 + asked[12..count].iter().position(|byte| *byte == 0).unwrap() + 5;
                let four = asked[end - 4..end - 2] == [0, 1];
                let (code, answers) = if four { (0, 1) } else { (code_for_six, 0) };
                let header = [&asked[..2], &[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]].concat();
                let answer: &[u8] = if four { &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1] } else { &[] };
                socket.send_to(&[&header, &asked[12..end], answer].concat(), who).unwrap();
            }
        });
        Resolver::at(address, LOOK_UP).unwrap()
    }

    #[tokio::test]
    async fn a_poll_is_whole_only_if_all_nodes_of_the_name_are_known() {
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let written = Written { host: Some(format!("a.test:{closed}")), ..Written::default() };
        let endpoint = Endpoint::parse(&written).unwrap();
        for (code_for_six, whole) in [(0, true), (2, false)] {
            let poller = Poller { resolver: Ok(names(code_for_six)), ..Poller::new("here") };
            let polls = poller.poll(&[(1, endpoint.clone())], Timestamp::from_millis(0)).await.unwrap();
            let [Poll { looks, whole: was_whole, .. }] = &polls[..] else { panic!("{polls:?}") };
            assert_eq!((looks.len(), looks[0].address, *was_whole), (1, Some(Ipv4Addr::LOCALHOST.into()), whole));
        }
    }
}
