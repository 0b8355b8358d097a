//! Programs of others at the API and the metrics: schemathesis.

use std::process::Command;

use super::served;
use crate::shop::Shop;

#[test]
fn schemathesis_finds_nothing_that_the_api_does_not_say_of_itself() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    shop.ok(&["endpoint", "add", &format!("127.0.0.1:{port}"), "--sni", "www.shop.example"]);
    shop.ok(&["endpoint", "poll", "--all"]);
    let (_server, web) = served(&shop);
    let program = std::env::var("CERTBUS_TEST_SCHEMATHESIS").expect("run this by ci/services.py");
    let ran = Command::new(program)
        .args(["run", &format!("http://{}/api/v1/openapi.json", web.place)])
        .args(["-H", &format!("Authorization: Bearer {}", shop.token("schemathesis", "admin"))])
        .args(["--max-examples", "25", "--seed", "1", "--generation-database", "none", "--no-color"])
        .args(["--request-timeout", "10"])
        // Which names there are no schema says: a host that cannot be one is refused, and told why.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(shop.folder.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    let log = std::fs::read_to_string(shop.path("serve.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
