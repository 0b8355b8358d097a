//! Endpoints from a file and to a file. A line that is wrong is named with its number, and the others are stored; memory does
//! not grow with the file. Done twice, it changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_core::endpoint::{Endpoint, Key, Written};
use certbus_manager::clock;
use certbus_manager::inventory::poller::seen;
use certbus_scan::observation::Observation;
use certbus_store::endpoints::{Put, Wanted};
use certbus_store::observations::Poll;
use certbus_store::{Query, Store};
use clap::Args;
use serde::Deserialize;

use crate::cli::audit::actor;
use crate::cli::exit::Mistake;
use crate::cli::output;

/// Lines of one transaction.
const AT_ONCE: usize = 1000;

/// Longer lines are none.
const LONGEST: u64 = 1024 * 1024;

/// Errors that are printed; the others are counted.
const TOLD: u64 = 100;

const COLUMNS: [&str; 10] = ["host", "port", "sni", "starttls", "name", "tags", "owner", "sites", "active", "interval"];

/// Columns of other inventories that say nothing here.
const PASSED_OVER: [&str; 3] = ["id", "date_added", "revision"];

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Look at every line and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a line says.
struct Line {
    wanted: Wanted,
    /// Of a line of `scan --json`: what was seen of it.
    seen: Option<Box<Observation>>,
}

/// What the lines are.
enum Shape {
    Json,
    /// Which column is where.
    Csv(Vec<&'static str>),
    /// A target on each line.
    Plain,
}

#[derive(Default)]
struct Tally {
    added: u64,
    edited: u64,
    same: u64,
    bad: u64,
    /// Results of scans that say nothing new.
    passed_over: u64,
}

impl Import {
    pub(super) async fn run(self, store: &Store, site: &str) -> Result<()> {
        let (name, reader): (String, Box<dyn Read + Send>) = if self.file.as_os_str() == "-" {
            ("standard input".into(), Box::new(std::io::stdin()))
        } else {
            let file = File::open(&self.file).with_context(|| self.file.display().to_string())?;
            (self.file.display().to_string(), Box::new(file))
        };
        let mut lines = Lines { reader: BufReader::with_capacity(256 * 1024, reader), number: 0 };
        let mut tally = Tally::default();
        let mut shape = None;
        let mut batch = Vec::with_capacity(AT_ONCE);
        while let Some(line) = lines.next().with_context(|| name.clone())? {
            let read = match line {
                Err(why) => Err(why),
                Ok(text) if text.trim().is_empty() || text == "#" || text.starts_with("# ") => continue,
                Ok(text) => match &shape {
                    None => match Shape::of(&text) {
                        Ok((found, is_heading)) => {
                            let first = if is_heading { None } else { Some(found.read(&text, site)) };
                            shape = Some(found);
                            match first {
                                None => continue,
                                Some(first) => first,
                            }
                        }
                        Err(why) => bail!(Mistake::new(format!("{name}, line {}: {why}", lines.number))),
                    },
                    Some(shape) => shape.read(&text, site),
                },
            };
            match read {
                Ok(line) => batch.push(line),
                Err(why) => {
                    tally.bad += 1;
                    if tally.bad <= TOLD {
                        output::error(&format!("{name}, line {}: {why}", lines.number));
                    }
                }
            }
            if batch.len() == AT_ONCE {
                self.store(store, site, std::mem::take(&mut batch), &mut tally).await?;
            }
        }
        self.store(store, site, batch, &mut tally).await?;
        let Tally { added, edited, same, bad, passed_over } = tally;
        if self.dry_run {
            output::line(format!(
                "{} endpoints could be read, {bad} lines not; nothing was stored",
                added + edited + same
            ));
        } else {
            output::line(format!("{added} added, {edited} changed, {same} as before"));
        }
        if passed_over > 0 {
            output::remark(format!(
                "{passed_over} results were not kept: known, older than what is, by a clock that is ahead, or not of site {site}"
            ));
        }
        if bad > TOLD {
            output::remark(format!("{} more lines are wrong", bad - TOLD));
        }
        match bad {
            0 => Ok(()),
            bad => {
                bail!("{bad} of {} lines were not imported; mend them and import again", added + edited + same + bad)
            }
        }
    }

