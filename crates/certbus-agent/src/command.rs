//! Runs a program of the settings: no shell, in a process group of its own that is killed whole at the time limit, its
//! output kept to a bound. It knows nothing of what the program is for.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

/// How much of what a program prints is kept: the end of it.
const KEPT: usize = 16 * 1024;

/// How many of its last lines an error shows.
const SHOWN_LINES: usize = 8;

/// How many characters of them.
const SHOWN_CHARS: usize = 1000;

/// How long the rest of the output is waited for when the program has ended: a server that it started may hold the pipe.
const REST: Duration = Duration::from_millis(100);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there, or may not be run.
    #[error("`{program}` cannot be started: {source}; name it with its whole path, or install it")]
    Start {
        /// As the settings say.
        program: String,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// It said no.
    #[error("`{program}` ended with {how}{output}")]
    Failed {
        /// As the settings say.
        program: String,
        /// Its exit status, or the signal that ended it.
        how: String,
        /// Its last lines.
        output: String,
    },
    /// It did not end in time.
    #[error("`{program}` did not end within {limit} s and was killed; `time_limit` says how long it may take{output}")]
    Late {
        /// As the settings say.
        program: String,
        /// The limit in seconds.
        limit: u64,
        /// Its last lines.
        output: String,
    },
}

/// Runs a program to its end.
pub(crate) async fn run(words: &[String], limit: Duration) -> Result<(), CommandError> {
    let program = words.join(" ");
    let start = |source| CommandError::Start { program: program.clone(), source };
    let Some((first, rest)) = words.split_first() else { return Ok(()) };
    let (reader, writer) = std::io::pipe().map_err(start)?;
    let mut child = Command::new(first)
        .args(rest)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut output = Receiver::from_owned_fd(reader.into()).map_err(start)?;
    let mut tail = Tail::default();
    let ended = tokio::time::timeout(limit, async {
        tokio::select! {
            ended = child.wait() => ended,
            () = tail.read(&mut output) => child.wait().await,
        }
    });
    match ended.await {
        Ok(ended) => {
            let _ = tokio::time::timeout(REST, tail.read(&mut output)).await;
            let ended = ended.map_err(start)?;
            if ended.success() {
                return Ok(());
            }
            Err(CommandError::Failed { program, how: how(ended), output: tail.shown() })
        }
        Err(_) => {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let _ = child.wait().await;
            let _ = tokio::time::timeout(REST, tail.read(&mut output)).await;
            Err(CommandError::Late { program, limit: limit.as_secs(), output: tail.shown() })
        }
    }
}

fn how(ended: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => ended.to_string(),
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    /// Reads until nobody can print any more.
    async fn read(&mut self, from: &mut Receiver) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            self.0.extend(chunk.iter().take(count));
            let over = self.0.len().saturating_sub(KEPT);
            self.0.drain(..over);
        }
    }

    /// The last lines, in one, without what would move a terminal's cursor.
    fn shown(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join(" / ");
        let clean: Vec<char> = last.chars().filter(|c| !c.is_control()).collect();
        let shown: String = clean.get(clean.len().saturating_sub(SHOWN_CHARS)..).unwrap_or_default().iter().collect();
        if shown.is_empty() { shown } else { format!(": {shown}") }
    }
}
