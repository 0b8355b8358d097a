//! Endpoints as files have them: CSV with a heading, lines of `scan --json` or `endpoint export`, plain targets. Each line is
//! read by itself; nothing here opens a file.

use std::collections::{BTreeSet, HashMap};

use certbus_core::endpoint::{Endpoint, Key, Written};
use certbus_scan::observation::Observation;
use certbus_store::endpoints::Wanted;
use serde::Deserialize;

/// The columns of a file.
pub const COLUMNS: [&str; 10] =
    ["host", "port", "sni", "starttls", "name", "tags", "owner", "sites", "active", "interval"];

/// Columns of other inventories that say nothing here.
const PASSED_OVER: [&str; 3] = ["id", "date_added", "revision"];

/// What a line says.
#[derive(Debug)]
pub struct Line {
    /// The endpoint.
    pub wanted: Wanted,
    /// Of a line of `scan --json`: what was seen of it.
    pub seen: Option<Box<Observation>>,
}

/// What the lines are.
#[derive(Debug)]
pub enum Shape {
    /// JSON objects.
    Json,
    /// Which column is where.
    Csv(Vec<&'static str>),
    /// A target on each line.
    Plain,
}

/// All that a text says, with what was seen of each; and what is wrong with its other lines, by their numbers.
pub fn parse(text: &str, site: &str) -> (Vec<Line>, Vec<(usize, String)>) {
    let (mut wanted, mut errors, mut shape) = (Vec::new(), Vec::new(), None);
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_end();
        if line.trim().is_empty() || line == "#" || line.starts_with("# ") {
            continue;
        }
        let shape = match &shape {
            Some(shape) => shape,
            None => match Shape::of(line) {
                Ok((found, is_heading)) => {
                    let found = &*shape.insert(found);
                    if is_heading {
                        continue;
                    }
                    found
                }
                Err(why) => return (wanted, vec![(at + 1, why)]),
            },
        };
        match shape.read(line, site) {
            Ok(line) => wanted.push(line),
            Err(why) => errors.push((at + 1, why)),
        }
    }
    (wanted, errors)
}

impl Shape {
    /// What the first line is, and whether it is a heading.
    ///
    /// # Errors
    /// What would be right.
    pub fn of(first: &str) -> Result<(Self, bool), String> {
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

    /// What a line says; polled from `site` if it does not say from where.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, text: &str, site: &str) -> Result<Line, String> {
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
                let mut take = |name: &str| {
                    by_name.remove(name).map(|text| unquoted(&text).to_owned()).filter(|text| !text.trim().is_empty())
                };
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

/// A field of CSV that is no formula to a spreadsheet; [`unquoted`] takes the quote off again.
fn quoted(field: &str) -> String {
    if field.starts_with(FORMULA) || field.starts_with('\'') { format!("'{field}") } else { field.to_owned() }
}

/// What [`quoted`] was given.
fn unquoted(field: &str) -> &str {
    match field.strip_prefix('\'') {
        Some(rest) if rest.starts_with(FORMULA) || rest.starts_with('\'') => rest,
        _ => field,
    }
}

/// What a spreadsheet takes for the begin of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// An endpoint as a line of CSV, in the order of [`COLUMNS`].
pub fn record(endpoint: &Endpoint) -> String {
    let Endpoint { name, key, tags, owner, sites, active, interval } = endpoint;
    let Key { host, port, sni, starttls } = key;
    let words = |set: &BTreeSet<certbus_core::endpoint::Word>| {
        set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record([
        host.to_string(),
        port.to_string(),
        sni.as_ref().map_or_else(String::new, ToString::to_string),
        starttls.map_or_else(|| "none".to_owned(), |word| word.to_string()),
        quoted(name),
        quoted(&words(tags)),
        quoted(owner),
        words(sites),
        if *active { "yes" } else { "no" }.to_owned(),
        interval.map_or_else(String::new, |interval| interval.to_string()),
    ]);
    // Into memory: it does not fail.
    let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}