    async fn store(&self, store: &Store, site: &str, lines: Vec<Line>, tally: &mut Tally) -> Result<()> {
        if self.dry_run {
            tally.same += lines.len() as u64;
            return Ok(());
        }
        let (wanted, seen_there): (Vec<Wanted>, Vec<_>) =
            lines.into_iter().map(|line| (line.wanted, line.seen)).unzip();
        let put = store.put_endpoints(&wanted, &actor(), clock::now()).await?;
        let mut polls: BTreeMap<(i64, i64), Poll> = BTreeMap::new();
        for (put, observation) in put.iter().zip(seen_there) {
            let (count, id) = match put {
                Put::Added(id) => (&mut tally.added, id),
                Put::Edited(id) => (&mut tally.edited, id),
                Put::Same(id) => (&mut tally.same, id),
            };
            *count += 1;
            let Some(observation) = observation else { continue };
            if let Some(address) = observation.address {
                // What a scan left out it did not see gone.
                let at = observation.at;
                let empty = || Poll { endpoint: *id, site: site.to_owned(), at, looks: Vec::new(), whole: false };
                polls.entry((*id, at.millis())).or_insert_with(empty).looks.push(seen(address, &observation));
            }
        }
        let polls: Vec<Poll> = polls.into_values().collect();
        tally.passed_over += store.record(&polls, clock::now()).await?.passed_over as u64;
        Ok(())
    }
}

struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line; an error in it that does not keep the others from being read.
    fn next(&mut self) -> std::io::Result<Option<Result<String, String>>> {
        let mut bytes = Vec::new();
        let count = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes)?;
        if count == 0 {
            return Ok(None);
        }
        self.number += 1;
        if count as u64 == LONGEST && !bytes.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Err(format!("it is longer than {LONGEST} bytes"))));
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned());
        Ok(Some(text.map(|text| text.trim_start_matches('\u{feff}').trim_end().to_owned())))
    }
}

impl Shape {
    /// What the first line is, and whether it is a heading.
    fn of(first: &str) -> Result<(Self, bool), String> {
        if first.starts_with('{') {
            return Ok((Self::Json, false));
        }
        let fields = fields(first)?;
        let words: Vec<String> = fields.iter().map(|field| field.trim().to_lowercase()).collect();
        if words.len() == 1
            && words.iter().any(|word| word.split([';', '\t']).nth(1).is_some() && word.contains("host"))
        {
            return Err("columns are separated by commas; write host,port and so on".into());
        }
        if !words.iter().any(|word| word == "host") {
            return match words.len() {
                1 => Ok((Self::Plain, false)),
                _ => {
                    Err(format!("there is no heading with a column `host`; begin with some of: {}", COLUMNS.join(",")))
                }
            };
        }
        let mut columns = Vec::new();
        for word in &words {
            let column = COLUMNS.iter().chain(&PASSED_OVER).find(|column| *column == word);
            columns.push(
                *column.ok_or_else(|| format!("no column is called `{word}`; there are {}", COLUMNS.join(", ")))?,
            );
        }
        if columns.iter().collect::<BTreeSet<_>>().len() != columns.len() {
            return Err("a column stands twice in the heading".into());
        }
        Ok((Self::Csv(columns), true))
    }

