//! `certbus agent` beside real load balancers: the settings of a target, the agent as a process, and what both leave.

mod bad_input;
mod files;
mod haproxy;
mod load;
mod nginx;
mod postfix;
mod postgresql;
mod reloads;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certbus_core::id::Hash;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::shop::{Ran, Running, Shop};
use load::Load;

impl Shop {
    /// A log with an internal CA and one certificate for `names`, and these targets in the settings.
    fn with_targets(names: &[&str], targets: &str) -> Self {
        let shop = Self::internal();
        if !names.is_empty() {
            shop.ok(&[&["cert", "mk"], names].concat());
        }
        shop.targets(targets);
        shop
    }

    /// Replaces the targets of the settings. `DIR` in the text is the shop's folder.
    fn targets(&self, targets: &str) {
        let path = self.path("certbus.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let before = text.split("[[target]]").next().unwrap();
        let folder = self.folder.path().to_str().unwrap();
        std::fs::write(&path, format!("{before}{}", targets.replace("DIR", folder))).unwrap();
    }

    /// Starts the agent; what it prints goes to the files `agent.out` and `agent.err`.
    fn agent(&self) -> Running {
        Running::new(self.agent_command(&["agent"]).spawn().unwrap())
    }

    fn agent_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        let append = |name| File::options().create(true).append(true).open(self.path(name)).unwrap();
        command.stdout(append("agent.out")).stderr(append("agent.err")).env("PATH", path_with_sbin());
        command
    }

    /// Runs the agent once and expects an exit code and words on standard error.
    fn once(&self, code: i32, words: &[&str]) -> Ran {
        let ran = Ran::from(self.command(&["agent", "--once"]).env("PATH", path_with_sbin()).output().unwrap());
        assert_eq!(ran.code, code, "{ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "`{word}` is not in: {}", ran.err);
        }
        ran
    }

    /// What `agent --status --json` says of a target.
    fn status(&self, target: &str) -> serde_json::Value {
        let said = self.ok(&["agent", "--status", "--json"]).out;
        let rows = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut found = rows.filter(|row| row["target"] == target);
        found.next().map_or(serde_json::Value::Null, |row| row["state"].clone())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Renews `count` times under load: each new version is seen by new connections before the next is made, and no
    /// connection fails.
    fn swaps(&self, load: &Load, count: usize) {
        let id = self.only().0;
        let mut versions = vec![self.only().1];
        for _ in 0..count {
            self.ok(&["cert", "renew", &id]);
            let version = self.only().1;
            within(20, &format!("version {} of {count} is served", versions.len()), || {
                load.has_seen(&version).then_some(())
            });
            versions.push(version);
        }
        let tally = load.tally();
        assert_eq!(tally.failures, Vec::<String>::new(), "of {} connections", tally.connections);
        for version in &versions {
            assert!(tally.versions.contains_key(version), "{version} was never seen");
        }
        assert_eq!(tally.versions.len(), count + 1);
        eprintln!("{} new connections over {count} swaps, none failed", tally.connections);
    }
}

/// Programs of the system that a user's PATH may not have.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Asks again and again.
fn within<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A server of the system, ended with all its children when the test is.
struct Server {
    child: Child,
    stop: Option<Command>,
}

impl Server {
    fn start(command: &mut Command, port: u16, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let spawned = command
            .env("PATH", path_with_sbin())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn();
        let child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}; ci/install-counterparties installs it"));
        let mut server = Self { child, stop: None };
        within(20, "the server listens", || {
            if let Some(ended) = server.child.try_wait().unwrap() {
                panic!("{command:?} {ended}: {}", std::fs::read_to_string(log).unwrap_or_default());
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = &mut self.stop {
            let _ = stop.status();
        } else {
            // Asked, so that it ends its own children.
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        for _ in 0..250 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `openssl s_client -starttls` sees, trusting only the roots in `roots`: the leaf's SHA-256, if it verifies.
fn openssl_starttls(protocol: &str, port: u16, name: &str, roots: &Path) -> Result<String, String> {
    let output = Command::new("timeout")
        .args([
            "20",
            "openssl",
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-starttls",
            protocol,
            "-servername",
            name,
        ])
        .args(["-verify_hostname", name, "-verify_return_error", "-CAfile"])
        .arg(roots)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.contains("Verify return code: 0 (ok)") {
        return Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let pem = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| e.to_string())?;
    Ok(Hash::of(&pem).to_string())
}

/// Lets the users of servers that give root up come to what the test made for them.
fn open_to_servers(shop: &Shop) {
    std::fs::set_permissions(shop.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The numbers of a user of the system.
fn ids(user: &str) -> (u32, u32) {
    let number = |flag| {
        let output = Command::new("id").args([flag, user]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (number("-u"), number("-g"))
}

/// Every file below a folder with its content, inode and time of change: nothing else tells that nothing was written.
fn look(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u64, i64, u32)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(look(&path));
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let changed = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        found.insert(path.clone(), (std::fs::read(&path).unwrap(), metadata.ino(), changed, metadata.mode() & 0o7777));
    }
    found
}

/// The contents alone.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    look(folder).into_iter().map(|(path, (bytes, ..))| (path, bytes)).collect()
}
