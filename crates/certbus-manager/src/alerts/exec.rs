//! The user's own program, run for each message: JSON on its standard input, the same in its environment. No shell stands
//! between; it is killed when it takes too long.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use certbus_core::alert::Message;
use certbus_store::outbox::Delivery;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Undelivered, payload};

/// How much of what it prints on standard error is read.
const READ: u64 = 4096;

pub(super) async fn run(program: &Path, delivery: &Delivery, limit: Duration) -> Result<(), Undelivered> {
    let unstarted = |error: io::Error| {
        Undelivered::away(format!(
            "{} cannot be run: {error}; check its path and that it is executable",
            program.display()
        ))
    };
    let mut child = Command::new(program)
        .envs(environment(delivery))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(unstarted)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    match tokio::time::timeout(limit, talk(&mut child, payload::json(delivery))).await {
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, said))) => {
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on stderr");
            Err(Undelivered::away(format!("{} ended with {status}; it said: {}", program.display(), last.trim())))
        }
        Ok(Err(error)) => Err(unstarted(error)),
        Err(_) => {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let (program, limit) = (program.display(), limit.as_secs());
            Err(Undelivered::away(format!("{program} did not end within {limit} s and was killed")))
        }
    }
}

/// Says it all, and waits for the end. A program that reads nothing is none the worse for it; a child that it leaves behind
/// may hold the pipe, and is not waited for.
async fn talk(child: &mut Child, body: String) -> io::Result<(std::process::ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let saying = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(body.as_bytes()).await;
        }
    };
    let mut said = Vec::new();
    let listening = async {
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr).take(READ).read_to_end(&mut said).await;
            // What is more is thrown away, so that it can go on.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
    };
    let status = tokio::select! {
        status = child.wait() => status?,
        ((), ()) = async { tokio::join!(saying, listening) } => child.wait().await?,
    };
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}

/// `CERTBUS_ALERT_…`: what a short script needs.
fn environment(delivery: &Delivery) -> Vec<(&'static str, String)> {
    let Message { event, title, words, problem, .. } = &delivery.body;
    let of = |read: fn(&certbus_core::alert::Problem) -> String| problem.as_ref().map(read).unwrap_or_default();
    let all = [
        ("CERTBUS_ALERT_ID", delivery.uid.clone()),
        ("CERTBUS_ALERT_EVENT", event.as_str().to_owned()),
        ("CERTBUS_ALERT_TENANT", delivery.tenant.clone()),
        ("CERTBUS_ALERT_TITLE", title.clone()),
        ("CERTBUS_ALERT_WORDS", words.clone()),
        ("CERTBUS_ALERT_PROBLEM", of(|problem| problem.key.clone())),
        ("CERTBUS_ALERT_KIND", of(|problem| problem.kind.to_string())),
        ("CERTBUS_ALERT_NAME", of(|problem| problem.name.clone())),
        ("CERTBUS_ALERT_OWNER", of(|problem| problem.owner.clone())),
    ];
    all.into_iter().map(|(name, value)| (name, value.replace('\0', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use certbus_core::time::Timestamp;

    fn delivery() -> Delivery {
        let (uid, tenant, destination) = ("id".into(), "default".into(), "exec".into());
        let body = Message::test(Timestamp::default());
        Delivery { message: 1, uid, tenant, destination, attempt: 1, body }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_one_that_is_not_there_or_fails_is_named() {
        let run = async |program: &str, millis| {
            let limit = Duration::from_millis(millis);
            super::run(Path::new(program), &delivery(), limit).await.map_err(|error| error.to_string())
        };
        let begun = std::time::Instant::now();
        assert!(run("yes", 200).await.unwrap_err().contains("yes did not end"));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(run("/no/such/program", 200).await.unwrap_err().contains("/no/such/program cannot be run"));
        assert!(run("false", 10_000).await.unwrap_err().contains("false ended with exit status: 1"));
        assert_eq!(run("true", 10_000).await, Ok(()), "it reads nothing, and is none the worse for it");
    }
}
