//! HAProxy's runtime API: `set ssl cert` and `commit ssl cert` over its stats socket, so that a renewal needs no reload.
//! It changes what HAProxy holds in memory only; the file is written too.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// Why HAProxy did not take a certificate over its socket.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody answers there.
    #[error(
        "the socket {socket} does not answer: {source}; is HAProxy running, with `stats socket {socket} level admin`?"
    )]
    Socket {
        /// Its path.
        socket: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// It has no certificate of this file.
    #[error("HAProxy holds no certificate of the file {file}: its configuration must name it with this very path")]
    NotHeld {
        /// The file.
        file: PathBuf,
    },
    /// It said no.
    #[error("HAProxy refused {file}: {said}")]
    Refused {
        /// The file.
        file: PathBuf,
        /// Its words.
        said: String,
    },
}

/// Has HAProxy serve `pem` for the certificate that it loaded from `file`.
pub(crate) fn replace(socket: &Path, file: &Path, pem: &str, limit: Duration) -> Result<(), RuntimeError> {
    let ask = |command: &str| {
        exchange(socket, command, limit).map_err(|source| RuntimeError::Socket { socket: socket.to_owned(), source })
    };
    let name = file.display();
    // An empty line ends what is sent.
    let mut command = Zeroizing::new(String::with_capacity(pem.len() + 1024));
    command.push_str(&format!("set ssl cert {name} <<\n"));
    for line in pem.lines().filter(|line| !line.is_empty()) {
        command.push_str(line);
        command.push('\n');
    }
    command.push('\n');
    let said = ask(&command)?;
    if said.contains("not referenced") {
        return Err(RuntimeError::NotHeld { file: file.to_owned() });
    }
    let refused = |said: String| RuntimeError::Refused { file: file.to_owned(), said: one_line(&said) };
    if !said.contains("Transaction created") && !said.contains("Transaction updated") {
        let _ = ask(&format!("abort ssl cert {name}\n"));
        return Err(refused(said));
    }
    let said = ask(&format!("commit ssl cert {name}\n"))?;
    if said.contains("Success") {
        return Ok(());
    }
    let _ = ask(&format!("abort ssl cert {name}\n"));
    Err(refused(said))
}

/// Within `limit` as a whole: one who does not accept, or answers byte by byte, holds nobody up.
fn exchange(socket: &Path, command: &str, limit: Duration) -> io::Result<String> {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(command.as_bytes()).await?;
        let mut said = Vec::new();
        stream.take(16 * 1024).read_to_end(&mut said).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()));
    Handle::current().block_on(async { tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| Err(late())) })
}

fn one_line(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".into() } else { lines.join(" / ") }
}
