//! A shop in a temporary folder: runs the program, starts servers, asks them from outside.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use certbus_bus::EventLog;
use certbus_bus::sqlite::SqliteFile;
use certbus_core::event::Event;
use certbus_core::id::Cursor;

pub(crate) struct Shop {
    pub(crate) folder: tempfile::TempDir,
}

/// What a run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A process that is ended when the test is.
pub(crate) struct Running {
    child: Child,
}

impl Shop {
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A log with an internal CA.
    pub(crate) fn internal() -> Self {
        let shop = Self::empty();
        shop.ok(&["init", "--ca", "internal"]);
        std::fs::write(shop.path("roots.pem"), shop.internal_root()).unwrap();
        shop
    }

    pub(crate) fn internal_root(&self) -> String {
        let conf: toml::Table = self.ok(&["conf", "display"]).out.parse().unwrap();
        conf["ca"]["internal"]["certificate"].as_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certbus"));
        command
            .args(args)
            .env("CERTBUS_CONFIG", self.path("certbus.toml"))
            .env("CERTBUS_DATA", self.data())
            .env("HOME", self.folder.path())
            .env("CERTBUS_WEB_LISTEN", "127.0.0.1:0")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// As a machine whose clock is off by `offset` (`+3d`, `-1h`) runs it. (The library alone: the program `faketime` stands
    /// between a test and the process that it is to end.)
    pub(crate) fn command_at(&self, offset: &str, args: &[&str]) -> Command {
        let place = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
        let mut places = std::fs::read_dir("/usr/lib").unwrap().flatten().map(place);
        let library = places.find(|path| path.exists()).expect("install Debian's faketime");
        let mut command = self.command(args);
        command.env("LD_PRELOAD", library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Runs and expects success.
    pub(crate) fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran
    }

    /// Runs, expects an exit code, and words in what was printed on standard error.
    pub(crate) fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{args:?}: `{word}` is not in: {}", ran.err);
        }
        assert_eq!(ran.err.matches("error:").count(), 1, "one error: {}", ran.err);
        ran
    }

    /// How many events of a kind are on the tenant's two streams.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| event.kind() == kind).count()
    }

    /// All events of the tenant's two streams.
    pub(crate) fn events(&self) -> Vec<Event> {
        let path = self.data().join("log.db");
        let read = async {
            let file = SqliteFile::open(&path, false).await.unwrap();
            let mut found = Vec::new();
            for stream in ["default/certs", "default/work"] {
                let page = file.stream(stream).read(Cursor::START, usize::MAX).await.unwrap();
                found.extend(page.batches.iter().flat_map(|batch| batch.events().unwrap()));
            }
            found
        };
        tokio::runtime::Runtime::new().unwrap().block_on(read)
    }

    /// The managers whose batches obtained something.
    pub(crate) fn obtained_by(&self) -> std::collections::BTreeSet<String> {
        let path = self.data().join("log.db");
        let read = async {
            let file = SqliteFile::open(&path, false).await.unwrap();
            let page = file.stream("default/certs").read(Cursor::START, usize::MAX).await.unwrap();
            let obtains = |batch: &&certbus_core::batch::Batch| {
                batch.events().unwrap().iter().any(|event| event.kind() == "CertificateObtained")
            };
            page.batches.iter().filter(obtains).map(|batch| batch.envelope().actor.clone()).collect()
        };
        tokio::runtime::Runtime::new().unwrap().block_on(read)
    }

    /// The id of the only managed certificate, and its version.
    pub(crate) fn only(&self) -> (String, String) {
        let listed = self.ok(&["cert", "ls", "--json"]).out;
        let rows: Vec<serde_json::Value> = listed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(rows.len(), 1, "{listed}");
        (rows[0]["id"].as_str().unwrap().to_owned(), rows[0]["version"].as_str().unwrap_or_default().to_owned())
    }

    /// Starts `example-server` on a free port and waits until it listens. Returns its port.
    pub(crate) fn serve(&self, extra: &[&str]) -> (Running, u16) {
        let args = [&["example-server", "--listen", "127.0.0.1:0"], extra].concat();
        let mut child = self.command(&args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok());
        let running = Running { child };
        (running, port.unwrap_or_else(|| panic!("no port in `{line}`")))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Running {
    pub(crate) fn new(child: Child) -> Self {
        Self { child }
    }

    /// SIGTERM, and waits for an orderly end.
    pub(crate) fn stop(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `openssl s_client` sees for `name`, trusting only the roots in `roots`: the leaf's SHA-256, if it verifies.
pub(crate) fn openssl(port: u16, name: &str, roots: &Path) -> Result<String, String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name])
        .args(["-verify_hostname", name, "-verify_return_error", "-CAfile"])
        .arg(roots)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || !text.contains("Verify return code: 0 (ok)") {
        return Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut x509 = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    x509.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let printed = String::from_utf8(x509.wait_with_output().unwrap().stdout).unwrap();
    let hex = printed.trim().rsplit('=').next().unwrap();
    Ok(hex.replace(':', "").to_lowercase())
}

/// What `curl --resolve` is answered, trusting only the roots in `roots`.
pub(crate) fn curl(port: u16, name: &str, path: &str, roots: &Path) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
        .arg(roots)
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}{path}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Asks again and again for at most ten seconds.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
