//! The user's own program, called as lego calls it: `PROGRAM present|cleanup FQDN VALUE`. One call at a time, bounded
//! in time; no shell stands between.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};

use crate::solver::SolverError;

/// How much of what a program prints on standard error is kept: the end of it.
const KEPT: usize = 4096;

/// How long the rest of it is waited for when the program has ended.
const REST: Duration = Duration::from_millis(100);

/// A program that sets and removes TXT records.
#[derive(Debug, Clone)]
pub struct ExecHook {
    program: PathBuf,
    time_limit: Duration,
}

impl ExecHook {
    /// `program` is run with `present` or `cleanup`, the record's name with a trailing dot, and its value. It must
    /// have set or removed the record when it ends with status 0, and is killed at the time limit.
    pub fn new(program: impl Into<PathBuf>, time_limit: Duration) -> Self {
        Self { program: program.into(), time_limit }
    }

    pub(crate) async fn present(&self, name: &str, value: &str) -> Result<(), SolverError> {
        self.run("present", name, value).await
    }

    pub(crate) async fn clean_up(&self, name: &str, value: &str) -> Result<(), SolverError> {
        self.run("cleanup", name, value).await
    }

    async fn run(&self, action: &'static str, name: &str, value: &str) -> Result<(), SolverError> {
        let failed = |why: String| SolverError::Hook {
            program: self.program.display().to_string(),
            action,
            name: name.to_owned(),
            why,
        };
        let unstarted =
            |error: io::Error| failed(format!("it cannot be run: {error}; check its path and that it is executable"));
        let mut child = Command::new(&self.program)
            .args([action, name, value])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(unstarted)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (mut stderr, mut tail) = (child.stderr.take(), Vec::new());
        // A child that it leaves behind may hold the pipe: it is the program itself that is waited for.
        let ended = tokio::time::timeout(self.time_limit, async {
            tokio::select! {
                ended = child.wait() => ended,
                () = read_tail(&mut stderr, &mut tail) => child.wait().await,
            }
        });
        let Ok(ended) = ended.await else {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            return Err(failed(format!("it did not end within {} s and was killed", self.time_limit.as_secs())));
        };
        let status = ended.map_err(unstarted)?;
        if status.success() {
            return Ok(());
        }
        let _ = tokio::time::timeout(REST, read_tail(&mut stderr, &mut tail)).await;
        let said = String::from_utf8_lossy(&tail);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on stderr");
        Err(failed(format!("{status}; it said: {}", last.trim())))
    }
}

/// Reads to the end, and keeps the last of it.
async fn read_tail(from: &mut Option<ChildStderr>, tail: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        tail.extend(chunk.iter().take(count));
        let over = tail.len().saturating_sub(KEPT);
        tail.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_and_named() {
        // `sleep present …` fails at once; `tail -f` by way of a script would need a file: yes(1) never ends.
        let hook = ExecHook::new("yes", Duration::from_millis(100));
        let error = hook.present("_acme-challenge.example.com.", "value").await.unwrap_err().to_string();
        assert!(error.contains("yes present") && error.contains("killed"), "{error}");
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_quoted() {
        let hook = ExecHook::new("ls", Duration::from_secs(10));
        let error = hook.clean_up("/no-such-file.", "value").await.unwrap_err().to_string();
        assert!(error.contains("ls cleanup") && error.contains("cannot access"), "{error}");
    }

    #[tokio::test]
    async fn a_hook_that_leaves_a_child_behind_is_not_waited_for_and_one_that_never_ends_printing_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let hook = |text: &str, limit| {
            let path = folder.path().join("hook");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            ExecHook::new(path, limit)
        };
        let begun = std::time::Instant::now();
        let leaves = hook("sleep 5 &", Duration::from_secs(4));
        leaves.present("_acme-challenge.example.com.", "value").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3));
        let mut tail = Vec::new();
        let mut loud = Command::new("sh");
        let mut child =
            loud.args(["-c", "yes | head -c 3000000 >&2; echo last >&2"]).stderr(Stdio::piped()).spawn().unwrap();
        read_tail(&mut child.stderr.take(), &mut tail).await;
        assert!(tail.len() <= KEPT && tail.ends_with(b"last\n"));
        child.wait().await.unwrap();
    }
}
