//! The user's own program, called as lego calls it: `PROGRAM present|cleanup FQDN VALUE`. One call at a time, bounded
//! in time; no shell stands between.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::solver::SolverError;

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
        let output = Command::new(&self.program)
            .args([action, name, value])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(self.time_limit, output)
            .await
            .map_err(|_| failed(format!("it did not end within {} s and was killed", self.time_limit.as_secs())))?
            .map_err(|error| failed(format!("it cannot be run: {error}; check its path and that it is executable")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on stderr");
        Err(failed(format!("{}; it said: {}", output.status, last.trim())))
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
}
