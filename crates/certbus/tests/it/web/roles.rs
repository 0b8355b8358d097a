//! Every route × everybody, from one table that stands here: a route that is not in it fails the test.

use std::collections::BTreeMap;

use certbus_core::access::Role;
use certbus_manager::web::routes::{Access, table};

use super::{PASSWORD, served};
use crate::shop::Shop;

/// What is answered to whom: `open`, `local`, the least role, or that and a person.
const TABLE: &str = include_str!("routes.txt");

#[test]
fn every_route_is_answered_to_who_may_and_to_nobody_else() {
    let word = |access: Access| match access {
        Access::Open => "open",
        Access::Local => "local",
        Access::Certs => "certs",
        Access::Role(role) => role.as_str(),
        Access::Person(Role::Admin) => "admin-in-person",
        Access::Person(_) => "person",
    };
    let written: BTreeMap<String, &str> = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').map(|(route, least)| (route.trim().to_owned(), least)).unwrap())
        .collect();
    let answered: BTreeMap<String, &str> =
        table().iter().map(|route| (format!("{} {}", route.method, route.path), word(route.access))).collect();
    assert_eq!(written, answered, "the routes and web/routes.txt differ");

    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    shop.add_user("bob", "operator");
    shop.add_user("carl", "viewer");
    let token = |scope: &str| web.with_header(&format!("authorization: Bearer {}", shop.token(scope, scope)));
    let everybody = [
        ("nobody", web.clone(), None),
        ("a wrong token", web.with_header("authorization: Bearer certbus_wrong"), None),
        ("a wrong cookie", web.with_cookie("certbus_session=wrong"), None),
        ("a token of metrics", token("metrics"), None),
        ("a token of certs", token("certs"), None),
        ("viewer", web.login("carl", PASSWORD), Some(Role::Viewer)),
        ("operator", web.login("bob", PASSWORD), Some(Role::Operator)),
        ("admin", web.login("ann", PASSWORD), Some(Role::Admin)),
        ("a token to read", token("read"), Some(Role::Viewer)),
        ("a token to write", token("write"), Some(Role::Operator)),
        ("a token of an admin", token("admin"), Some(Role::Admin)),
    ];
    // Logging out ends a session, and logging in wrongly slows all: these two are other tests' subject.
    let routes = written.iter().filter(|(route, _)| !matches!(route.as_str(), "POST /logout" | "POST /login"));
    let mut asked = 0;
    for (route, least) in routes {
        let (method, path) = route.split_once(' ').unwrap();
        // Nothing of that number or name is there, so whoever may changes nothing.
        let path = path.replace("{id}", "987654").replace("{name}", "nobody-of-that-name").replace("{version}", "x");
        let path = path
            .replace("{secret}", "x")
            .replace("{file}", "x")
            .replace("{fingerprint}", &"0".repeat(64))
            .replace("{hash}", &"0".repeat(64));
        for (who, web, role) in &everybody {
            let may = match *least {
                "open" | "local" => true,
                "certs" => *who == "a token of certs" || role.is_some(),
                "person" => role.is_some() && !who.starts_with("a token"),
                "admin-in-person" => *who == "admin",
                least => *role >= Some(least.parse::<Role>().unwrap()),
            };
            let status = web.status(method, &path).status;
            let for_programs = path.starts_with("/api/");
            let refused = match status {
                401 | 403 => true,
                303 => web.status(method, &path).location().starts_with("/login") && role.is_none() && path != "/login",
                _ => false,
            };
            assert_eq!(refused, !may, "{who}: {method} {path}: {status}");
            assert!(status < 500, "{who}: {method} {path}: {status}");
            if for_programs && !may && role.is_none() && !who.starts_with("a token of") {
                assert_eq!(status, 401, "{who}: {method} {path}");
            }
            asked += 1;
        }
    }
    assert!(asked > 600, "{asked}");
}
