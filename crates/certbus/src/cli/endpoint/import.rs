//! Endpoints from a file and to a file. A line that is wrong is named with its number, and the others are stored; memory does
//! not grow with the file. Done twice, it changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_manager::clock;
use certbus_manager::inventory::files::{COLUMNS, Line, Shape, record};
use certbus_manager::inventory::poller::seen;
use certbus_store::endpoints::{Put, Wanted};
use certbus_store::observations::Poll;
use certbus_store::{Query, Store};
use clap::Args;

use crate::cli::audit::actor;
use crate::cli::exit::Mistake;
use crate::cli::output;

/// Lines of one transaction.
const AT_ONCE: usize = 1000;

/// Longer lines are none.
const LONGEST: u64 = 1024 * 1024;

/// Errors that are printed; the others are counted.
const TOLD: u64 = 100;

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Look at every line and store nothing
    #[arg(long)]
    dry_run: bool,
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
            if csv { output::line(record(endpoint)) } else { output::json(endpoint) }
        }
        match page.next {
            None => break,
            next => query.after = next,
        }
    }
    Ok(())
}
