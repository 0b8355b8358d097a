//! From what was written to probes: lines from arguments, files and standard input, names to nodes, ports to protocols.
//! A line that is no target is told with its place, and the others go on.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;

use anyhow::{Context, Result};
use certbus_core::name::DnsName;
use certbus_scan::failure::Failure;
use certbus_scan::observation::Observation;
use certbus_scan::offer::{Hello, Keys, Version};
use certbus_scan::resolve::{Nodes, Resolver};
use certbus_scan::spec::{Hosts, Spec};
use certbus_scan::starttls::Starttls;
use certbus_scan::{Feed, Target};
use indicatif::ProgressBar;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use super::{Before, Sni, now, until_cancelled};
use crate::cli::output;

/// What was written, line by line, each with its place.
pub(super) struct Lines(Vec<Source>);

enum Source {
    Argument(String),
    Reader(String, Box<dyn BufRead + Send>),
}

/// No target is longer, whatever comment follows it.
const LONGEST_LINE: u64 = 64 * 1024;
/// Lines that are read ahead.
const LINES: usize = 256;

impl Lines {
    /// Opens what the arguments name: files are missed at once, not in the middle.
    pub(super) fn open(arguments: &[String]) -> Result<Self> {
        let open = |argument: &String| -> Result<Source> {
            if argument == "-" {
                return Ok(Source::Reader("standard input".into(), Box::new(BufReader::new(std::io::stdin()))));
            }
            let file = argument.strip_prefix('@').or((argument.starts_with(['.', '/'])).then_some(argument));
            match file {
                None => Ok(Source::Argument(argument.clone())),
                Some(file) => {
                    let opened = File::open(file).with_context(|| format!("targets from {file}"))?;
                    Ok(Source::Reader(file.to_owned(), Box::new(BufReader::new(opened))))
                }
            }
        };
        arguments.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// Each target with the words for its place, or what is wrong there. Empty lines and comments are passed over.
    fn each(self) -> impl Iterator<Item = (String, Result<String, String>)> + Send {
        self.0.into_iter().flat_map(|source| -> Box<dyn Iterator<Item = _> + Send> {
            match source {
                Source::Argument(text) => Box::new(std::iter::once((String::new(), Ok(text)))),
                Source::Reader(name, mut reader) => {
                    let mut broken = false;
                    let lines = std::iter::from_fn(move || if broken { None } else { line(&mut reader, &mut broken) });
                    Box::new(lines.enumerate().filter_map(move |(number, line)| {
                        let text = line.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
                        let is_target = text.as_ref().map_or(true, |text| !text.is_empty());
                        is_target.then(|| (format!("{name}, line {}: ", number + 1), text))
                    }))
                }
            }
        })
    }
}

/// The next line, or what is wrong with it; None at the end. `broken`: the reader failed, and will again.
fn line(reader: &mut impl BufRead, broken: &mut bool) -> Option<Result<String, String>> {
    let mut bytes = Vec::new();
    let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut bytes).and_then(|count| {
        let is_cut = count as u64 == LONGEST_LINE && !bytes.ends_with(b"\n");
        if is_cut { reader.skip_until(b'\n').map(|_| None) } else { Ok(Some(count)) }
    });
    match read {
        Ok(Some(0)) => None,
        Ok(Some(_)) => {
            Some(String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8; write a name or an address".into()))
        }
        Ok(None) => Some(Err(format!("it is longer than {LONGEST_LINE} bytes; write one target a line"))),
        Err(error) => {
            *broken = true;
            Some(Err(error.to_string()))
        }
    }
}

/// The hellos to make of each node.
pub(super) fn hellos(versions: bool, each_key: bool) -> Vec<Hello> {
    let keys: &[Keys] = if each_key { &[Keys::Ecdsa, Keys::Rsa] } else { &[Keys::Any] };
    let ranges: Vec<(Version, Version)> = match versions {
        true => Version::ALL.iter().map(|version| (*version, *version)).collect(),
        false => vec![(Version::Tls10, Version::Tls13)],
    };
    let hello = |keys: &Keys| {
        let keys = *keys;
        ranges.iter().map(move |(lowest, highest)| Hello { lowest: *lowest, highest: *highest, keys })
    };
    keys.iter().flat_map(hello).collect()
}

/// Turns lines into probes, as fast as the scan takes them.
#[derive(Clone)]
pub(super) struct Feeder {
    pub(super) starttls: Option<Before>,
    pub(super) sni: Option<Sni>,
    pub(super) port: u16,
    pub(super) hellos: Vec<Hello>,
    pub(super) resolver: Result<Resolver, Failure>,
    /// Names looked up at a time.
    pub(super) look_ups: usize,
    pub(super) targets: Feed,
    pub(super) failed: Sender<Observation>,
    pub(super) bar: ProgressBar,
    pub(super) cancel: Arc<AtomicBool>,
}

/// What is known of whom a node belongs to.
#[derive(Clone, Copy)]
struct Host<'a> {
    written: &'a Arc<str>,
    name: Option<&'a DnsName>,
    /// Which of A and AAAA was not answered, and why.
    unanswered: &'a Option<Arc<str>>,
}

