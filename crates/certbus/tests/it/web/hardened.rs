//! What somebody would try who wants in, or wants others out.

use std::process::Stdio;

use super::http::Web;
use super::{PASSWORD, served};
use crate::shop::{Ran, Running, Shop, eventually};

#[test]
fn guesses_at_once_are_slowed_as_guesses_one_by_one_and_others_at_the_same_address_are_not() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    shop.add_user("bob", "viewer");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = |n: usize| {
            let web = &web;
            move || web.form("/login", &[("name", "ann"), ("password", &format!("guess number {n}"))]).status
        };
        let all: Vec<_> = (0..24).map(|n| scope.spawn(guess(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let looked_at = statuses.iter().filter(|status| **status == 401).count();
    assert!((3..=5).contains(&looked_at), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    web.login("bob", PASSWORD);
}

#[test]
fn a_token_is_of_its_tenant_and_makes_neither_tokens_nor_users() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let bearer = |token: &str| web.with_header(&format!("authorization: Bearer {token}"));
    let admin = bearer(&shop.token("admin", "admin"));
    assert_eq!(admin.form("/tokens", &[("name", "more"), ("scope", "admin")]).status, 403);
    assert_eq!(admin.form("/users", &[("name", "eve"), ("role", "admin")]).status, 403);
    let other = shop.ok(&["--tenant", "other", "token", "new", "other", "--scope", "admin"]).out;
    for path in ["/", "/api/v1/glance", "/metrics", "/api/v1/endpoints"] {
        assert_eq!(bearer(other.trim()).get(path).status, 403, "{path}");
        assert_eq!(admin.get(path).status, 200, "{path}");
    }
}

#[test]
fn another_host_a_forged_hop_and_a_large_body_are_refused() {
    let shop = Shop::internal();
    shop.add_user("ann", "admin");
    let conf = "[web]\ntls = \"proxy\"\ntrusted_proxies = [\"127.0.0.1\"]\npublic_url = \"https://certbus.example\"\n";
    let before = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    std::fs::write(shop.path("certbus.toml"), format!("{before}\n{conf}")).unwrap();
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = shop.command(&["serve", "--listen", &place]);
    let out = std::fs::File::create(shop.path("serve.log")).unwrap();
    let _server = Running::new(command.stdout(out).spawn().unwrap());
    let web = eventually("it listens", || std::net::TcpStream::connect(&place).ok().map(|_| Web::at(&place)));
    for hops in ["127.0.0.1, 203.0.113.5", "127.0.0.1, 203.0.113.5:4711", "127.0.0.1, unknown", "127.0.0.1"] {
        let answer = web.with_header(&format!("x-forwarded-for: {hops}")).get("/metrics");
        assert_eq!(answer.status, 401, "{hops}");
    }
    assert_eq!(web.named("evil.example").get("/healthz").status, 421);
    assert_eq!(web.named("certbus.example").get("/healthz").status, 200);
    let large = "x".repeat(100_000);
    assert!(web.try_form("/login", &[("name", "ann"), ("password", &large)]).is_none_or(|answer| answer.status == 413));
    let done = web.form("/login", &[("name", "ann"), ("password", PASSWORD)]);
    assert!(done.header("set-cookie").unwrap().starts_with("__Host-certbus_session=") && done.cookie().len() > 40);
    assert!(done.header("set-cookie").unwrap().contains("Secure"));
}

#[test]
fn behind_a_proxy_nobody_else_from_another_machine_is_answered() {
    let shop = Shop::internal();
    let conf = "[web]\ntls = \"proxy\"\ntrusted_proxies = [\"10.9.9.8\"]\npublic_url = \"https://certbus.example\"\n";
    let before = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    std::fs::write(shop.path("certbus.toml"), format!("{before}\n{conf}")).unwrap();
    let script = format!(
        "ip link set lo up && ip addr add 10.9.9.8/32 dev lo && ip addr add 10.9.9.9/32 dev lo
        {} serve --listen 10.9.9.9:8080 >serve.log 2>&1 & server=$!
        for wait in $(seq 100); do ss -ltn | grep -q :8080 && break; sleep 0.1; done
        for from in 10.9.9.8 10.9.9.9; do
            curl -sS -H 'host: certbus.example' --interface $from -o said-$from -w '%{{http_code}}\n' http://10.9.9.9:8080/healthz
        done
        kill $server",
        env!("CARGO_BIN_EXE_certbus")
    );
    // A network of its own: on this machine everybody is at home.
    let command = shop.command(&[]);
    let mut apart = std::process::Command::new("unshare");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    apart.args(["-n", "sh", "-c", &script]).current_dir(shop.path("")).env("PATH", path);
    apart.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::from(apart.output().unwrap());
    let [proxy, stranger] = ran.out.lines().collect::<Vec<_>>()[..] else { panic!("{ran:?}") };
    assert_eq!((proxy, stranger), ("200", "403"), "{ran:?}");
    assert!(std::fs::read_to_string(shop.path("said-10.9.9.9")).unwrap().contains("reached over its proxy"));
}

#[test]
fn a_link_works_for_who_is_logged_in_as_another_and_a_pause_said_twice_is_one() {
    let shop = Shop::internal();
    shop.ok(&["endpoint", "add", "127.0.0.1:9"]);
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let link = shop.ok(&["user", "invite", "bob"]).out.trim().to_owned();
    let path = link.split("/welcome/").nth(1).map(|secret| format!("/welcome/{secret}")).unwrap();
    let fields = [("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(ann.without_csrf().form(&path, &fields).status, 303);
    for _ in 0..2 {
        assert_eq!(ann.form("/endpoints/1/pause", &[("active", "no")]).status, 303);
    }
    assert!(ann.get("/endpoints/1").body.contains("paused"));
    let bulk = ann.form("/endpoints/bulk", &[("do", "poll"), ("id", "1"), ("id", "1"), ("id", "77")]);
    assert_eq!(bulk.status, 303);
    assert_eq!(shop.ok(&["task", "ls", "--json"]).out.matches("now").count(), 0, "what is paused is not polled");
    let trail = shop.ok(&["audit", "--json"]).out;
    assert_eq!(trail.matches("\"endpoint edit\"").count(), 1, "{trail}");
    ann.form("/endpoints/1/pause", &[("active", "yes")]);
    ann.form("/endpoints/bulk", &[("do", "poll"), ("id", "1")]);
    assert_eq!(shop.ok(&["audit", "--json"]).out.matches("\"endpoint poll\"").count(), 1);
}

#[test]
fn another_certificate_than_a_renewal_would_bring_is_a_surprise() {
    let (shop, foreign) = (Shop::internal(), Shop::internal());
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    foreign.ok(&["cert", "mk", "--subdomain", "www.shop.example", "-d", "evil.example"]);
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    // An address of its own, which no other test takes meanwhile.
    let place = "127.0.0.77:8443";
    let serve = |shop: &Shop| {
        let mut command = shop.command(&["example-server", "--listen", place]);
        Running::new(command.stdout(Stdio::null()).spawn().unwrap())
    };
    let first = serve(&shop);
    eventually("it listens", || std::net::TcpStream::connect(place).ok());
    shop.ok(&["endpoint", "add", place, "--sni", "www.shop.example", "--name", "www"]);
    shop.ok(&["endpoint", "poll", "www"]);
    shop.ok(&["cert", "renew", &shop.only().0]);
    eventually("the renewal is served", || {
        shop.ok(&["endpoint", "poll", "www"]);
        Some(()).filter(|()| ann.get("/endpoints/1").body.contains(">renewed<"))
    });
    first.kill();
    let _second = serve(&foreign);
    let page = eventually("the other is served", || {
        shop.ok(&["endpoint", "poll", "www"]);
        Some(ann.get("/endpoints/1").body).filter(|page| page.contains(">surprise<"))
    });
    assert!(page.contains("other names"), "{page}");
}
