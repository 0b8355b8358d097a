//! The log on the engines that users already run: the whole program on each, and a load balancer that has nothing but a token.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use certbus_bus::EventLog;
use certbus_bus::dynamodb::DynamodbTable;
use certbus_bus::mariadb::MariadbServer;
use certbus_bus::nats::NatsServer;
use certbus_bus::postgres::PostgresServer;
use certbus_core::id::Cursor;

use crate::alerts::patiently;
use crate::pebble::{fresh, service, turn};
use crate::shop::{Running, Shop, eventually, openssl};
use crate::web::served;

/// An engine that no other test uses, by its log URL.
struct Place {
    url: String,
    _server: Option<Running>,
}

fn a_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("shop_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a statement as a user who may do anything.
fn sql(url: &str, statement: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let (login, place) = rest.split_once('@').unwrap();
    let (host, _) = place.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    let mut command = if url.starts_with("postgres") {
        let mut command = Command::new("psql");
        command.args(["-qAt", "-c", statement, url]);
        command
    } else {
        let mut command = Command::new("mariadb");
        let (user, password) = login.split_once(':').unwrap();
        command.args([
            "--no-defaults",
            "-N",
            "-h",
            host,
            "-P",
            port,
            "-u",
            user,
            &format!("-p{password}"),
            "-e",
            statement,
        ]);
        command
    };
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{statement}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// A database of its own on the server at `base`.
fn database(base: &str) -> Place {
    let name = a_name();
    sql(base, &format!("CREATE DATABASE {name}"));
    Place { url: format!("{}/{name}", base.rsplit_once('/').unwrap().0), _server: None }
}

fn postgresql() -> Place {
    database(&service("CERTBUS_TEST_POSTGRES"))
}

fn mariadb() -> Place {
    database(&service("CERTBUS_TEST_MARIADB"))
}

fn dynamodb() -> Place {
    Place { url: service("CERTBUS_TEST_DYNAMODB").replace("//certbus?", &format!("//{}?", a_name())), _server: None }
}

fn nats() -> Place {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap().keep();
    let mut server = Command::new("nats-server");
    server.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(&folder);
    let server = Running::new(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("nats-server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    Place { url: format!("nats://127.0.0.1:{port}"), _server: Some(server) }
}

impl Shop {
    /// A log with an internal CA at this URL.
    fn on(url: &str) -> Self {
        let shop = Self::empty();
        std::fs::write(shop.path("certbus.toml"), format!("[log]\nurl = \"{url}\"\n")).unwrap();
        shop.ok(&["init", "--ca", "internal"]);
        std::fs::write(shop.path("roots.pem"), shop.internal_root()).unwrap();
        shop
    }

    /// A load balancer that has its identity and these settings, and nothing else of the shop's.
    fn load_balancer(&self, settings: &str) -> Self {
        let other = Self::empty();
        std::fs::create_dir(other.data()).unwrap();
        std::fs::copy(self.data().join("nodes.key"), other.data().join("nodes.key")).unwrap();
        std::fs::write(other.path("certbus.toml"), settings).unwrap();
        std::fs::copy(self.path("roots.pem"), other.path("roots.pem")).unwrap();
        other
    }
}

/// Ordered, served by another machine, renewed and served; verified, put into a snapshot, and started from that.
fn a_whole_life_on(place: &Place) {
    let shop = Shop::on(&place.url);
    let settings = format!("[log]\nurl = \"{}\"\n", place.url);
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let balancer = shop.load_balancer(&settings);
    let (_serving, port) = balancer.serve(&[]);
    let seen = || openssl(port, "www.shop.example", &shop.path("roots.pem"));
    let first = eventually("the first is served", || seen().ok());
    let (id, version) = shop.only();
    assert_eq!(first, version);
    shop.ok(&["cert", "renew", &id]);
    eventually("the second is served", || seen().ok().filter(|now| *now != first && *now == shop.only().1));
    let verified = shop.ok(&["stream", "verify"]).out;
    assert_eq!(verified.matches("✓").count(), 2, "{verified}");
    let doctor = shop.run(&["doctor"]).out;
    assert!(doctor.contains(": a read takes ") && !doctor.contains("apart"), "{doctor}");
    shop.ok(&["stream", "snapshot"]);
    let late = shop.load_balancer(&settings);
    let (_late, port) = late.serve(&[]);
    eventually("one that starts from the snapshot serves it", || {
        openssl(port, "www.shop.example", &shop.path("roots.pem")).ok().filter(|now| *now == shop.only().1)
    });
    shop.ok(&["cert", "rm", &id, "--yes"]);
    eventually("it is served no longer", || seen().err());
}

/// What is on the certs stream of the default tenant: who obtained how many certificates.
fn obtained(url: &str) -> BTreeMap<String, usize> {
    let read = async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let log: Arc<dyn EventLog> = match url.split(':').next().unwrap() {
            "postgres" => Arc::new(PostgresServer::open(url, false).await.unwrap().stream("default/certs")),
            "mariadb" => Arc::new(MariadbServer::open(url, false).await.unwrap().stream("default/certs")),
            "dynamodb" => Arc::new(DynamodbTable::open(url, false).await.unwrap().stream("default/certs")),
            _ => Arc::new(NatsServer::open(url).await.unwrap().stream("default/certs")),
        };
        let (mut place, mut counts) = (Cursor::START, BTreeMap::new());
        loop {
            let page = log.read(place, 1000).await.unwrap();
            let Some(last) = page.batches.last() else { return counts };
            place = last.cursor();
            for batch in &page.batches {
                let events = batch.events().unwrap();
                let count = events.iter().filter(|event| event.kind() == "CertificateObtained").count();
                if count > 0 {
                    *counts.entry(batch.envelope().actor.clone()).or_default() += count;
                }
            }
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(read)
}

/// Two servers and two crons, each with an identity of its own, and 200 certificates that are due at one moment.
fn four_managers_on(place: &Place) {
    const COUNT: usize = 200;
    let _turn = turn();
    let webroot = tempfile::tempdir().unwrap();
    let port = service("CERTBUS_TEST_HTTP01_PORT");
    let mut answers = Command::new("python3");
    answers.args(["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory"]).arg(webroot.path());
    let _answers = Running::new(answers.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let shop = Shop::empty();
    let settings = format!("[log]\nurl = \"{}\"\n[http01]\nwebroot = \"{}\"\n", place.url, webroot.path().display());
    std::fs::write(shop.path("certbus.toml"), &settings).unwrap();
    let (directory, root) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    shop.ok(&["init", "--ca", &directory, "--ca-roots", &root, "--email", "ops@shop.test", "--agree-tos"]);
    for name in ["second", "third", "fourth"] {
        shop.ok(&["manager", "add", name]);
        let settings =
            format!("{settings}[identity]\nmanager = \"{name}.key\"\n[inventory]\nurl = \"sqlite:{name}.db\"\n");
        std::fs::write(shop.path(&format!("{name}.toml")), settings).unwrap();
    }
    shop.ok(&["recipient", "add", "edge"]);
    let base = fresh("http.test");
    let names: Vec<String> = (0..COUNT).map(|n| format!("n{n}.{base}")).collect();
    std::fs::write(shop.path("names"), names.join("\n")).unwrap();
    shop.ok(&["cert", "mk", "--each", shop.path("names").to_str().unwrap()]);
    assert_eq!(obtained(&place.url).values().sum::<usize>(), COUNT);
    shop.ok(&["recipient", "rm", "edge", "--compromised"]);
    let start = |settings: &str, args: &[&str]| {
        let mut command = shop.command(args);
        let log = std::fs::File::create(shop.path(&format!("{settings}.log"))).unwrap();
        let also = log.try_clone().unwrap();
        command.env("CERTBUS_CONFIG", shop.path(settings)).stdout(log).stderr(also);
        Running::new(command.spawn().unwrap())
    };
    let _servers = ["certbus.toml", "second.toml"].map(|settings| start(settings, &["serve"]));
    let _crons = ["third.toml", "fourth.toml"].map(|settings| start(settings, &["cert", "renew", "--due"]));
    let until = Instant::now() + Duration::from_secs(180);
    while obtained(&place.url).values().sum::<usize>() < 2 * COUNT {
        if Instant::now() > until {
            for settings in ["certbus", "second", "third", "fourth"] {
                let said = std::fs::read_to_string(shop.path(&format!("{settings}.toml.log"))).unwrap();
                let last: Vec<&str> = said.lines().rev().take(30).collect();
                eprintln!("{settings}, the last first:\n{}", last.join("\n"));
            }
            panic!("not all are renewed within 180 s: {:?}", obtained(&place.url));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_secs(3));
    let by = obtained(&place.url);
    assert_eq!(by.values().sum::<usize>(), 2 * COUNT, "each once: {by:?}");
    println!("{COUNT} due, four managers: {by:?}");
    shop.ok(&["stream", "verify"]);
}

#[test]
#[ignore = "minutes: `ci/bench managers`"]
fn of_four_managers_each_due_certificate_is_renewed_by_one_at_pebble_on_postgresql() {
    four_managers_on(&postgresql());
}

#[test]
#[ignore = "minutes: `ci/bench managers`"]
fn of_four_managers_each_due_certificate_is_renewed_by_one_at_pebble_on_mariadb() {
    four_managers_on(&mariadb());
}

#[test]
#[ignore = "minutes: `ci/bench managers`"]
fn of_four_managers_each_due_certificate_is_renewed_by_one_at_pebble_on_dynamodb() {
    four_managers_on(&dynamodb());
}

#[test]
#[ignore = "minutes: `ci/bench managers`"]
fn of_four_managers_each_due_certificate_is_renewed_by_one_at_pebble_on_nats() {
    four_managers_on(&nats());
}

#[test]
fn a_whole_life_on_postgresql() {
    a_whole_life_on(&postgresql());
}

#[test]
fn a_whole_life_on_mariadb() {
    a_whole_life_on(&mariadb());
}

#[test]
fn a_whole_life_on_dynamodb() {
    a_whole_life_on(&dynamodb());
}

#[test]
fn a_whole_life_on_nats() {
    a_whole_life_on(&nats());
}

#[test]
fn a_load_balancer_with_nothing_but_a_token_serves_what_is_issued_until_its_token_is_removed_and_after() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let token = shop.token("lb", "certs");
    let balancer = shop.load_balancer("");
    let file = balancer.path("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = |url: &str, file: &str| format!("[log]\nurl = \"{url}\"\ntoken_file = \"{file}\"\n");
    let url = format!("http://{}", web.place);
    let configure = |text: String| std::fs::write(balancer.path("certbus.toml"), text).unwrap();
    configure(settings(&url, file.to_str().unwrap()));
    let (_serving, port) = balancer.serve(&[]);
    let seen = || openssl(port, "www.shop.example", &shop.path("roots.pem"));
    let first = eventually("the first is served", || seen().ok());
    let (id, version) = shop.only();
    assert_eq!(first, version);
    shop.ok(&["cert", "renew", &id]);
    let second = eventually("the second is served", || seen().ok().filter(|now| *now != first));

    // A token of the log reads the log, and nothing else; and it writes nothing.
    let bearer = web.with_header(&format!("authorization: Bearer {token}"));
    assert_eq!(bearer.get("/api/log/v1/certs").status, 200);
    for path in ["/", "/api/v1/glance", "/api/v1/endpoints", "/api/v1/managed", "/api/v1/whoami"] {
        assert_eq!(bearer.get(path).status, 403, "{path}");
    }
    assert_eq!(web.get("/api/log/v1/certs").status, 401);
    let other = shop.ok(&["--tenant", "other", "token", "new", "other", "--scope", "certs"]).out;
    let other = web.with_header(&format!("authorization: Bearer {}", other.trim())).get("/api/log/v1/certs");
    assert!(other.status == 403 && other.body.contains("of another tenant"), "{}", other.body);
    for command in [&["cert", "ls"][..], &["cert", "mk", "x.shop.example"], &["conf", "display"]] {
        balancer.fails(command, 2, &["a manager's log.url names the engine itself"]);
    }
    let manifest = bearer.get("/api/log/v1/certs/snapshot");
    assert_eq!(manifest.status, 204, "there is none yet");
    shop.ok(&["stream", "snapshot"]);
    let manifest = bearer.get("/api/log/v1/certs/snapshot");
    let tag = manifest.header("etag").unwrap().to_owned();
    let again = web.with_header(&format!("authorization: Bearer {token}\r\nif-none-match: {tag}"));
    assert_eq!((manifest.status, again.get("/api/log/v1/certs/snapshot").status), (200, 304));
    assert_eq!(bearer.get("/api/log/v1/certs?after=x").status, 400);
    let nowhere = format!("/api/log/v1/certs?after=9999:{}", "0".repeat(64));
    assert!(bearer.get(&nowhere).status == 409 && bearer.get(&nowhere).body.contains("\"head\""));

    // A stream that is open ends with its token; what was adopted is served on.
    let watched = bearer.lines("/api/log/v1/certs/events");
    assert!(watched.recv_timeout(Duration::from_secs(20)).is_ok(), "it says something at once");
    shop.ok(&["token", "rm", "lb"]);
    patiently("the stream ends", || match watched.try_recv() {
        Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(()),
        _ => None,
    });
    shop.ok(&["cert", "renew", &id]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(seen(), Ok(second));
    let told = balancer.run(&["example-server", "--listen", "127.0.0.1:0", "--state", "/proc/none"]);
    assert_ne!(told.code, 0);

    // What is wrong with URL and token is told by name.
    configure(format!("[log]\nurl = \"{url}\"\n"));
    balancer.fails(&["example-server"], 2, &["wants a token", "--scope certs"]);
    configure(settings("ftp://certbus.example", file.to_str().unwrap()));
    balancer.fails(&["example-server"], 2, &["log.url is none of a CertBus server"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    configure(settings(&url, file.to_str().unwrap()));
    balancer.fails(&["example-server"], 2, &["chmod 600"]);
}

/// Points a shop at another URL; a command that reads the log fails with these words, and without the password.
fn told(shop: &Shop, url: &str, words: &[&str]) {
    std::fs::write(shop.path("certbus.toml"), format!("[log]\nurl = \"{url}\"\n")).unwrap();
    let ran = shop.run(&["cert", "ls"]);
    assert!(ran.code == 1 || ran.code == 2, "{url}: {ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{url}: `{word}` is not in: {}", ran.err);
    }
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 1, "one error: {}", ran.err);
    assert!(!ran.err.contains("s3cret"), "{}", ran.err);
}

#[test]
fn what_is_wrong_with_postgresql_is_named_with_what_to_do() {
    let place = postgresql();
    let shop = Shop::on(&place.url);
    let host = place.url.split('@').nth(1).unwrap().split('/').next().unwrap();
    let (port, name) = (host.split(':').nth(1).unwrap(), place.url.rsplit('/').next().unwrap());
    let reader = format!("reader_{name}");
    sql(
        &place.url,
        &format!(
            "CREATE ROLE {reader} LOGIN PASSWORD 's3cret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"
        ),
    );
    let empty = database(&service("CERTBUS_TEST_POSTGRES"));
    told(&shop, "postgres://certbus:s3cret@127.0.0.1:9/x", &["PostgreSQL 127.0.0.1:9/x", "no connection", "refused"]);
    let stranger = format!("postgres://nobody:s3cret@{host}/{name}");
    told(&shop, &stranger, &[&format!("PostgreSQL 127.0.0.1:{port}"), "nobody", "look at user and password"]);
    told(&shop, &format!("postgres://certbus:s3cret@{host}/nowhere"), &["nowhere", "CREATE DATABASE"]);
    told(&shop, &empty.url, &["the log's tables are not there", "`certbus init` makes them"]);
    told(&shop, "postgres://certbus:s3cret@host:port/x", &["cannot be read", "postgres://USER:PASSWORD@HOST"]);
    told(&shop, "oracle://me:s3cret@host", &["log.url is none of", "postgres://"]);
    // Who may only read reads, and is told what writing takes.
    std::fs::write(shop.path("certbus.toml"), format!("[log]\nurl = \"postgres://{reader}:s3cret@{host}/{name}\"\n"))
        .unwrap();
    shop.ok(&["cert", "ls"]);
    shop.fails(&["cert", "mk", "a.shop.example"], 1, &["permission denied", "GRANT SELECT, INSERT, UPDATE, DELETE"]);
}

#[test]
fn what_is_wrong_with_mariadb_is_named_with_what_to_do() {
    let place = mariadb();
    let shop = Shop::on(&place.url);
    let host = place.url.split('@').nth(1).unwrap().split('/').next().unwrap();
    let name = place.url.rsplit('/').next().unwrap();
    let reader = format!("reader_{name}");
    sql(
        &place.url,
        &format!(
            "CREATE USER {reader}@'127.0.0.1' IDENTIFIED BY 's3cret'; GRANT SELECT ON {name}.* TO {reader}@'127.0.0.1'"
        ),
    );
    let empty = database(&service("CERTBUS_TEST_MARIADB"));
    told(&shop, "mariadb://certbus:s3cret@127.0.0.1:9/x", &["MariaDB 127.0.0.1:9/x", "no connection", "refused"]);
    told(&shop, &format!("mariadb://certbus:s3cret@{host}/{name}"), &["Access denied", "look at user and password"]);
    told(&shop, &format!("mariadb://certbus:certbus@{host}/nowhere"), &["nowhere", "CREATE DATABASE"]);
    told(&shop, &empty.url, &["the log's tables are not there", "`certbus init` makes them"]);
    told(&shop, &format!("mariadb://certbus:s3cret@{host}"), &["cannot be read", "mariadb://USER:PASSWORD@HOST"]);
    std::fs::write(shop.path("certbus.toml"), format!("[log]\nurl = \"mariadb://{reader}:s3cret@{host}/{name}\"\n"))
        .unwrap();
    shop.ok(&["cert", "ls"]);
    shop.fails(&["cert", "mk", "a.shop.example"], 1, &["denied", "GRANT SELECT, INSERT, UPDATE, DELETE"]);
}

#[test]
fn what_is_wrong_with_dynamodb_is_named_with_what_to_do() {
    let place = dynamodb();
    let shop = Shop::on(&place.url);
    let (_, query) = place.url.split_once('?').unwrap();
    told(
        &shop,
        &format!("dynamodb://no_such_table?{query}"),
        &["there is no table no_such_table", "`certbus init` makes it"],
    );
    told(
        &shop,
        "dynamodb://table?region=eu-central-1&endpoint=http://127.0.0.1:9",
        &["DynamoDB table at http://127.0.0.1:9"],
    );
    told(&shop, "dynamodb://table", &["no region is named", "?region="]);
    told(&shop, "dynamodb://a b", &["is no name of a table"]);
}

#[test]
fn what_is_wrong_with_nats_is_named_with_what_to_do() {
    let place = nats();
    let shop = Shop::on(&place.url);
    let start = |words: &[&str]| {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap().keep();
        let mut server = Command::new("nats-server");
        server.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(&folder).args(words);
        let server = Running::new(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("nats-server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        (server, port)
    };
    told(&shop, "nats://127.0.0.1:9", &["NATS 127.0.0.1:9", "no connection"]);
    let (_bare, port) = start(&[]);
    told(&shop, &format!("nats://127.0.0.1:{port}"), &["JetStream is not on there", "`-js`"]);
    let (_locked, port) = start(&["-js", "--user", "certbus", "--pass", "right"]);
    told(
        &shop,
        &format!("nats://certbus:s3cret@127.0.0.1:{port}"),
        &["does not let this user in", "user and password"],
    );
    told(&shop, "nats://127.0.0.1:9?replicas=2", &["replicas are 1, 3 or 5"]);
}

#[test]
fn pgbouncer_that_shares_connections_out_is_named_and_one_that_does_not_is_no_hindrance_to_postgresql() {
    let place = postgresql();
    let shop = Shop::on(&place.url);
    let host = place.url.split('@').nth(1).unwrap().split('/').next().unwrap();
    let (port, name) = (host.split(':').nth(1).unwrap(), place.url.rsplit('/').next().unwrap());
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    for mode in ["transaction", "session"] {
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("users.txt"), "\"certbus\" \"\"\n").unwrap();
        let conf = format!(
            "[databases]\n{name} = host=127.0.0.1 port={port} dbname={name} user=certbus\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nauth_type = any\nauth_file = {0}/users.txt\npool_mode = {mode}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\nlogfile = {0}/log\n",
            folder.path().display()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, conf).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut bouncer = Command::new("pgbouncer");
        if std::fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0) {
            bouncer.args(["-u", "postgres"]);
        }
        let _bouncer = Running::new(bouncer.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("pgbouncer listens", || std::net::TcpStream::connect(("127.0.0.1", own)).ok());
        let balancer = shop.load_balancer(&format!("[log]\nurl = \"postgres://certbus@127.0.0.1:{own}/{name}\"\n"));
        let log = std::fs::File::create(balancer.path("log")).unwrap();
        let mut command = balancer.command(&["example-server", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let _serving = Running::new(child);
        let said = || std::fs::read_to_string(balancer.path("log")).unwrap();
        if mode == "transaction" {
            patiently("what stands in the way is named", || {
                Some(()).filter(|()| said().contains("stands in the way") && said().contains("pool_mode = session"))
            });
            continue;
        }
        let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        let seen = || openssl(port, "www.shop.example", &shop.path("roots.pem"));
        let first = eventually("the first is served", || seen().ok());
        shop.ok(&["cert", "renew", &shop.only().0]);
        eventually("the second is served, too", || seen().ok().filter(|now| *now != first));
        assert!(!said().contains("pgbouncer"), "{}", said());
    }
}

#[test]
fn a_log_moves_through_every_engine_and_back_with_its_numbers_and_hashes_on_postgresql_mariadb_dynamodb_and_nats() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    for _ in 0..3 {
        shop.ok(&["cert", "renew", &shop.only().0]);
    }
    shop.ok(&["stream", "snapshot"]);
    shop.ok(&["cert", "renew", &shop.only().0]);
    // Trimmed, so that the copies begin in the middle.
    std::thread::sleep(Duration::from_secs(2));
    shop.ok(&["stream", "trim", "--keep", "1s", "--yes"]);
    let cursors = |tail: String| -> Vec<serde_json::Value> {
        tail.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["cursor"].clone()).collect()
    };
    let tails = |shop: &Shop| {
        [&["stream", "tail", "-n", "100", "--json"][..], &["stream", "tail", "-n", "100", "--json", "--work"]]
            .map(|args| cursors(shop.ok(args).out))
    };
    let original = tails(&shop);
    assert!(original[0].first().unwrap()["seq"].as_u64().unwrap() > 1, "trimmed: {original:?}");
    let listed = shop.ok(&["stream", "ls"]).out;
    assert!(listed.contains("default/certs") && listed.contains("default/work"), "{listed}");
    let shown = shop.ok(&["stream", "show", &original[0].last().unwrap()["seq"].to_string()]).out;
    assert!(shown.contains("holds") && shown.contains("CertificateObtained"), "{shown}");
    shop.fails(&["stream", "show", "9999"], 3, &["has no batch 9999"]);
    let places = [postgresql(), mariadb(), dynamodb(), nats()];
    let mut from = format!("sqlite:{}", shop.data().join("log.db").display());
    let back = format!("sqlite:{}", shop.path("back/log.db").display());
    for url in places.iter().map(|place| place.url.clone()).chain([back.clone()]) {
        let said = shop.ok(&["stream", "copy", &from, &url]).out;
        assert!(said.contains("default/certs") && said.contains("both end at batch"), "{said}");
        let again = shop.ok(&["stream", "copy", &from, &url]).out;
        assert_eq!(again.matches(": 0 batches copied").count(), 2, "{again}");
        from = url;
    }
    std::fs::write(shop.path("certbus.toml"), format!("[log]\nurl = \"{back}\"\n")).unwrap();
    assert_eq!(tails(&shop), original);
    shop.ok(&["stream", "verify"]);
    shop.ok(&["cert", "renew", &shop.only().0]);
    assert_eq!(tails(&shop)[0].len(), original[0].len() + 1);
    // Another log is not copied over this one.
    let other = Shop::internal();
    let theirs = format!("sqlite:{}", other.data().join("log.db").display());
    shop.fails(&["stream", "copy", &theirs, &back], 1, &["another log"]);
    shop.fails(&["stream", "copy", "https://certbus.example", &back], 2, &["wants a token"]);
}