impl Feeder {
    /// Feeds everything. Returns how many lines were no targets.
    pub(super) async fn feed(self, lines: Lines) -> usize {
        let (send, mut read) = tokio::sync::mpsc::channel(LINES);
        // Standard input may keep its reader waiting for ever.
        std::thread::spawn(move || lines.each().try_for_each(|line| send.blocking_send(line)));
        let mut some = Vec::with_capacity(LINES);
        let mut bad = 0;
        let mut look_ups = JoinSet::new();
        while until_cancelled(&self.cancel, read.recv_many(&mut some, LINES)).await.is_some_and(|count| count > 0) {
            for (place, line) in some.drain(..) {
                match line.and_then(|line| Spec::parse(&line).map_err(|error| error.to_string())) {
                    Ok(spec) => self.spec(spec, &mut look_ups).await,
                    Err(error) => {
                        bad += 1;
                        self.bar.suspend(|| output::error(&format!("{place}{error}")));
                    }
                }
            }
        }
        while until_cancelled(&self.cancel, look_ups.join_next()).await.flatten().is_some() {}
        look_ups.abort_all();
        bad
    }

    async fn spec(&self, spec: Spec, look_ups: &mut JoinSet<()>) {
        self.bar.inc_length(spec.count() * self.hellos.len() as u64);
        let Hosts::Name(name) = &spec.hosts else { return self.addresses(&spec).await };
        while look_ups.len() >= self.look_ups {
            if until_cancelled(&self.cancel, look_ups.join_next()).await.is_none() {
                return;
            }
        }
        let (feeder, name) = (self.clone(), name.clone());
        look_ups.spawn(async move { feeder.name(&spec, &name).await });
    }

    async fn name(&self, spec: &Spec, name: &DnsName) {
        let resolver = self.resolver.as_ref().map_err(Clone::clone);
        let nodes = match resolver {
            Ok(resolver) => resolver.nodes(name).await,
            Err(failure) => Err(failure),
        };
        match nodes {
            Ok(Nodes { addresses, unanswered }) => {
                if let Some(why) = &unanswered {
                    self.bar.suspend(|| output::remark(output::plain(&format!("{name}: nodes may be missing: {why}"))));
                }
                let more = (addresses.len() as u64 - 1) * spec.count() * self.hellos.len() as u64;
                self.bar.inc_length(more);
                let (host, unanswered) = (name.as_str().into(), unanswered.map(Into::into));
                for address in addresses {
                    self.node(spec, Host { written: &host, name: Some(name), unanswered: &unanswered }, address).await;
                }
            }
            Err(failure) => {
                for port in spec.each_port(self.usual_port()) {
                    for hello in &self.hellos {
                        let one = Observation::unresolved(now(), name, port, hello, failure.clone());
                        if self.failed.send(one).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn addresses(&self, spec: &Spec) {
        for address in spec.hosts.addresses() {
            let host = Host { written: &address.to_string().into(), name: None, unanswered: &None };
            self.node(spec, host, address).await;
            if self.cancel.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn node(&self, spec: &Spec, host: Host<'_>, address: IpAddr) {
        for port in spec.each_port(self.usual_port()) {
            for hello in &self.hellos {
                let server_name = match &self.sni {
                    None => host.name.cloned(),
                    Some(Sni::Nothing) => None,
                    Some(Sni::Name(name)) => Some(name.clone()),
                };
                let starttls = spec.starttls.or(match self.starttls {
                    None => Starttls::of_port(port),
                    Some(Before::Nothing) => None,
                    Some(Before::Protocol(protocol)) => Some(protocol),
                });
                self.send(Target {
                    host: host.written.clone(),
                    address,
                    port,
                    server_name,
                    starttls,
                    hello: *hello,
                    unanswered: host.unanswered.clone(),
                })
                .await;
            }
        }
    }

    /// Waits while the scan has enough to do.
    async fn send(&self, mut target: Target) {
        loop {
            match self.targets.try_send(target) {
                Err(TrySendError::Full(back)) => target = back,
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            }
            tokio::time::sleep(Feed::FULL).await;
        }
    }

    fn usual_port(&self) -> u16 {
        match self.starttls {
            Some(Before::Protocol(protocol)) => protocol.port(),
            _ => self.port,
        }
    }
}