    fn read(&self, text: &str, site: &str) -> Result<Line, String> {
        // What it is, is not changed; what is said of it is.
        let parsed = |written: &Written| {
            let rest = Written { host: None, port: None, sni: None, starttls: None, ..written.clone() };
            let sites = written.sites.clone().or_else(|| Some(site.to_owned()));
            let endpoint = Endpoint::parse(&Written { sites, ..written.clone() });
            endpoint
                .map(|endpoint| Line { wanted: Wanted { endpoint, written: rest }, seen: None })
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        match self {
            Self::Plain => parsed(&Written { host: Some(text.trim().to_owned()), ..Written::default() }),
            Self::Csv(columns) => {
                let fields = fields(text)?;
                if fields.len() != columns.len() {
                    return Err(format!("it has {} fields, and the heading {}", fields.len(), columns.len()));
                }
                let mut by_name: HashMap<&str, String> = columns.iter().copied().zip(fields).collect();
                // An empty field is one that was not written, but for what may be nothing.
                let mut take = |name: &str| by_name.remove(name).filter(|text| !text.trim().is_empty());
                parsed(&Written {
                    host: take("host"),
                    port: take("port"),
                    sni: take("sni"),
                    starttls: take("starttls"),
                    name: take("name"),
                    tags: take("tags"),
                    owner: take("owner"),
                    sites: take("sites"),
                    active: take("active"),
                    interval: take("interval"),
                })
            }
            Self::Json => read_json(text, parsed),
        }
    }
}

/// The fields of a line of CSV (RFC 4180), without line breaks in them.
fn fields(text: &str) -> Result<Vec<String>, String> {
    if !text.matches('"').count().is_multiple_of(2) {
        return Err("a quote is opened and not closed on the line".into());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    match reader.records().next() {
        Some(Ok(record)) => Ok(record.iter().map(str::to_owned).collect()),
        Some(Err(error)) => Err(format!("it is not CSV: {error}")),
        None => Err("it is empty".into()),
    }
}

#[derive(Deserialize)]
struct Probe {
    schema: Option<u32>,
}

fn read_json(text: &str, parsed: impl Fn(&Written) -> Result<Line, String>) -> Result<Line, String> {
    let probe: Probe = serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))?;
    if probe.schema.is_none() {
        let endpoint: Endpoint = serde_json::from_str(text)
            .map_err(|error| format!("it is neither a line of `scan --json` nor of `endpoint export`: {error}"))?;
        // Through the same door as what people write.
        let words = |set: &BTreeSet<certbus_core::endpoint::Word>| {
            Some(set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" "))
        };
        let Endpoint { name, key, tags, owner, sites, active, interval } = &endpoint;
        return parsed(&Written {
            host: Some(key.host.to_string()),
            port: Some(key.port.to_string()),
            sni: key.sni.as_ref().map(ToString::to_string),
            starttls: Some(key.starttls.map_or_else(|| "none".to_owned(), |word| word.to_string())),
            name: Some(name.clone()),
            tags: words(tags),
            owner: Some(owner.clone()),
            sites: words(sites),
            active: Some(if *active { "yes" } else { "no" }.to_owned()),
            interval: interval.map(|interval| interval.to_string()),
        });
    }
    let observation: Observation =
        serde_json::from_str(text).map_err(|error| format!("it is not a line of `scan --json`: {error}"))?;
    let sni = observation.server_name.as_ref().map(ToString::to_string).filter(|name| *name != *observation.host);
    let written = Written {
        host: Some(observation.host.to_string()),
        port: Some(observation.port.to_string()),
        sni,
        starttls: Some(observation.starttls.map_or_else(|| "none".to_owned(), |word| word.to_string())),
        ..Written::default()
    };
    // A scan says nothing of owner and tags.
    let Line { wanted, .. } = parsed(&written)?;
    let wanted = Wanted { written: Written::default(), ..wanted };
    Ok(Line { wanted, seen: Some(Box::new(observation)) })
}

/// Prints every endpoint.
pub(super) async fn export(store: &Store, csv: bool) -> Result<()> {
    let mut query = Query { limit: 1000, ..Query::default() };
    if csv {
        output::line(COLUMNS.join(","));
    }
    while !output::nobody_reads() {
        let page = store.endpoints(&query, clock::now()).await?;
        for row in &page.rows {
            let endpoint = &row.stored.endpoint;
            if csv { output::line(record(endpoint)?) } else { output::json(endpoint) }
        }
        match page.next {
            None => break,
            next => query.after = next,
        }
    }
    Ok(())
}

fn record(endpoint: &Endpoint) -> Result<String> {
    let Endpoint { name, key, tags, owner, sites, active, interval } = endpoint;
    let Key { host, port, sni, starttls } = key;
    let words = |set: &BTreeSet<certbus_core::endpoint::Word>| {
        set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        host.to_string(),
        port.to_string(),
        sni.as_ref().map_or_else(String::new, ToString::to_string),
        starttls.map_or_else(|| "none".to_owned(), |word| word.to_string()),
        name.clone(),
        words(tags),
        owner.clone(),
        words(sites),
        if *active { "yes" } else { "no" }.to_owned(),
        interval.map_or_else(String::new, |interval| interval.to_string()),
    ])?;
    Ok(String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?)?.trim_end().to_owned())
}
