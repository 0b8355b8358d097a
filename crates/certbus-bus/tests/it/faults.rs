//! Engines that are killed, and connections that break at the worst moment: nothing is lost, nothing is there twice, and who
//! waited sees all of it in order. (A process that is killed is not a power cut: what was handed to the kernel stays.)

use std::net::{TcpListener as Listener, TcpStream as Stream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use certbus_bus::dynamodb::DynamodbTable;
use certbus_bus::mariadb::MariadbServer;
use certbus_bus::nats::NatsServer;
use certbus_bus::postgres::PostgresServer;
use certbus_bus::write::append_batch;
use certbus_bus::{AppendError, EventLog};
use certbus_core::batch::Batch;
use certbus_core::event::Event;
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::testing::World;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::engines::{server, tenant};

/// The log of an engine at an URL; the tables are made.
async fn open(url: &str, name: &str) -> Arc<dyn EventLog> {
    match url.split(':').next().unwrap() {
        "postgres" => Arc::new(PostgresServer::open(url, true).await.unwrap().stream(name)),
        "mariadb" => Arc::new(MariadbServer::open(url, true).await.unwrap().stream(name)),
        "dynamodb" => Arc::new(DynamodbTable::open(url, true).await.unwrap().stream(name)),
        _ => Arc::new(NatsServer::open(url).await.unwrap().stream(name)),
    }
}

/// Stands between a client and a server. When it is armed, the next answer of the server is lost with its connection.
struct Proxy {
    port: u16,
    armed: Arc<AtomicBool>,
}

impl Proxy {
    async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, armed) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let lost = armed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(forward(client, server, lost.clone()));
            }
        });
        Self { port, armed }
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // Only the answer to what was sent while it is armed is lost, not one that was on its way.
    let mut sent = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(size) if size > 0 => {
                    sent = armed.load(Ordering::SeqCst);
                    if server.write_all(&asked[..size]).await.is_err() { return }
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(size) if size > 0 => {
                    if sent && armed.swap(false, Ordering::SeqCst) {
                        let _ = client.set_zero_linger();
                        return;
                    }
                    if client.write_all(&answered[..size]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}

/// The place of a server in its URL.
fn host(url: &str) -> String {
    let place = url.split("127.0.0.1:").nth(1).unwrap();
    format!("127.0.0.1:{}", place.chars().take_while(char::is_ascii_digit).collect::<String>())
}

async fn a_lost_answer(url: String) {
    let proxy = Proxy::before(host(&url)).await;
    let name = format!("{}/certs", tenant());
    let (direct, through) =
        (open(&url, &name).await, open(&url.replace(&host(&url), &format!("127.0.0.1:{}", proxy.port)), &name).await);
    let (mut world, first) = World::new(StreamKind::Certs);
    append_batch(&*through, Cursor::START, first.clone()).await.unwrap();
    let (mut all, mut lost) = (vec![first], 0);
    for _ in 0..8 {
        let batch = world.append(vec![Event::Alive]);
        proxy.armed.store(true, Ordering::SeqCst);
        // That of a new connection may be lost, too: then nothing was sent.
        while let Err(error) = append_batch(&*through, batch.expected(), batch.clone()).await {
            assert!(matches!(error, AppendError::Log(_)), "{error}");
        }
        lost += u32::from(!proxy.armed.swap(false, Ordering::SeqCst));
        all.push(batch);
    }
    assert_eq!(direct.read(Cursor::START, 100).await.unwrap().batches, all, "each once, in order");
    // Another was first, and the answer that says so is lost.
    let (ours, theirs) = (world.batch(vec![Event::Alive]), world.batch(vec![Event::Alive]));
    direct.append(theirs.expected(), theirs.clone()).await.unwrap();
    proxy.armed.store(true, Ordering::SeqCst);
    let mut outcome = append_batch(&*through, ours.expected(), ours.clone()).await;
    while matches!(outcome, Err(AppendError::Log(_))) {
        outcome = append_batch(&*through, ours.expected(), ours.clone()).await;
    }
    assert_eq!(outcome.unwrap_err(), AppendError::Conflict { head: theirs.cursor() });
    assert_eq!(lost, 8, "each answer was lost");
    println!("{}: 8 answers lost, 9 batches there, each once", direct.place());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_finds_out_whether_it_won_when_postgresql_s_answer_is_lost() {
    a_lost_answer(server("CERTBUS_TEST_POSTGRES")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_finds_out_whether_it_won_when_mariadb_s_answer_is_lost() {
    a_lost_answer(server("CERTBUS_TEST_MARIADB")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_finds_out_whether_it_won_when_dynamodb_s_answer_is_lost() {
    a_lost_answer(server("CERTBUS_TEST_DYNAMODB")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_finds_out_whether_it_won_when_nats_s_answer_is_lost() {
    a_lost_answer(server("CERTBUS_TEST_NATS")).await;
}

/// A server of the test's own, which it may kill.
struct Own {
    child: Child,
    command: Box<dyn Fn() -> Command + Send>,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Own {
    fn start(folder: tempfile::TempDir, port: u16, command: impl Fn() -> Command + Send + 'static) -> Self {
        let child = Self::spawn(&command, port);
        Self { child, command: Box::new(command), port, _folder: folder }
    }

    fn spawn(command: &impl Fn() -> Command, port: u16) -> Child {
        let start = || command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut child, until) = (start(), Instant::now() + Duration::from_secs(60));
        while Stream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(100));
            // It does not start while what was left of the one that was killed is still there.
            if child.try_wait().unwrap().is_some() {
                child = start();
            }
        }
        child
    }

    /// `kill -9`, and up again after a moment.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        self.child = Self::spawn(&self.command, self.port);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    Listener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ran(command: &mut Command) {
    let ran = command.stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
}

async fn a_killed_engine(mut own: Own, url: String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let log = open(&url, "default/certs").await;
    let (mut world, first) = World::new(StreamKind::Certs);
    append_batch(&*log, Cursor::START, first.clone()).await.unwrap();
    let watching = log.clone();
    const COUNT: usize = 120;
    let watcher = tokio::spawn(async move {
        let (mut seen, mut errors, mut watch) = (Vec::<Batch>::new(), 0, watching.watch(Cursor::START));
        while seen.len() < COUNT + 1 {
            match watch.next().await.unwrap() {
                Ok(page) => seen.extend(page.batches),
                Err(_) => errors += 1,
            }
        }
        (seen, errors)
    });
    let (mut all, mut failed, done) = (vec![first], 0, Arc::new(AtomicUsize::new(0)));
    // In the middle of appends and of the watch.
    let sees = done.clone();
    let restarting = tokio::task::spawn_blocking(move || {
        while sees.load(Ordering::SeqCst) < COUNT / 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = sees.load(Ordering::SeqCst);
        own.restart();
        (own, killed, sees.load(Ordering::SeqCst))
    });
    for number in 0..COUNT {
        done.store(number, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let batch = world.append(vec![Event::Alive]);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match append_batch(&*log, batch.expected(), batch.clone()).await {
                Ok(_) => break,
                // It was stored by an attempt of which nothing was heard.
                Err(AppendError::Conflict { head }) if head == batch.cursor() => break,
                Err(error) => {
                    failed += 1;
                    assert!(Instant::now() < until, "{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        all.push(batch);
    }
    let (_own, killed, up) = restarting.await.unwrap();
    assert!(killed < COUNT && up < COUNT, "it was killed after {killed} of {COUNT} and up again after {up}");
    let (seen, errors) = tokio::time::timeout(Duration::from_secs(60), watcher).await.unwrap().unwrap();
    assert_eq!(log.read(Cursor::START, 1000).await.unwrap().batches, all, "nothing lost, nothing twice");
    assert_eq!(seen, all, "seen in order, each once");
    println!(
        "{}: killed after {killed} appends, up again after {up}; {} batches, {failed} attempts failed, the watch said {errors} errors",
        log.place(),
        all.len()
    );
}

/// A folder that a server of another user may use.
fn folder_for(user: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if let Some(user) = user {
        ran(Command::new("chown").arg(user).arg(folder.path()));
    }
    folder
}

/// Where Debian has PostgreSQL's programs.
fn postgresql_s(program: &str) -> PathBuf {
    let all = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|version| version.path().join("bin"));
    all.max().unwrap().join(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_killed_in_the_middle_loses_nothing() {
    let as_user = |program: &Path| match is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    let (folder, port) = (folder_for(is_root().then_some("postgres")), free_port());
    let data = folder.path().join("data");
    ran(as_user(&postgresql_s("initdb"))
        .args(["-A", "trust", "-U", "certbus", "--no-sync", "-D"])
        .arg(&data)
        .current_dir("/"));
    let sockets = folder.path().to_owned();
    let own = Own::start(folder, port, move || {
        let mut command = as_user(&postgresql_s("postgres"));
        command.arg("-D").arg(&data).args(["-c", &format!("port={port}"), "-c"]);
        command.arg(format!("unix_socket_directories={}", sockets.display())).current_dir("/");
        command
    });
    a_killed_engine(own, format!("postgres://certbus@127.0.0.1:{port}/postgres")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_killed_in_the_middle_loses_nothing() {
    let (folder, port) = (folder_for(None), free_port());
    let path = folder.path().to_owned();
    let user = if is_root() { &["--user=root"][..] } else { &[] };
    ran(Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(user)
        .arg(format!("--datadir={}/data", path.display())));
    let init = "CREATE DATABASE IF NOT EXISTS certbus;\nCREATE OR REPLACE USER certbus@'127.0.0.1' IDENTIFIED BY 'certbus';\n\
                GRANT ALL ON certbus.* TO certbus@'127.0.0.1';\n";
    std::fs::write(path.join("init.sql"), init).unwrap();
    let own = Own::start(folder, port, move || {
        let mut command = Command::new("mariadbd");
        let place = |name: &str, file: &str| format!("--{name}={}/{file}", path.display());
        command.args(["--no-defaults", "--bind-address=127.0.0.1"]).args(user).args([
            place("datadir", "data"),
            place("socket", "socket"),
            place("pid-file", "pid"),
            place("init-file", "init.sql"),
            format!("--port={port}"),
        ]);
        command
    });
    a_killed_engine(own, format!("mariadb://certbus:certbus@127.0.0.1:{port}/certbus")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_killed_in_the_middle_loses_nothing() {
    let (folder, port) = (folder_for(None), free_port());
    let path = folder.path().to_owned();
    let own = Own::start(folder, port, move || {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(&path);
        command
    });
    a_killed_engine(own, format!("nats://127.0.0.1:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_killed_in_the_middle_loses_nothing() {
    let (folder, port) = (folder_for(None), free_port());
    let (path, home) = (folder.path().to_owned(), server("CERTBUS_TEST_DYNAMODB_HOME"));
    let own = Own::start(folder, port, move || {
        let mut command = Command::new("java");
        command.arg("-Xmx256m").arg(format!("-Djava.library.path={home}")).arg("-cp").arg(format!("{home}/*"));
        command.arg("com.amazonaws.services.dynamodbv2.local.main.ServerRunner");
        command.args(["-sharedDb", "-disableTelemetry", "-port", &port.to_string(), "-dbPath"]).arg(&path);
        command
    });
    a_killed_engine(own, format!("dynamodb://certbus?region=eu-central-1&endpoint=http://127.0.0.1:{port}")).await;
}
