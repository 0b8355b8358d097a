//! What people and programs see: lines on standard output, remarks and errors on standard error.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Starts log output on standard error: lines for people, or with CERTBUS_LOG=json an object each, for programs.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let usual = format!("{level},hickory_resolver=error,hickory_net=error,rustls=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match std::env::var("CERTBUS_LOG").as_deref() {
        Ok("json") => log.json().flatten_event(true).init(),
        _ => log.with_ansi(colours(std::io::stderr().is_terminal())).with_target(false).init(),
    }
}

/// One line on standard output. A reader that went away (`| head`) is no error; a full disk is.
pub(crate) fn line(text: impl AsRef<str>) {
    lines(format!("{}\n", text.as_ref()).as_bytes());
}

/// Whole lines on standard output, by one call of the system.
pub(crate) fn lines(text: &[u8]) {
    match std::io::stdout().write_all(text) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => NOBODY_READS.store(true, Ordering::Relaxed),
        Err(error) => {
            remark(format!("error: standard output: {error}"));
            std::process::exit(1);
        }
    }
}

static NOBODY_READS: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output has gone away: long work for him may end.
pub(crate) fn nobody_reads() -> bool {
    NOBODY_READS.load(Ordering::Relaxed)
}

/// Foreign words without what would move a terminal's cursor or turn its text round.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if c == '\n' || shown(c) { c } else { '\u{fffd}' }).collect()
}

/// One JSON object a line on standard output.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string(value).unwrap_or_default());
}

/// A remark for people on standard error.
pub(crate) fn remark(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}

/// An error, as every command prints it.
pub(crate) fn error(text: &str) {
    remark(format!("{} {}", paint("error:", "1;31", std::io::stderr().is_terminal()), plain(text)));
}

/// A step that went well.
pub(crate) fn done(text: impl AsRef<str>) {
    line(format!("{} {}", paint("✓", "32", std::io::stdout().is_terminal()), text.as_ref()));
}

/// Something to look at.
pub(crate) fn warning(text: impl AsRef<str>) {
    line(format!("{} {}", paint("!", "1;33", std::io::stdout().is_terminal()), text.as_ref()));
}

/// Something that is wrong.
pub(crate) fn problem(text: impl AsRef<str>) {
    line(format!("{} {}", paint("✗", "1;31", std::io::stdout().is_terminal()), text.as_ref()));
}

/// A heading.
pub(crate) fn heading(text: &str) {
    line(format!("\n{}", paint(text, "1", std::io::stdout().is_terminal())));
}

fn paint(text: &str, code: &str, terminal: bool) -> String {
    if colours(terminal) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns for people: a heading on a terminal, none in a pipe.
pub(crate) fn table(heading: &[&str], rows: Vec<Vec<String>>) {
    Columns::new(heading).print(rows);
}

/// A table that grows: its heading is printed once, and what comes later stands below, in columns that get no narrower.
pub(crate) struct Columns {
    heading: Option<Vec<String>>,
    widths: Vec<u16>,
}

impl Columns {
    pub(crate) fn new(heading: &[&str]) -> Self {
        let upper = || heading.iter().map(|word| word.to_uppercase()).collect();
        Self { heading: std::io::stdout().is_terminal().then(upper), widths: Vec::new() }
    }

    pub(crate) fn print(&mut self, rows: Vec<Vec<String>>) {
        const BETWEEN: u16 = 2;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if let Some(heading) = self.heading.take() {
            table.set_header(heading);
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| plain(cell).replace('\n', " ")));
        }
        let now = table.column_max_content_widths();
        let before = self.widths.iter().chain(std::iter::repeat(&0));
        self.widths = now.iter().zip(before).map(|(now, before)| *now.max(before)).collect();
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_padding((0, BETWEEN));
            let width = comfy_table::Width::Fixed(width.saturating_add(BETWEEN));
            column.set_constraint(comfy_table::ColumnConstraint::LowerBoundary(width));
        }
        for row in table.to_string().lines() {
            line(row.trim_end());
        }
    }
}

/// A listing: one JSON object a line for programs, columns for people.
pub(crate) fn listing<T: Serialize>(json: bool, heading: &[&str], rows: Vec<T>, cells: impl Fn(T) -> Vec<String>) {
    if json {
        rows.iter().for_each(self::json);
    } else {
        table(heading, rows.into_iter().map(cells).collect());
    }
}

/// Asks a yes-or-no question on the terminal. None where there is nobody to ask.
pub(crate) fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}
