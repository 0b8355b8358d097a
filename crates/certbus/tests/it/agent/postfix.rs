//! Debian's Postfix, through the kind `files`: smtpd with STARTTLS.

use std::process::Command;

use super::load::{Load, Protocol};
use super::{Server, free_port, ids, open_to_servers, openssl_starttls, path_with_sbin, within};
use crate::shop::Shop;

const TARGET: &str = r#"
[[target]]
kind = "files"
name = "postfix"
names = ["mail.shop.example"]
combined = "DIR/certs/{name}.pem"
check = ["postfix", "-c", "DIR/postfix", "check"]
reload = ["postfix", "-c", "DIR/postfix", "reload"]
"#;

fn configure(shop: &Shop, port: u16) {
    open_to_servers(shop);
    let (user, _) = ids("postfix");
    for folder in ["postfix", "queue", "postfix-data"] {
        std::fs::create_dir(shop.path(folder)).unwrap();
    }
    std::os::unix::fs::chown(shop.path("postfix-data"), Some(user), None).unwrap();
    let main = r#"
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/postfix-data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = mail.shop.example
alias_maps =
local_recipient_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = DIR/certs/mail.shop.example.pem
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
maillog_file = DIR/mail.log
maillog_file_prefixes = DIR
"#;
    let master = r#"
127.0.0.1:PORT inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"#;
    let fill =
        |text: &str| text.replace("DIR", shop.folder.path().to_str().unwrap()).replace("PORT", &port.to_string());
    std::fs::write(shop.path("postfix/main.cf"), fill(main)).unwrap();
    std::fs::write(shop.path("postfix/master.cf"), fill(master)).unwrap();
}

fn start(shop: &Shop, port: u16) -> Server {
    let postfix = |word: &str| {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(shop.path("postfix")).arg(word).env("PATH", path_with_sbin());
        command
    };
    let mut server = Server::start(&mut postfix("start-fg"), port, &shop.path("postfix.log"));
    server.stop = Some(postfix("stop"));
    server
}

#[test]
fn postfix_serves_twenty_renewals_by_starttls_and_no_new_connection_fails() {
    let shop = Shop::with_targets(&["mail.shop.example"], TARGET);
    let port = free_port();
    configure(&shop, port);
    shop.once(1, &["first ones stay"]);
    let _postfix = start(&shop, port);
    shop.once(0, &[]);
    let roots = shop.path("roots.pem");
    let seen = || openssl_starttls("smtp", port, "mail.shop.example", &roots);
    assert_eq!(seen(), Ok(shop.only().1));
    let _agent = shop.agent();
    let load = Load::start(Protocol::Smtp, port, "mail.shop.example", &roots);
    shop.swaps(&load, 20);
    drop(load);
    let last = shop.only().1;
    within(5, "openssl sees the last", || seen().ok().filter(|version| *version == last));
}
