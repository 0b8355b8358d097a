//! `certbus scan`: which certificate each node of each target really presents, and what to think of it. It needs no
//! settings and writes nothing but its output.

mod fail_on;
mod fetch;
mod report;
mod room;
mod targets;

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use certbus_core::name::DnsName;
use certbus_core::time::Timestamp;
use certbus_scan::found::Proof;
use certbus_scan::observation::Observation;
use certbus_scan::resolve::Resolver;
use certbus_scan::roots::Roots;
use certbus_scan::starttls::Starttls;
use certbus_scan::verdict::{self, Extras, Verdict};
use certbus_scan::ways::{Learnt, Method};
use certbus_scan::{Limits, Options, Summary, Timeouts, feed, most_in_flight, scan};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use super::exit::{Found, Mistake};
use super::output;
use fail_on::FailOn;
use fetch::Fetcher;
use report::Report;
use room::Room;
use targets::Feeder;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Scan {
    /// Names, addresses, CIDR ranges, each with :PORT, :PORT,PORT or :FIRST-LAST; PROTOCOL://HOST; @FILE or ./FILE with one
    /// a line; - for standard input
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// One JSON object a line, as docs/SCAN.md describes it
    #[arg(long)]
    json: bool,
    /// With --json: what was seen alone, without a verdict
    #[arg(long, requires = "json", conflicts_with = "fail_on")]
    raw: bool,
    /// Protocol before TLS: smtp, lmtp, imap, pop3, ftp, ldap, postgres, mysql, xmpp, xmpp-server, nntp, sieve; or none
    /// [default: guessed from the port]
    #[arg(long, value_name = "PROTOCOL", value_parser = starttls)]
    starttls: Option<Before>,
    /// The name in the ClientHello, or none [default: the target's name]
    #[arg(long, value_name = "NAME", value_parser = sni)]
    sni: Option<Sni>,
    /// Port, where a target has none
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How much is proved: presented, signed or finished
    #[arg(long, value_enum, default_value_t = Proved::Presented)]
    proof: Proved,
    /// quick (up to the certificate), full (a handshake as a browser makes it), or auto: quick, then full where it fails
    #[arg(long, value_enum, default_value_t = By::Auto)]
    method: By,
    /// Ask for each version of TLS, 1.0 to 1.3, by itself
    #[arg(long)]
    versions: bool,
    /// Ask for an ECDSA and an RSA certificate, each by itself
    #[arg(long)]
    each_key: bool,
    /// Roots: platform, mozilla, or a PEM file
    #[arg(long, value_name = "WHICH", default_value = "platform")]
    roots: String,
    /// Fetch the revocation lists that certificates name
    #[arg(long)]
    revocation: bool,
    /// Fetch intermediates that are missing from where certificates say they are
    #[arg(long)]
    aia: bool,
    /// Fetch from private networks and from this machine too, never from link-local addresses or a cloud's metadata service
    /// [default: only for a node that is there itself]
    #[arg(long)]
    fetch_private: bool,
    /// Exit with 10 if any certificate is expired, untrusted, overdue, revoked, unchecked (no list says whether it is revoked)
    /// or weak, has less than N% of its life or Nd days left, or if a probe failed; several with commas
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    fail_on: Vec<FailOn>,
    /// Seconds for the look-up of a name, and for each phase of a probe: connection, dialogue before TLS, handshake
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    timeout: f64,
    /// Connections begun in a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Probes at a time [default: what the system allows, at most 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Probes at a time to one address; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 16)]
    per_host: usize,
    /// Probes at a time to one network, /24 of IPv4 or /48 of IPv6; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 256)]
    per_network: usize,
    /// DNS server to ask, ADDRESS[:PORT] [default: the system's]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    resolver: Option<SocketAddr>,
}

const EXAMPLES: &str = "\
Examples:
  certbus scan example.com                          every node of a name
  certbus scan 192.0.2.0/24:443,8443 --rate 200     a network, gently
  certbus scan mail.example.com:25,143,993          STARTTLS where the port says so
  certbus scan @hosts.txt --json >seen.jsonl        a file, for other programs
  certbus scan @hosts.txt --fail-on expired,untrusted,20%  in a cron job: exit code 10";

