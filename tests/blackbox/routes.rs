//! What lies below workers/ is what has a URL.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::house::http::read_all;
use crate::house::worker::{only_files, says, write};
use crate::house::{House, until};

#[test]
fn a_new_directory_gains_a_route_and_a_removed_one_loses_it() {
    let house = House::new().worker("index", says("index")).open();
    house.get("/api").is("index");
    house.replace("api", says("api"));
    house
        .reload()
        .succeeds()
        .says("api: generation 1 serves")
        .says("index: unchanged");
    house.get("/api").is("api");
    let pid = house.pid("api");
    house.remove("api");
    house.reload().succeeds().says("api: removed");
    house.get("/api").is("index");
    crate::house::process::gone(pid);
    until("systemd has forgotten it", || {
        house.loaded("tqserver-api@*").is_empty()
    });
}

#[test]
fn a_removed_worker_ends_its_requests_first() {
    let house = House::new()
        .worker("index", says("index"))
        .worker("api", says("api"))
        .open();
    let mut client = house.client();
    client.send("/api/slow?ms=1000").expect("send a request");
    until("it is in flight", || {
        house.status("api").generations[0].in_flight == 1
    });
    house.remove("api");
    house.reload().succeeds().says("api: removed");
    house.get("/api").is("index");
    client.receive().expect("an answer").is("slow");
}

#[test]
fn a_renamed_directory_moves_its_route() {
    let house = House::new().worker("old", says("here")).open();
    house.get("/old").is("here");
    house.get("/new").has_status(404);
    std::fs::create_dir_all(house.worker_directory("new")).expect("make a directory");
    house.remove("old");
    house.replace("new", says("here"));
    house
        .reload()
        .succeeds()
        .says("old: removed")
        .says("new: generation 1 serves");
    house.get("/new").is("here");
    house.get("/old").has_status(404);
}

#[test]
fn a_nested_directory_is_a_nested_route() {
    let house = House::new()
        .worker("api", says("api"))
        .worker("api/users", says("users").config(""))
        .worker("api/part", says("part"))
        .open();
    house.get("/api").is("api");
    house.get("/api/users").is("users");
    house.get("/api/users/7").is("users");
    house.get("/api/usersx").is("api");
    house.get("/api/part").is("api");
    house.units("api.users").are(["generation 1 serving"]);
    house.units("api.part").are([""; 0]);
}

#[test]
fn a_program_has_the_workers_inside_and_its_public_directory_in_its_snapshot() {
    let house = House::new()
        .worker(
            "api",
            says("api")
                .file("public/manifest.json", "{}")
                .file(".next/BUILD_ID", "abc"),
        )
        .worker("api/users", says("users").config(""))
        .worker("api/off", says("off").config("enabled: false"))
        .production()
        .open();
    let run = format!("/proc/{}/cwd", house.pid("api"));
    let has = |file: &str| Path::new(&run).join(file).exists();
    for file in [
        "public/manifest.json",
        ".next/BUILD_ID",
        "users/behaviour",
        "off/behaviour",
    ] {
        assert!(has(file), "{file}");
    }
    house.get("/api/manifest.json").is("{}");
    // Each has what it reads of the other's.
    house.replace("api/users", says("others").config(""));
    house
        .reload()
        .succeeds()
        .says("api: generation 2 serves")
        .says("api.users: generation 2 serves");
    house.get("/api/users").is("others");
    let assets = house.worker_directory("api").join("public/manifest.json");
    write(&assets, "{\"a\": 1}");
    house
        .reload()
        .succeeds()
        .says("api: generation 3 serves")
        .says("api.users: unchanged");
    house.get("/api/manifest.json").is("{\"a\": 1}");
}

#[test]
fn a_worker_says_its_path_itself() {
    let house = House::new()
        .worker("shop", says("shop").config("path: /buy/here"))
        .open();
    house.get("/buy/here").is("shop");
    house.get("/shop").has_status(404);
    house.replace("shop", says("shop").config("path: /sell"));
    house.reload().succeeds();
    house.get("/sell").is("shop");
    house.get("/buy/here").has_status(404);
}

#[test]
fn a_second_worker_on_a_path_is_refused_and_the_first_serves_on() {
    let house = House::new().worker("shop", says("shop")).open();
    house.replace("other", says("other").config("path: /shop"));
    let ran = house.reload();
    ran.exits(1).says("/shop");
    house.get("/shop").is("shop");
    house.run(["check"]).exits(78).says("/shop");
}

