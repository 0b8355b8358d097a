//! Debian's PostgreSQL, through the kind `files`: TLS files read again at SIGHUP.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::load::{Load, Protocol};
use super::{Server, free_port, ids, open_to_servers, openssl_starttls, within};
use crate::shop::Shop;

const TARGET: &str = r#"
[[target]]
kind = "files"
name = "postgresql"
chain = "DIR/certs/server.crt"
key = "DIR/certs/server.key"
group = "postgres"
reload = ["runuser", "-u", "postgres", "--", "PROGRAMS/pg_ctl", "reload", "-D", "DIR/pg"]
"#;

/// Debian keeps its servers out of the PATH.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("ci/install-counterparties installs PostgreSQL");
    versions.map(|entry| entry.unwrap().path().join("bin")).max().unwrap()
}

fn as_postgres(program: &str) -> Command {
    let (user, group) = ids("postgres");
    let mut command = Command::new(programs().join(program));
    command.uid(user).gid(group).current_dir("/");
    command
}

#[test]
fn postgresql_serves_twenty_renewals_and_no_new_connection_fails() {
    let targets = TARGET.replace("PROGRAMS", programs().to_str().unwrap());
    let shop = Shop::with_targets(&["db.shop.example"], &targets);
    open_to_servers(&shop);
    let (folder, port) = (shop.path("pg"), free_port());
    std::fs::create_dir(&folder).unwrap();
    let (user, group) = ids("postgres");
    std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
    let made = as_postgres("initdb").args(["-A", "trust", "-D"]).arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    shop.once(1, &["first ones stay", "Is server running"]);
    let file = |name: &str| format!("{}/certs/{name}", shop.folder.path().display());
    let settings = [
        format!("port={port}"),
        format!("unix_socket_directories={}", folder.display()),
        "ssl=on".into(),
        format!("ssl_cert_file={}", file("server.crt")),
        format!("ssl_key_file={}", file("server.key")),
        "fsync=off".into(),
    ];
    let mut command = as_postgres("postgres");
    command.arg("-D").arg(&folder).args(settings.iter().flat_map(|setting| ["-c", setting]));
    let _server = Server::start(&mut command, port, &shop.path("pg.log"));
    shop.once(0, &[]);
    let roots = shop.path("roots.pem");
    let seen = || openssl_starttls("postgres", port, "db.shop.example", &roots);
    assert_eq!(seen(), Ok(shop.only().1));
    let _agent = shop.agent();
    let load = Load::start(Protocol::Postgres, port, "db.shop.example", &roots);
    shop.swaps(&load, 20);
    drop(load);
    let last = shop.only().1;
    within(5, "openssl sees the last", || seen().ok().filter(|version| *version == last));
}
