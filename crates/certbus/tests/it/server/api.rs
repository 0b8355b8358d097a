//! What the API has beside its pages: lines in and out, many at a time, lists by pages.

use serde_json::Value;

use super::Laptop;
use crate::shop::Shop;
use crate::web::served;

#[test]
fn the_api_imports_exports_pages_and_counts() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let api = web.with_header(&format!("authorization: Bearer {}", shop.token("ci", "admin")));
    let read = |path: &str| -> Value {
        let answer = api.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    let who = read("/api/v1/whoami");
    assert_eq!((&who["name"], &who["role"], &who["tenant"]), (&"token ci".into(), &"admin".into(), &"default".into()));
    let lines = "host,name\na.test,=1+1\nno host!,x\nb.test,\n";
    let done = api.text("POST", "/api/v1/endpoints/import", "text/csv", lines);
    let done: Value = serde_json::from_str(&done.body).unwrap();
    assert_eq!(
        (&done["added"], &done["refused"], &done["errors"][0]["line"]),
        (&2.into(), &1.into(), &3.into()),
        "{done}"
    );
    assert_eq!(api.text("POST", "/api/v1/endpoints/import", "application/json", "{}").status, 415);
    assert_eq!(api.text("POST", "/api/v1/endpoints/import", "text/csv", "").status, 400);
    let csv = api.get("/api/v1/endpoints/export?format=csv");
    assert_eq!(csv.header("content-type").unwrap(), "text/csv; charset=utf-8");
    assert!(csv.body.contains("a.test,443,,none,'=1+1,"), "no formula: {}", csv.body);
    let again = api.text("POST", "/api/v1/endpoints/import", "text/csv", &csv.body);
    assert!(again.body.contains("\"same\":2"), "the quote is taken off again: {}", again.body);
    let both = [api.with_header("accept: text/csv").get("/api/v1/endpoints/export").body, csv.body];
    assert_eq!(both[0], both[1]);
    assert_eq!(api.get("/api/v1/endpoints/export").body, shop.ok(&["endpoint", "export"]).out);
    assert_eq!(api.get("/api/v1/endpoints/export?format=xml").status, 400);
    let bulk = |body: Value| api.json("POST", "/api/v1/endpoints/bulk", &body);
    let done: Value =
        serde_json::from_str(&bulk(serde_json::json!({"do": "tag", "ids": [1, 2, 99], "tag": "eu"})).body).unwrap();
    assert_eq!(done["done"], 2, "{done}");
    assert_eq!(bulk(serde_json::json!({"do": "tag", "ids": [1]})).status, 400);
    assert_eq!(bulk(serde_json::json!({"do": "burn", "ids": [1]})).status, 400);
    let done: Value =
        serde_json::from_str(&bulk(serde_json::json!({"do": "untag", "ids": [1], "tag": "eu"})).body).unwrap();
    assert_eq!(
        (done["done"].as_i64(), shop.ok(&["endpoint", "ls", "--tag", "eu", "--json"]).out.lines().count()),
        (Some(1), 1)
    );
    for name in 0..5 {
        shop.ok(&["token", "new", &format!("t{name}")]);
        shop.ok(&["cert", "mk", "--subdomain", &format!("n{name}.shop.example")]);
    }
    for (path, count) in [("tokens", 6), ("users", 1), ("managed", 5), ("audit", 12), ("changes", 0), ("endpoints", 2)]
    {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = read(&format!("/api/v1/{path}?limit=2{after}"));
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2, "{page}");
            found.extend(items.iter().map(Value::to_string));
            match page["next"].as_str() {
                None => break,
                Some(next) => after = format!("&after={}", next.replace('|', "%7C")),
            }
        }
        let (all, unique) = (found.len(), found.into_iter().collect::<std::collections::BTreeSet<_>>().len());
        assert_eq!(all, unique, "{path}: each once");
        assert!(if path == "audit" { all >= count } else { all == count }, "{path}: {all}");
    }
    assert_eq!(api.get("/api/v1/audit?after=x").status, 404);
    let expiries = read("/api/v1/expiries?days=7");
    assert_eq!((expiries["days"].as_array().unwrap().len(), expiries["life_left"].as_array().unwrap().len()), (7, 11));
    assert_eq!(api.get("/api/v1/expiries?days=0").status, 400);
    assert_eq!(api.get("/api/v1/endpoints?sort=mood").status, 400);
    assert_eq!(read("/api/v1/endpoints?sort=expiry")["items"].as_array().unwrap().len(), 0, "none has a certificate");
}

#[test]
fn pages_of_tasks_begin_where_the_one_before_ended_the_given_up_first() {
    let shop = Shop::internal();
    let store = shop.data().join("inventory.db");
    let put = async {
        use certbus_store::tasks::{ATTEMPTS, NewTask, TaskQueue};
        let store = certbus_store::Store::open(&store).await.unwrap();
        let now = certbus_manager::clock::now();
        let task = |n: usize| NewTask { lane: format!("lane/{n}"), key: None, body: "{}".into() };
        store.add(&(0..5).map(task).collect::<Vec<_>>(), now).await.unwrap();
        let mut now = now;
        for _ in 0..ATTEMPTS {
            let leased = store.lease("lane/3", 1, now, std::time::Duration::from_secs(60)).await.unwrap();
            store.failed(&leased[0], "no way there", now).await.unwrap();
            now = now.plus(std::time::Duration::from_secs(3600));
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(put);
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    let lanes = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["lane"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = laptop.ok(&["task", "ls", "--json"]).out;
    let mine: Vec<String> = lanes(&all).into_iter().filter(|lane| lane.starts_with("lane/")).collect();
    assert_eq!(mine, ["lane/3", "lane/0", "lane/1", "lane/2", "lane/4"]);
    let api = web.with_header(&format!("authorization: Bearer {}", laptop.token));
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = serde_json::from_str(&api.get(&format!("/api/v1/tasks?limit=1{after}")).body).unwrap();
        paged.extend(page["items"].as_array().unwrap().iter().map(|one| one["lane"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            None => break,
            Some(next) => after = format!("&after={next}"),
        }
    }
    assert_eq!(paged.into_iter().filter(|lane| lane.starts_with("lane/")).collect::<Vec<_>>(), mine);
    let dead = serde_json::from_str::<Value>(all.lines().next().unwrap()).unwrap()["id"].to_string();
    assert_eq!(laptop.ok(&["task", "retry", &dead]).out, format!("✓ task {dead} is tried again\n"));
    laptop.fails(&["task", "retry", &dead], 3, &["no task that was given up"]);
    assert!(
        shop.ok(&["audit", "--json"])
            .out
            .contains("\"actor\":\"token laptop-write\",\"source\":\"127.0.0.1\",\"action\":\"task retry\"")
    );
}
