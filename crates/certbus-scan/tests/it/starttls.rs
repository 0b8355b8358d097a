//! Debian's servers of every protocol that begins without TLS. What is seen equals what `openssl s_client -starttls` shows.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use certbus_scan::Target;
use certbus_scan::found::Proof;
use certbus_scan::observation::Look;
use certbus_scan::starttls::Starttls;
use certbus_scan::ways::Method;

use crate::support::{Certificates, Key, Server, found, free_port, options, s_client, target};

/// A folder that servers may enter that give root up, with one certificate.
struct World {
    all: Certificates,
    chain: PathBuf,
    key: PathBuf,
}

impl World {
    fn new(key: Key) -> Self {
        let all = Certificates::new();
        let (chain, key) = all.make("a.test", key);
        std::fs::set_permissions(all.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { all, chain, key }
    }

    fn folder(&self, name: &str, user: Option<&str>) -> PathBuf {
        let path = self.all.path(name);
        std::fs::create_dir(&path).unwrap();
        if let Some(user) = user {
            let (user, group) = ids(user);
            std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }

    /// Writes a file, with the places of this world in it.
    fn write(&self, name: &str, ports: &[u16], text: &str) -> PathBuf {
        let folder = self.all.path("");
        let mut text = text.replace("DIR", folder.to_str().unwrap().trim_end_matches('/'));
        for (number, port) in ports.iter().enumerate() {
            text = text.replace(&format!("PORT{number}"), &port.to_string());
        }
        let text = text.replace("CHAIN", self.chain.to_str().unwrap()).replace("KEY", self.key.to_str().unwrap());
        std::fs::write(self.all.path(name), text).unwrap();
        self.all.path(name)
    }

    fn start(&self, command: &mut Command, port: u16) -> Server {
        Server::start(command, port, &self.all.path("server.log"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.all.path("server.log")).unwrap_or_default()
    }

    /// Quick, full and finished looks show what OpenSSL's client does.
    fn looks_like_s_client(&self, port: u16, protocol: Starttls) {
        let shown = s_client(port, Some(protocol), &["-servername", "a.test"]);
        assert!(!shown.chain.is_empty(), "{protocol}: {}", self.log());
        let ways = [
            (Method::Quick, Proof::Presented, Look::Quick),
            (Method::Quick, Proof::Signed, Look::Quick),
            (Method::Full, Proof::Presented, Look::Full),
            (Method::Auto, Proof::Finished, Look::Full),
        ];
        for (method, proof, look) in ways {
            let asked = Target { starttls: Some(protocol), ..target(port) };
            let (seen, observation) = found(asked, &options(method, proof));
            assert_eq!(seen.chain, shown.chain, "{protocol} {method:?}");
            assert_eq!((seen.proof, seen.shortfall, observation.method), (proof, None, look), "{protocol} {method:?}");
            assert!(observation.timings.starttls.is_some());
        }
    }
}

fn ids(user: &str) -> (u32, u32) {
    let number = |flag| {
        let output = Command::new("id").args([flag, user]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (number("-u"), number("-g"))
}

#[test]
fn postfix_is_seen_over_smtp() {
    let world = World::new(Key::Ecdsa);
    let port = free_port();
    for folder in ["postfix", "queue"] {
        world.folder(folder, None);
    }
    world.folder("postfix-data", Some("postfix"));
    world.write("postfix/main.cf", &[port], POSTFIX_MAIN);
    world.write("postfix/master.cf", &[port], POSTFIX_MASTER);
    let both = std::fs::read_to_string(&world.key).unwrap() + &std::fs::read_to_string(&world.chain).unwrap();
    std::fs::write(world.all.path("both.pem"), both).unwrap();
    let mut command = Command::new("postfix");
    command.arg("-c").arg(world.all.path("postfix")).arg("start-fg");
    let _server = world.start(&mut command, port);
    world.looks_like_s_client(port, Starttls::Smtp);
}

const POSTFIX_MAIN: &str = r"
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/postfix-data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = a.test
alias_maps =
local_recipient_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = DIR/both.pem
smtpd_peername_lookup = no
maillog_file = DIR/mail.log
maillog_file_prefixes = DIR
";

const POSTFIX_MASTER: &str = r"
127.0.0.1:PORT0 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
";

#[test]
fn dovecot_is_seen_over_imap_pop3_lmtp_and_sieve() {
    let world = World::new(Key::Rsa);
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let file = world.write("dovecot.conf", &ports, DOVECOT);
    let _server = world.start(Command::new("dovecot").arg("-F").arg("-c").arg(file), ports[3]);
    let protocols = [Starttls::Imap, Starttls::Pop3, Starttls::Lmtp, Starttls::Sieve];
    for (port, protocol) in ports.into_iter().zip(protocols) {
        world.looks_like_s_client(port, protocol);
    }
}

const DOVECOT: &str = r"
base_dir = DIR/dovecot-run
state_dir = DIR/dovecot-state
log_path = DIR/server.log
protocols = imap pop3 lmtp sieve
listen = 127.0.0.1
ssl = yes
ssl_cert = <CHAIN
ssl_key = <KEY
login_trusted_networks = 127.0.0.0/8
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
service imap-login {
  inet_listener imap {
    port = PORT0
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = PORT1
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = PORT2
  }
}
service managesieve-login {
  inet_listener sieve {
    port = PORT3
  }
}
";

#[test]
fn vsftpd_is_seen_over_ftp() {
    let world = World::new(Key::Rsa);
    let port = free_port();
    world.folder("empty", None);
    let text = "listen=YES\nlisten_address=127.0.0.1\nlisten_port=PORT0\nbackground=NO\nrun_as_launching_user=YES\n\
        seccomp_sandbox=NO\nanonymous_enable=YES\nno_anon_password=YES\nssl_enable=YES\nallow_anon_ssl=YES\nssl_tlsv1=YES\nrequire_ssl_reuse=NO\n\
        ssl_ciphers=HIGH\nrsa_cert_file=CHAIN\nrsa_private_key_file=KEY\nsecure_chroot_dir=DIR/empty\n";
    let file = world.write("vsftpd.conf", &[port], text);
    let _server = world.start(Command::new("vsftpd").arg(file), port);
    world.looks_like_s_client(port, Starttls::Ftp);
}

#[test]
fn slapd_is_seen_over_ldap() {
    let world = World::new(Key::Ecdsa);
    let port = free_port();
    let text = "pidfile DIR/slapd.pid\nargsfile DIR/slapd.args\nTLSCACertificateFile DIR/ca.pem\n\
        TLSCertificateFile CHAIN\nTLSCertificateKeyFile KEY\n";
    let file = world.write("slapd.conf", &[], text);
    let mut command = Command::new("slapd");
    command.args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{port}"), "-f"]).arg(file);
    let _server = world.start(&mut command, port);
    world.looks_like_s_client(port, Starttls::Ldap);
}

#[test]
fn inn_is_seen_over_nntp() {
    let world = World::new(Key::Ecdsa);
    let port = free_port();
    world.folder("news", Some("news"));
    let (user, group) = ids("news");
    std::os::unix::fs::chown(&world.key, Some(user), Some(group)).unwrap();
    std::fs::set_permissions(&world.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = "domain: a.test\nfromhost: a.test\npathhost: a.test\nmta: /bin/true\nhismethod: hisv6\novmethod: tradindexed\n\
        pathnews: /usr/lib/news\npathetc: /etc/news\npathrun: DIR/news\npathdb: DIR/news\npathlog: DIR/news\n\
        pathspool: DIR/news\npathoverview: DIR/news/overview\npathtmp: DIR/news\n\
        tlscafile: DIR/ca.pem\ntlscertfile: CHAIN\ntlskeyfile: KEY\n";
    let file = world.write("inn.conf", &[], text);
    // Without groups and an overview of them, nobody is let in.
    world.write("news/active", &[], "control 0000000000 0000000001 n\njunk 0000000000 0000000001 n\n");
    world.folder("news/overview", Some("news"));
    let mut overview = Command::new("/usr/lib/news/bin/makehistory");
    let made = overview.args(["-O", "-x", "-F"]).env("INNCONF", &file).uid(user).gid(group).output().unwrap();
    assert!(world.all.path("news/overview/group.index").exists(), "{made:?}");
    let mut command = Command::new("/usr/lib/news/bin/nnrpd");
    command.args(["-D", "-f", "-4", "127.0.0.1", "-p", &port.to_string()]).env("INNCONF", file).uid(user).gid(group);
    let _server = world.start(&mut command, port);
    world.looks_like_s_client(port, Starttls::Nntp);
}

#[test]
fn postgresql_is_seen() {
    let world = World::new(Key::Ecdsa);
    let port = free_port();
    let folder = world.folder("pg", Some("postgres"));
    let (user, group) = ids("postgres");
    std::os::unix::fs::chown(&world.key, Some(user), Some(group)).unwrap();
    std::fs::set_permissions(&world.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("ci/install-counterparties installs PostgreSQL");
    let programs = versions.map(|entry| entry.unwrap().path().join("bin")).max().unwrap();
    let run = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.uid(user).gid(group).current_dir("/");
        command
    };
    let made = run("initdb").args(["-A", "trust", "-D"]).arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let settings = [
        format!("port={port}"),
        format!("unix_socket_directories={}", folder.display()),
        "ssl=on".into(),
        format!("ssl_cert_file={}", world.chain.display()),
        format!("ssl_key_file={}", world.key.display()),
    ];
    let mut command = run("postgres");
    command.arg("-D").arg(&folder).args(settings.iter().flat_map(|setting| ["-c", setting]));
    let _server = world.start(&mut command, port);
    world.looks_like_s_client(port, Starttls::Postgres);
}

#[test]
fn mariadb_is_seen_over_mysql() {
    let world = World::new(Key::Rsa);
    let port = free_port();
    let data = world.folder("maria", None);
    let mut install = Command::new("mariadb-install-db");
    install.args(["--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    let made = install.arg(format!("--datadir={}", data.display())).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = Command::new("mariadbd");
    command.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", &format!("--port={port}")]);
    let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
    command.arg(file("datadir", &data)).arg(file("socket", &world.all.path("maria.sock")));
    command.arg(file("ssl-cert", &world.chain)).arg(file("ssl-key", &world.key));
    let _server = world.start(&mut command, port);
    world.looks_like_s_client(port, Starttls::Mysql);
}

#[test]
fn prosody_is_seen_over_xmpp_from_clients_and_from_servers() {
    let world = World::new(Key::Ecdsa);
    let ports = [free_port(), free_port()];
    world.folder("prosody", Some("prosody"));
    let (user, group) = ids("prosody");
    std::os::unix::fs::chown(&world.key, Some(user), Some(group)).unwrap();
    let text = r#"
run_as_root = true
pidfile = "DIR/prosody/prosody.pid"
data_path = "DIR/prosody"
interfaces = { "127.0.0.1" }
c2s_ports = { PORT0 }
s2s_ports = { PORT1 }
modules_enabled = { "tls", "saslauth", "dialback" }
modules_disabled = { "http" }
c2s_require_encryption = true
log = { warn = "*console" }
ssl = { certificate = "CHAIN", key = "KEY" }
VirtualHost "a.test"
"#;
    let file = world.write("prosody.cfg.lua", &ports, text);
    let mut command = Command::new("prosody");
    command.arg("-F").arg("--config").arg(file).uid(user).gid(group);
    let _server = world.start(&mut command, ports[1]);
    world.looks_like_s_client(ports[0], Starttls::Xmpp);
    world.looks_like_s_client(ports[1], Starttls::XmppServer);
}
