//! What a scan prints: JSON lines as they come, or a table that grows soon after, and what it all came to.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::time::Duration;

use certbus_scan::failure::{Failure, Phase};
use certbus_scan::found::{Found, Proof};
use certbus_scan::observation::Observation;
use certbus_scan::offer::Version;
use certbus_scan::verdict::{Revocation, Verdict};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::output::{self, Columns};

pub(super) struct Report {
    json: bool,
    versions: bool,
    each_key: bool,
    bar: ProgressBar,
    /// JSON lines that are not printed yet.
    lines: Vec<u8>,
    /// Rows that are not printed yet, and whether there is nobody to tell of.
    rows: Vec<(bool, Vec<String>)>,
    /// When the first of them came.
    since: Option<Instant>,
    columns: Columns,
    /// Nodes of which some versions are still out, where each version is asked for by itself.
    partial: HashMap<Node, Partial>,
    /// Addresses of a large scan where nobody is: counted, not listed.
    unlisted: usize,
    found: usize,
    /// Failures, by kind.
    failed: BTreeMap<&'static str, usize>,
    problems: usize,
    failing: usize,
}

/// An endpoint's node, and whether ECDSA and whether RSA was asked of it.
type Node = (String, Option<IpAddr>, u16, bool, bool);

#[derive(Default)]
struct Partial {
    spoken: Vec<Version>,
    missing: usize,
    best: Option<(Observation, Option<Verdict>)>,
}

/// An observation with its verdict, as JSON has them.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    seen: &'a Observation,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a Verdict>,
}

/// Rows that are printed together: so that columns fit, as many as come soon after each other, but not for ever.
const BLOCK: usize = 500;
const SOON: Duration = Duration::from_millis(300);
/// Of scans up to this size everything is listed.
const FEW: u64 = 64;
const HEADING: [&str; 7] = ["target", "node", "certificate for", "key", "tls", "left", "verdict"];

impl Report {
    pub(super) fn new(json: bool, versions: bool, each_key: bool, bar: ProgressBar) -> Self {
        let (rows, partial, failed) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Self {
            json,
            versions,
            each_key,
            bar,
            lines: Vec::new(),
            rows,
            since: None,
            columns: Columns::new(&HEADING),
            partial,
            unlisted: 0,
            found: 0,
            failed,
            problems: 0,
            failing: 0,
        }
    }

    /// Takes one result. `hit`: `--fail-on` applies to it.
    pub(super) fn take(&mut self, seen: Observation, verdict: Option<Verdict>, hit: bool) {
        self.failing += usize::from(hit);
        match &seen.result {
            Ok(_) => self.found += 1,
            Err(failure) => *self.failed.entry(failure.kind()).or_default() += 1,
        }
        self.problems += usize::from(verdict.as_ref().is_some_and(|verdict| !verdict.problems.is_empty()));
        if self.json {
            let line = Line { seen: &seen, verdict: verdict.as_ref() };
            // Writing to memory does not fail, and neither do these types.
            if serde_json::to_writer(&mut self.lines, &line).is_ok() {
                self.lines.push(b'\n');
            }
        } else if self.versions {
            self.join(seen, verdict);
        } else {
            let spoken = seen.result.as_ref().map_or(String::new(), |found| found.version.to_string());
            self.row(&seen, verdict.as_ref(), spoken);
        }
    }

