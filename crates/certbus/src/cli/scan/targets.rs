//! From what was written to probes: lines from arguments, files and standard input, names to nodes, ports to protocols.
//! A line that is no target is told with its place, and the others go on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use anyhow::{Context, Result};
use certbus_core::name::DnsName;
use certbus_scan::failure::Failure;
use certbus_scan::observation::Observation;
use certbus_scan::offer::{Hello, Keys, Version};
use certbus_scan::resolve::Resolver;
use certbus_scan::spec::{Hosts, Spec};
use certbus_scan::starttls::Starttls;
use certbus_scan::{Feed, Target};
use indicatif::ProgressBar;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use super::{Before, Sni, now};
use crate::cli::output;

/// What was written, line by line, each with its place.
pub(super) struct Lines(Vec<Source>);

enum Source {
    Argument(String),
    Reader(String, Box<dyn BufRead + Send>),
}

/// How often it is looked whether the scan is cancelled.
const LOOK_FOR_CANCEL: std::time::Duration = std::time::Duration::from_millis(100);

/// Names looked up at a time.
const LOOK_UPS: usize = 128;

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

    /// Each target with the words for its place. Empty lines and comments are passed over.
    fn each(self) -> impl Iterator<Item = (String, std::io::Result<String>)> + Send {
        self.0.into_iter().flat_map(|source| -> Box<dyn Iterator<Item = _> + Send> {
            match source {
                Source::Argument(text) => Box::new(std::iter::once((String::new(), Ok(text)))),
                Source::Reader(name, reader) => {
                    // A reader that fails otherwise than by a line of wrong bytes fails for ever.
                    let mut failed = false;
                    let lines = reader.lines().take_while(move |line| {
                        let again = failed;
                        failed |= line.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::InvalidData);
                        !again
                    });
                    Box::new(lines.enumerate().filter_map(move |(number, line)| {
                        let place = format!("{name}, line {}: ", number + 1);
                        match line {
                            Ok(line) => {
                                let text = line.split('#').next().unwrap_or_default().trim();
                                (!text.is_empty()).then(|| (place, Ok(text.to_owned())))
                            }
                            Err(error) => Some((place, Err(error))),
                        }
                    }))
                }
            }
        })
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
    pub(super) targets: Feed,
    pub(super) failed: Sender<Observation>,
    pub(super) bar: ProgressBar,
    pub(super) cancel: Arc<AtomicBool>,
}

impl Feeder {
    /// Feeds everything. Returns how many lines were no targets.
    pub(super) async fn feed(self, lines: Lines) -> usize {
        let (send, mut specs) = tokio::sync::mpsc::channel(64);
        // Standard input may keep its reader waiting for ever.
        std::thread::spawn(move || lines.each().try_for_each(|line| send.blocking_send(line)));
        let mut bad = 0;
        let mut look_ups = JoinSet::new();
        while let Some((place, line)) = self.until_cancelled(specs.recv()).await.flatten() {
            let spec = line
                .map_err(|error| error.to_string())
                .and_then(|line| Spec::parse(&line).map_err(|error| error.to_string()));
            match spec {
                Ok(spec) => {
                    self.bar.inc_length(spec.count() * self.hellos.len() as u64);
                    while look_ups.len() >= LOOK_UPS {
                        look_ups.join_next().await;
                    }
                    let feeder = self.clone();
                    match &spec.hosts {
                        Hosts::Name(name) => {
                            let name = name.clone();
                            look_ups.spawn(async move { feeder.name(&spec, &name).await });
                        }
                        Hosts::Addresses(..) => feeder.addresses(&spec).await,
                    }
                }
                Err(error) => {
                    bad += 1;
                    self.bar.suspend(|| output::error(&format!("{place}{error}")));
                }
            }
        }
        while self.until_cancelled(look_ups.join_next()).await.flatten().is_some() {}
        look_ups.abort_all();
        bad
    }

    /// What comes, unless the scan is cancelled first.
    async fn until_cancelled<T>(&self, coming: impl Future<Output = T>) -> Option<T> {
        let mut coming = std::pin::pin!(coming);
        while !self.cancel.load(Ordering::Relaxed) {
            tokio::select! {
                come = &mut coming => return Some(come),
                () = tokio::time::sleep(LOOK_FOR_CANCEL) => {}
            }
        }
        None
    }

    async fn name(&self, spec: &Spec, name: &DnsName) {
        let resolver = self.resolver.as_ref().map_err(Clone::clone);
        let nodes = match resolver {
            Ok(resolver) => resolver.nodes(name).await,
            Err(failure) => Err(failure),
        };
        match nodes {
            Ok(nodes) => {
                let more = (nodes.len() as u64 - 1) * spec.count() * self.hellos.len() as u64;
                self.bar.inc_length(more);
                for node in nodes {
                    self.node(spec, name.as_str().into(), Some(name), node).await;
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
            self.node(spec, address.to_string().into(), None, address).await;
            if self.cancel.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn node(&self, spec: &Spec, host: Arc<str>, name: Option<&DnsName>, address: IpAddr) {
        for port in spec.each_port(self.usual_port()) {
            for hello in &self.hellos {
                let server_name = match &self.sni {
                    None => name.cloned(),
                    Some(Sni::Nothing) => None,
                    Some(Sni::Name(name)) => Some(name.clone()),
                };
                let starttls = spec.starttls.or(match self.starttls {
                    None => Starttls::of_port(port),
                    Some(Before::Nothing) => None,
                    Some(Before::Protocol(protocol)) => Some(protocol),
                });
                let target = Target { host: host.clone(), address, port, server_name, starttls, hello: *hello };
                self.send(target).await;
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
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn usual_port(&self) -> u16 {
        match self.starttls {
            Some(Before::Protocol(protocol)) => protocol.port(),
            _ => self.port,
        }
    }
}