/// What `--starttls` says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Before {
    /// Nothing: TLS at once.
    Nothing,
    Protocol(Starttls),
}

/// What `--sni` says.
#[derive(Clone, Debug)]
pub(crate) enum Sni {
    Nothing,
    Name(DnsName),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Proved {
    Presented,
    Signed,
    Finished,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Auto,
    Quick,
    Full,
}

/// More than this are not in flight unless asked for: it is enough for any network, and 30 MB.
const USUALLY_IN_FLIGHT: usize = 10_000;
/// Results between the scan and the report. When that is slow, the scan waits.
const BETWEEN: usize = 256;
/// While results come fast, those of so long a time are taken together: to be woken for each costs as much as the rest.
const GATHER: Duration = Duration::from_millis(4);
/// How often it is looked whether the scan is cancelled.
const LOOK_FOR_CANCEL: Duration = Duration::from_millis(100);

impl Scan {
    pub(super) async fn run(self) -> Result<()> {
        if self.fail_on.contains(&FailOn::Unchecked) && !self.revocation {
            bail!(Mistake::new("--fail-on unchecked wants --revocation: nothing is checked without it"));
        }
        let roots = if self.raw { None } else { Some(Arc::new(self.roots()?)) };
        let fetches = self.aia || self.revocation;
        let room = Room::of(most_in_flight(), fetches);
        let options = self.options(room.probes);
        let within = Duration::from_secs_f64(self.timeout);
        let resolver = match self.resolver {
            Some(server) => Resolver::at(server, within),
            None => Resolver::system(within),
        };
        let lines = targets::Lines::open(&self.targets)?;
        let (send_targets, targets) = feed(1024)?;
        let (send_seen, mut seen) = tokio::sync::mpsc::channel(BETWEEN);
        let cancel = Arc::new(AtomicBool::new(false));
        let bar = progress();

        let feeder = Feeder {
            starttls: self.starttls,
            sni: self.sni.clone(),
            port: self.port,
            hellos: targets::hellos(self.versions, self.each_key),
            resolver: resolver.clone(),
            look_ups: room.look_ups,
            targets: send_targets,
            failed: send_seen.clone(),
            bar: bar.clone(),
            cancel: cancel.clone(),
        };
        let feeding = tokio::spawn(feeder.feed(lines));
        let scanning = {
            let cancel = cancel.clone();
            tokio::task::spawn_blocking(move || {
                let sink = |one: Observation| drop(send_seen.blocking_send(one));
                scan(targets, &options, &mut Learnt::default(), &cancel, sink)
            })
        };
        let interrupted = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    cancel.store(true, Ordering::Relaxed);
                }
                // Whoever asks twice does not wait for anything.
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130);
                }
            }
        });

        let began = Instant::now();
        let mut report = Report::new(self.json, self.versions, self.each_key, bar.clone());
        let fetcher = Fetcher::new(self.aia, self.revocation, self.fetch_private, resolver, cancel.clone());
        let fetcher = Arc::new(fetcher);
        let mut fetching = JoinSet::new();
        let (mut some, mut open) = (Vec::with_capacity(BETWEEN), true);
        while open || !fetching.is_empty() {
            let most = if fetches { room.fetching - fetching.len() } else { BETWEEN };
            let mut judged = None;
            tokio::select! {
                count = seen.recv_many(&mut some, most), if open && most > 0 => open = count > 0,
                Some(one) = fetching.join_next() => judged = Some(one),
                () = report.due() => report.print(),
            }
            while let Some(one) = judged.take().or_else(|| fetching.try_join_next()) {
                let (one, verdict) = one.context("what was fetched could not be judged")?;
                self.report(&mut report, one, Some(verdict));
            }
            bar.inc(some.len() as u64);
            for one in some.drain(..) {
                let verdict = roots.as_ref().and_then(|roots| verdict::of(&one, roots, &Extras::default(), now()));
                match (verdict, &roots) {
                    (Some(verdict), Some(roots)) if fetcher.is_wanted(&verdict) => {
                        let (fetcher, roots) = (fetcher.clone(), roots.clone());
                        fetching.spawn(async move {
                            let verdict = fetcher.judge(&one, verdict, &roots).await;
                            (one, verdict)
                        });
                    }
                    (verdict, _) => self.report(&mut report, one, verdict),
                }
            }
            report.flush();
            if output::nobody_reads() {
                cancel.store(true, Ordering::Relaxed);
            }
            if open {
                tokio::time::sleep(GATHER).await;
            }
        }
        let summary = scanning.await.context("the scan ended early")??;
        let bad_lines = if cancel.load(Ordering::Relaxed) { 0 } else { feeding.await.context("reading targets")? };
        interrupted.abort();
        bar.finish_and_clear();
        if output::nobody_reads() {
            return Ok(());
        }
        let failing = report.finish(began.elapsed());
        self.end(&summary, cancel.load(Ordering::Relaxed), bad_lines, failing)
    }

    fn report(&self, report: &mut Report, one: Observation, verdict: Option<Verdict>) {
        let hit = self.fail_on.iter().any(|what| what.applies(&one, verdict.as_ref()));
        report.take(one, verdict, hit);
    }

    fn end(&self, summary: &Summary, cancelled: bool, bad_lines: usize, failing: usize) -> Result<()> {
        if bad_lines > 0 {
            bail!(Mistake::new(format!("{bad_lines} of the targets could not be read; the others were scanned")));
        }
        if cancelled {
            bail!("interrupted: {} probes were under way, and what comes after them was not begun", summary.unfinished);
        }
        if failing > 0 {
            let what: Vec<_> = self.fail_on.iter().map(ToString::to_string).collect();
            bail!(Found::new(format!("{failing} to look at ({})", what.join(", "))));
        }
        Ok(())
    }

    fn options(&self, possible: usize) -> Options {
        let in_flight = match self.concurrency {
            None => possible.min(USUALLY_IN_FLIGHT),
            Some(wanted) if wanted as usize > possible => {
                output::remark(format!("{possible} probes at a time: the system's limit of open files allows no more"));
                possible
            }
            Some(wanted) => wanted as usize,
        };
        let limit = |number: usize| (number > 0).then_some(number);
        Options {
            method: match self.method {
                By::Auto => Method::Auto,
                By::Quick => Method::Quick,
                By::Full => Method::Full,
            },
            proof: match self.proof {
                Proved::Presented => Proof::Presented,
                Proved::Signed => Proof::Signed,
                Proved::Finished => Proof::Finished,
            },
            timeouts: Timeouts::all(Duration::from_secs_f64(self.timeout)),
            limits: Limits {
                in_flight,
                rate: self.rate,
                per_host: limit(self.per_host),
                per_network: limit(self.per_network),
            },
        }
    }

    fn roots(&self) -> Result<Roots> {
        match self.roots.as_str() {
            "mozilla" => Ok(Roots::mozilla()),
            "platform" => Ok(Roots::platform().unwrap_or_else(|error| {
                output::remark(format!("{error}; Mozilla's are used"));
                Roots::mozilla()
            })),
            file => {
                let pem =
                    std::fs::read(file).with_context(|| format!("--roots {file}: platform, mozilla or a PEM file"))?;
                Roots::from_pem(&pem, file).map_err(|error| Mistake::new(error.to_string()).into())
            }
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = "{bar:30} {pos} of {len}  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What comes, unless the scan is cancelled first.
async fn until_cancelled<T>(cancel: &AtomicBool, coming: impl Future<Output = T>) -> Option<T> {
    let mut coming = std::pin::pin!(coming);
    while !cancel.load(Ordering::Relaxed) {
        tokio::select! {
            come = &mut coming => return Some(come),
            () = tokio::time::sleep(LOOK_FOR_CANCEL) => {}
        }
    }
    None
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn starttls(text: &str) -> Result<Before, String> {
    match text {
        "none" => Ok(Before::Nothing),
        protocol => protocol.parse().map(Before::Protocol).map_err(|error: String| format!("{error}, or none")),
    }
}

fn sni(text: &str) -> Result<Sni, String> {
    match text {
        "none" => Ok(Sni::Nothing),
        name => DnsName::parse(name).map(Sni::Name).map_err(|error| error.to_string()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, from 0.01 to 3600".into()),
    }
}

fn server(text: &str) -> Result<SocketAddr, String> {
    let address = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(|_| address()).map_err(|_| "write an address with or without a port, as 192.0.2.53:53".into())
}