    /// Prints the JSON lines so far, at once.
    pub(super) fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.bar.suspend(|| output::lines(&self.lines));
            self.lines.clear();
        }
    }

    /// Comes when rows have waited long enough for others.
    pub(super) async fn due(&self) {
        match self.since {
            Some(since) => tokio::time::sleep_until(since + SOON).await,
            None => std::future::pending().await,
        }
    }

    /// Prints what is left. Returns how often `--fail-on` applied.
    pub(super) fn finish(mut self, took: Duration) -> usize {
        for (_, partial) in std::mem::take(&mut self.partial) {
            self.joined(partial);
        }
        self.print();
        let failed: usize = self.failed.values().sum();
        let kinds: Vec<_> = self.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let failed = if failed > 0 { format!(", {failed} failed ({})", kinds.join(", ")) } else { String::new() };
        let problems = if self.problems > 0 { format!(", {} with problems", self.problems) } else { String::new() };
        if !self.json || std::io::stderr().is_terminal() {
            let took = took.as_secs_f64();
            let s = if self.found == 1 { "" } else { "s" };
            output::remark(format!("{} certificate{s} seen{problems}{failed}, in {took:.1} s", self.found));
            if self.unlisted > 0 {
                output::remark(format!(
                    "not listed: {} addresses where nobody answered (--json has them)",
                    self.unlisted
                ));
            }
        }
        self.failing
    }

    fn join(&mut self, seen: Observation, verdict: Option<Verdict>) {
        let (ecdsa, rsa) = asked(&seen);
        let node = (seen.host.to_string(), seen.address, seen.port, ecdsa, rsa);
        let partial = self.partial.entry(node.clone()).or_insert(Partial { missing: 4, ..Partial::default() });
        partial.missing -= 1;
        partial.spoken.extend(seen.result.as_ref().ok().map(|found| found.version));
        // The row tells of the newest version that is spoken.
        let version = |seen: &Observation| seen.result.as_ref().ok().map(|found| found.version);
        if partial.best.as_ref().is_none_or(|(best, _)| version(&seen) > version(best)) {
            partial.best = Some((seen, verdict));
        }
        if partial.missing == 0
            && let Some(partial) = self.partial.remove(&node)
        {
            self.joined(partial);
        }
    }

    fn joined(&mut self, mut partial: Partial) {
        partial.spoken.sort_unstable();
        let spoken: Vec<_> = partial.spoken.iter().map(ToString::to_string).collect();
        if let Some((seen, verdict)) = partial.best {
            self.row(&seen, verdict.as_ref(), spoken.join(" "));
        }
    }

    fn row(&mut self, seen: &Observation, verdict: Option<&Verdict>, spoken: String) {
        let target = format!("{}:{}", bracketed(&seen.host), seen.port);
        let node = seen.address.map(|address| address.to_string()).filter(|address| *address != *seen.host);
        let [names, key, left, told] = match &seen.result {
            Ok(found) => of_found(found, verdict),
            Err(failure) => [String::new(), self.asked_for(seen), String::new(), failed(failure)],
        };
        let row = vec![target, node.unwrap_or_default(), names, key, spoken, left, told];
        self.rows.push((is_nobody(seen), row));
        self.since = self.since.or(Some(Instant::now()));
        if self.rows.len() >= BLOCK {
            self.print();
        }
    }

    /// Where each kind of key is asked for by itself: which one was not seen.
    fn asked_for(&self, seen: &Observation) -> String {
        match asked(seen) {
            (true, false) if self.each_key => "no ECDSA".into(),
            (false, true) if self.each_key => "no RSA".into(),
            _ => String::new(),
        }
    }

    /// Prints the rows so far.
    pub(super) fn print(&mut self) {
        self.since = None;
        let mut rows = std::mem::take(&mut self.rows);
        if self.bar.length().is_some_and(|length| length > FEW) {
            let all = rows.len();
            rows.retain(|(nobody, _)| !nobody);
            self.unlisted += all - rows.len();
        }
        if !rows.is_empty() {
            let rows = rows.into_iter().map(|(_, row)| row).collect();
            self.bar.suspend(|| self.columns.print(rows));
        }
    }
}

/// Whether ECDSA and whether RSA was offered.
fn asked(seen: &Observation) -> (bool, bool) {
    let asked = |word| seen.offer.signature_algorithms.iter().any(|algorithm| algorithm.starts_with(word));
    (asked("ecdsa"), asked("rsa"))
}

/// Who scans a network wants to see who is there. What was named is always listed.
fn is_nobody(seen: &Observation) -> bool {
    let nobody = matches!(
        seen.result,
        Err(Failure::Refused | Failure::Unreachable { .. } | Failure::Timeout { phase: Phase::Connect })
    );
    nobody && seen.host.parse::<IpAddr>().is_ok()
}

fn of_found(found: &Found, verdict: Option<&Verdict>) -> [String; 4] {
    let Some((verdict, leaf)) = verdict.and_then(|verdict| verdict.leaf.as_ref().map(|leaf| (verdict, leaf))) else {
        return [String::new(), String::new(), String::new(), "✗ a certificate that does not parse".into()];
    };
    let names = match leaf.names.as_slice() {
        [] => leaf.subject.clone(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    let problems: Vec<_> = verdict.problems.iter().map(ToString::to_string).collect();
    let is_unchecked = matches!(verdict.revocation, Some(Revocation::Unknown { .. })) && !verdict.overdue;
    let mut told = match problems.as_slice() {
        [] if is_unchecked => "! trusted".to_owned(),
        [] if verdict.overdue => "! trusted, overdue".to_owned(),
        [] => "✓ trusted".to_owned(),
        _ if verdict.trusted => format!("! trusted, {}", problems.join(", ")),
        _ => format!("✗ {}", problems.join(", ")),
    };
    if let Some(Revocation::Unknown { why }) = &verdict.revocation {
        told = format!("{told}, revocation unchecked: {why}");
    }
    if !verdict.unfetched.is_empty() {
        told = format!("{told} (not fetched: {})", verdict.unfetched.join("; "));
    }
    if found.proof > Proof::Presented {
        told = format!("{told}, {}", found.proof);
    }
    if let Some(shortfall) = &found.shortfall {
        told = format!("{told} (only {}: {shortfall})", found.proof);
    }
    let days = verdict.days_left.unwrap_or_default();
    let left = if days.abs() < 10.0 { format!("{days:.1} d") } else { format!("{days:.0} d") };
    [names, leaf.key.clone(), left, told]
}

fn failed(failure: &Failure) -> String {
    format!("✗ {failure}")
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
