//! PHP scripts, run by a real php-fpm.
//!
//! These need php-fpm, which a machine that builds TQServer need not have: where it is not installed they pass, which the end of
//! `cargo test` says, and fail if `TQ_TEST_ALL` is set.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::Signal;

use crate::house::http::read_all;
use crate::house::process::kill;
use crate::house::worker::{Worker, empty};
use crate::house::{House, until};
use crate::untested::not_tested;

/// Whether there is a php-fpm to test with.
fn is_there() -> bool {
    let installed = ["/usr/sbin", "/usr/local/sbin"].iter().any(|directory| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with("php-fpm"))
    });
    if !installed {
        not_tested("php-fpm is not installed", "apt install php-fpm");
    }
    installed
}

/// A script that says `text` and does what the query asks for.
fn says(text: &str) -> Worker {
    empty().file("index.php", &script(text))
}

fn script(text: &str) -> String {
    format!(
        r#"<?php
usleep(1000 * (int)($_GET["slow"] ?? 0));
if (isset($_GET["server"])) {{ echo json_encode($_SERVER); }}
elseif ($_SERVER["REQUEST_METHOD"] === "POST") {{
    for ($body = fopen("php://input", "r"), $bytes = 0; !feof($body); $bytes += strlen(fread($body, 65536)));
    echo $bytes;
}}
else echo "{text}";
"#
    )
}

#[test]
fn a_path_leads_to_a_file_to_a_script_or_to_the_front_controller() {
    if !is_there() {
        return;
    }
    let shop = empty()
        .file(
            "public/index.php",
            r#"<?php echo "front ", $_SERVER["REQUEST_URI"];"#,
        )
        .file(
            "public/other.php",
            r#"<?php echo "other ", $_SERVER["SCRIPT_NAME"], " ", $_SERVER["PATH_INFO"];"#,
        )
        .file("public/old.php.bak", "<?php secret")
        .file("public/a.css", "css")
        .file("lib/secret.php", r#"<?php echo "secret";"#);
    let house = House::new().worker("shop", shop).open();
    house.get("/shop").leads_to("/shop/");
    house.get("/shop/").is("front /shop/");
    house.get("/shop/a/b?c").is("front /shop/a/b?c");
    house
        .get("/shop/other.php/x")
        .is("other /shop/other.php /x");
    house.get("/shop/a.css").is("css");
    house.get("/shop/none.php").has_status(404);
    house.get("/shop/lib/secret.php").has_status(404);
    house.get("/shop/old.php.bak").is("front /shop/old.php.bak");
}

#[test]
fn a_directory_of_scripts_is_its_index_and_what_is_not_there_is_another_scripts() {
    if !is_there() {
        return;
    }
    let wiki = empty()
        .config("front_controller: doku.php")
        .file(
            "doku.php",
            r#"<?php echo "page ", $_SERVER["REQUEST_URI"];"#,
        )
        .file("index.php", r#"<?php echo "index";"#)
        .file(
            "admin/index.php",
            r#"<?php echo "admin ", $_SERVER["SCRIPT_NAME"];"#,
        );
    for house in [House::new(), House::new().production()] {
        let house = house.worker("wiki", wiki.clone()).open();
        house.get("/wiki/").is("index");
        house.get("/wiki/start").is("page /wiki/start");
        house.get("/wiki/admin").leads_to("/wiki/admin/");
        house.get("/wiki/admin/").is("admin /wiki/admin/index.php");
        house.get("/wiki/more/").is("page /wiki/more/");
        let more = wiki.clone().file("more/index.php", r#"<?php echo "more";"#);
        house.replace("wiki", more);
        house.reload().succeeds();
        house.get("/wiki/more/").is("more");
    }
}

#[test]
fn what_was_saved_is_live_and_no_request_is_lost_on_the_way() {
    if !is_there() {
        return;
    }
    let house = House::new().worker("index", says("one")).open();
    let load = house.load_anew("/?slow=30", 8);
    let slow = TcpStream::connect(house.address()).unwrap();
    (&slow)
        .write_all(b"GET /?slow=1500 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .unwrap();
    load.reaches(20);
    house.replace("index", says("two"));
    house.reload().succeeds();
    house.get("/").is("two");
    assert!(
        read_all(slow).ends_with("one\r\n0\r\n\r\n"),
        "the old one ends what it has begun"
    );
    for _ in 0..5 {
        house.run(["reload", "--force"]).succeeds();
    }
    load.reaches(20);
    let totals = load.stop();
    totals.lost_nothing();
    totals.only(&["one", "two"]);
}

#[test]
fn a_script_that_is_wrong_is_not_accepted_and_its_log_says_why() {
    if !is_there() {
        return;
    }
    let house = House::new()
        .worker("index", says("one"))
        .production()
        .open();
    house.replace("index", empty().file("index.php", "<?php oops("));
    house.reload().fails_with("PHP Parse error");
    house.get("/").is("one");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn php_fpm_knows_what_the_contract_says_and_nothing_of_the_servers() {
    if !is_there() {
        return;
    }
    let config = "env: {GREETING: hello}";
    let house = House::new()
        .worker("index", says("one").config(config))
        .open();
    let server = house.get("/?server").json();
    assert_eq!(server["GREETING"], "hello");
    assert_eq!(server["WORKER_NAME"], "index");
    assert_eq!(server["REMOTE_ADDR"], "127.0.0.1");
    let names = server.as_object().expect("an object").keys();
    let foreign = |name: &&String| {
        let others = [
            "DBUS_",
            "XDG_",
            "TQ_",
            "NOTIFY_",
            "MANAGERPID",
            "CARGO",
            "CREDENTIALS_",
        ];
        others.iter().any(|prefix| name.starts_with(prefix))
    };
    assert_eq!(
        names.filter(foreign).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

#[test]
fn a_large_body_arrives_whole() {
    if !is_there() {
        return;
    }
    let house = House::new().worker("index", says("one")).open();
    let length = 20 << 20;
    let mut stream = TcpStream::connect(house.address()).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: a/b\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![0; length]).unwrap();
    let answer = read_all(stream);
    assert!(answer.contains(&format!("\r\n{length}\r\n")), "{answer}");
}

#[test]
fn a_master_that_is_killed_comes_back() {
    if !is_there() {
        return;
    }
    let house = House::new().worker("index", says("one")).open();
    kill(house.pid("index"), Signal::KILL);
    until("it answers again", || house.get("/").text() == "one");
    house.units("index").are(["generation 1 serving"]);
}

#[test]
fn no_script_runs_for_an_upload_that_broke_off() {
    if !is_there() {
        return;
    }
    let script = r#"<?php
$document = getenv("STATE_DIRECTORY") . "/document";
if ($_SERVER["REQUEST_METHOD"] === "PUT") { file_put_contents($document, file_get_contents("php://input")); echo "stored"; }
else echo is_file($document) ? filesize($document) : "none";
"#;
    let house = House::new()
        .worker("index", empty().file("index.php", script))
        .open();
    let put = |length: usize, sent: usize| {
        let mut stream = TcpStream::connect(house.address()).unwrap();
        let head = format!(
            "PUT / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: a/b\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; sent]).unwrap();
        stream
    };
    assert!(read_all(put(3_000_000, 3_000_000)).contains("stored"));
    house.get("/").is("3000000");
    for (length, sent) in [(40_000, 10_000), (3_000_000, 700_000)] {
        let client = put(length, sent);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // The proxy answers, or closes, when it has noticed: nothing comes of it later.
        let answer = read_all(client);
        assert!(!answer.contains("stored"), "{answer}");
        house.get("/").is("3000000");
    }
}