#[test]
fn two_workers_share_a_path_on_two_hosts() {
    let house = House::new()
        .worker("shop", says("shop").config("{path: /, hosts: [shop.test]}"))
        .worker(
            "blogs",
            says("blogs").config("{path: /, hosts: ['*.blog.test'], strip_prefix: true}"),
        )
        .worker(
            "rest",
            only_files()
                .config("{type: static, path: /, error_pages: {404: lost.html}, redirects: [{from: /old/*, to: /new/*}]}")
                .file("public/lost.html", "lost"),
        )
        .open();
    let on = |host: &str, path: &str| house.client().on(host).get(path).expect("an answer");
    on("shop.test", "/").is("shop");
    on("SHOP.test.:8080", "/").is("shop");
    on("a.blog.test", "/").is("blogs");
    on("blog.test", "/x").has_status(404).holds("lost");
    on("other.test", "/old/x?y").has_status(308);
    on("a.blog.test", "/health").has_status(200);
    assert_eq!(house.status("shop").route, "shop.test/");
    assert_eq!(house.status("blogs").route, "*.blog.test/");
    assert_eq!(house.status("rest").route, "/");

    house.replace(
        "thief",
        says("thief").config("{path: /, hosts: [x.test, shop.test]}"),
    );
    house
        .reload()
        .exits(1)
        .says("the route shop.test/ is that of the worker 'shop' already");
    on("shop.test", "/").is("shop");
    on("x.test", "/").has_status(404);
    house.remove("thief");

    house.replace(
        "shop",
        says("moved").config("{path: /, hosts: [store.test]}"),
    );
    house.reload().succeeds();
    on("store.test", "/").is("moved");
    on("shop.test", "/").has_status(404);
}

#[test]
fn a_disabled_worker_has_no_route() {
    let house = House::new().worker("shop", says("shop")).open();
    house.replace("shop", says("shop").config("enabled: false"));
    house.reload().succeeds().says("shop: removed");
    house.get("/shop").has_status(404);
    house.replace("shop", says("shop again").config("enabled: development"));
    house.reload().succeeds();
    house.get("/shop").is("shop again");
}

#[test]
fn a_worker_on_a_port_is_reloaded_like_any_other() {
    let (first, last) = free_ports();
    let house = House::new().worker("index", says("one").config("listen: port"));
    let house = house
        .workers_section(&format!(
            "    port_range_start: {first}\n    port_range_end: {last}\n"
        ))
        .open();
    house.get("/").is("one");
    let port: u16 = house.get("/env").json()["PORT"]
        .as_str()
        .and_then(|port| port.parse().ok())
        .expect("a PORT");
    assert!(
        (first..=last).contains(&port),
        "port {port} is not in {first}..={last}"
    );
    let load = house.load("/", 4);
    house.replace("index", says("two").config("listen: port"));
    house.reload().succeeds();
    load.reaches(20);
    load.stop().only(&["one", "two"]);
    house.get("/").is("two");
    house.units("index").are(["generation 2 serving"]);
}

/// Ports below those the kernel gives to clients, free a moment ago.
fn free_ports() -> (u16, u16) {
    let mut random = fastrand::Rng::new();
    loop {
        let first = random.u16(15_000..30_000);
        let range = first..=first + 3;
        if range
            .clone()
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        {
            return (first, *range.end());
        }
    }
}

#[test]
fn a_static_worker_has_files_and_no_process() {
    let house = House::new()
        .worker(
            "docs",
            only_files()
                .file("public/a.txt", "a")
                .file("public/index.html", "<h1>docs</h1>"),
        )
        .open();
    house.get("/docs/a.txt").is("a");
    house.get("/docs").leads_to("/docs/");
    house.get("/docs/").is("<h1>docs</h1>");
    house.get("/docs/none").has_status(404);
    assert_eq!(house.loaded("tqserver-docs@*"), Vec::<String>::new());
    house.replace("docs", only_files().file("public/a.txt", "other"));
    house.reload().succeeds();
    house.get("/docs/a.txt").is("other");
}

#[test]
fn new_assets_are_live_without_a_new_process() {
    let house = House::new()
        .worker("index", says("one").file("public/site.css", "a {}"))
        .open();
    let pid = house.pid("index");
    crate::house::worker::write(
        &house.worker_directory("index").join("public/site.css"),
        "b {}",
    );
    house.reload().succeeds().says("index: new assets are live");
    house.get("/site.css").is("b {}");
    assert_eq!(house.pid("index"), pid);
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn a_reload_fails_when_the_new_port_is_taken_and_the_old_one_serves_on() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let house = House::new()
        .worker("index", says("one"))
        .server_yaml("server: {address: 127.0.0.1, port: 0}\n")
        .open();
    house.write_server_yaml(&format!("server: {{address: 127.0.0.1, port: {port}}}\n"));
    house
        .reload()
        .fails_with("is in use by ")
        .says(&format!("(PID {})", std::process::id()))
        .says("index: unchanged");
    house.get("/").is("one");
    drop(taken);
    house.reload().succeeds();
    let mut client = crate::house::http::Client::new(([127, 0, 0, 1], port).into());
    client.get("/").expect("an answer").is("one");
}

#[test]
fn answers_are_compressed_unless_the_worker_does_not_want_it() {
    let files = || only_files().file("public/index.html", &"<p>page</p>".repeat(500));
    let house = House::new()
        .worker("index", files())
        .worker("plain", files().config("compression: false"))
        .open();
    for (path, expected) in [("/", true), ("/plain/", false)] {
        let mut stream = TcpStream::connect(house.address()).expect("connect");
        let asked = format!(
            "HEAD {path} HTTP/1.1\r\nhost: h\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).expect("ask");
        let head = read_all(stream);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let coded = head.contains("\r\ncontent-encoding: gzip\r\n");
        assert_eq!(coded, expected, "{path}: {head}");
    }
}
