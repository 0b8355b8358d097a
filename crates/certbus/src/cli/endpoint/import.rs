//! Endpoints from a file and to a file. A line that is wrong is named with its number, and the others are stored; memory does
//! not grow with the file. Done twice, it changes nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_manager::inventory::files::{COLUMNS, Shape, record};
use certbus_manager::inventory::import::Tally;
use certbus_store::Query;
use clap::Args;

use crate::cli::exit::Mistake;
use crate::cli::output;
use crate::inventory::{Given, Inventory};

/// Lines of one transaction.
const AT_ONCE: usize = 1000;

/// And their bytes, about: less than a server takes at a time.
const LARGEST_BATCH: usize = 8 * 1024 * 1024;

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

impl Import {
    pub(super) async fn run(self, inventory: &Inventory) -> Result<()> {
        let (name, reader): (String, Box<dyn Read + Send>) = if self.file.as_os_str() == "-" {
            ("standard input".into(), Box::new(std::io::stdin()))
        } else {
            let file = File::open(&self.file).with_context(|| self.file.display().to_string())?;
            (self.file.display().to_string(), Box::new(file))
        };
        let mut lines = Lines { reader: BufReader::with_capacity(256 * 1024, reader), number: 0 };
        let (mut tally, mut bad) = (Tally::default(), 0_u64);
        let (mut shape, mut heading) = (None, None);
        let site = inventory.site();
        let mut wrong = |line: u64, why: &str| {
            bad += 1;
            if bad <= TOLD {
                output::error(&format!("{name}, line {line}: {why}"));
            }
        };
        let (mut batch, mut bytes) = (Vec::with_capacity(AT_ONCE), 0);
        while let Some(line) = lines.next().with_context(|| name.clone())? {
            let text = match line {
                Err(why) => {
                    wrong(lines.number, &why);
                    continue;
                }
                Ok(text) if text.trim().is_empty() || text == "#" || text.starts_with("# ") => continue,
                Ok(text) => text,
            };
            let shape = match &shape {
                Some(shape) => shape,
                None => {
                    let found = Shape::of(&text);
                    let (found, is_heading) =
                        found.map_err(|why| Mistake::new(format!("{name}, line {}: {why}", lines.number)))?;
                    let found = &*shape.insert(found);
                    if is_heading {
                        heading = Some(text);
                        continue;
                    }
                    found
                }
            };
            match shape.read(&text, site) {
                Ok(line) => {
                    bytes += text.len();
                    batch.push(Given { number: lines.number, text, line });
                }
                Err(why) => wrong(lines.number, &why),
            }
            if batch.len() == AT_ONCE || bytes > LARGEST_BATCH {
                let (done, refused) = self.store(inventory, heading.as_deref(), std::mem::take(&mut batch)).await?;
                (tally, bytes) = (tally.plus(done), 0);
                refused.iter().for_each(|(line, why)| wrong(*line, why));
            }
        }
        let (done, refused) = self.store(inventory, heading.as_deref(), batch).await?;
        refused.iter().for_each(|(line, why)| wrong(*line, why));
        let tally = tally.plus(done);
        let Tally { added, edited, same, passed_over } = tally;
        if self.dry_run {
            output::line(format!("{} endpoints could be read, {bad} lines not; nothing was stored", tally.endpoints()));
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
            bad => bail!("{bad} of {} lines were not imported; mend them and import again", tally.endpoints() + bad),
        }
    }

    async fn store(
        &self,
        inventory: &Inventory,
        heading: Option<&str>,
        lines: Vec<Given>,
    ) -> Result<(Tally, Vec<(u64, String)>)> {
        if self.dry_run {
            return Ok((Tally { same: lines.len() as u64, ..Tally::default() }, Vec::new()));
        }
        inventory.import(heading, lines).await
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
pub(super) async fn export(inventory: &Inventory, csv: bool) -> Result<()> {
    let mut query = Query { limit: 1000, ..Query::default() };
    if csv {
        output::line(COLUMNS.join(","));
    }
    while !output::nobody_reads() {
        let page = inventory.endpoints(&query).await?;
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
