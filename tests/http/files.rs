//! `public/` is served without the worker, and nothing else is.

use std::os::unix::fs::symlink;

use crate::house::{House, field, status};
use tqserver::route::{RoutePath, Target};

/// A house whose worker has a public directory with `app.js` in it, and no socket: who asks it gets 503.
fn house(target: Option<Target>) -> House {
    let mut house = House::new();
    house.file("app.js", b"0123456789");
    let public = house.public();
    house.publish(|table| {
        table.routes[0].public = Some(public);
        if let Some(target) = target {
            table.routes[0].target = target;
        }
    });
    house
}

/// The same while people work in it.
fn edited() -> House {
    let mut house = house(None);
    house.publish(|table| {
        table.development = Some(tqserver::route::Development {
            server: "run".to_owned(),
            hold: std::time::Duration::ZERO,
        });
    });
    house
}

#[test]
fn a_file_is_served_without_the_worker() {
    let house = house(None);
    let (head, body) = house.get("/app.js", "");
    assert_eq!((status(&head), body), (200, b"0123456789".to_vec()));
    assert_eq!(
        field(&head, "content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(field(&head, "cache-control"), Some("no-cache"));
    assert_eq!(field(&head, "accept-ranges"), Some("bytes"));
    let mut client = house.ask("HEAD /app.js HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "content-length")),
        (200, Some("10"))
    );
    client.send("HEAD /app.js HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status(&client.head()), 200);
}

#[test]
fn below_a_route_the_rest_of_the_path_names_the_file() {
    let mut house = house(None);
    house.file("css/a b.css", b"x");
    house.publish(|table| table.routes[0].path = RoutePath::parse("/app").unwrap());
    assert_eq!(status(&house.get("/app/app.js", "").0), 200);
    assert_eq!(status(&house.get("/app/css/a%20b.css", "").0), 200);
    assert_eq!(status(&house.get("/app.js", "").0), 404);
}

#[test]
fn a_part_of_a_file_can_be_had() {
    let house = house(None);
    for (range, expected, content, span) in [
        ("0-3", 206, "0123", "bytes 0-3/10"),
        ("7-", 206, "789", "bytes 7-9/10"),
        ("-2", 206, "89", "bytes 8-9/10"),
        ("10-", 416, "", "bytes */10"),
    ] {
        let (head, body) = house.get("/app.js", &format!("range: bytes={range}\r\n"));
        assert_eq!(status(&head), expected, "{range}");
        assert_eq!(body, content.as_bytes());
        assert_eq!(field(&head, "content-range"), Some(span));
    }
}

#[test]
fn who_has_the_file_does_not_get_it_again() {
    let house = house(None);
    let (head, _) = house.get("/app.js", "");
    let (tag, date) = (
        field(&head, "etag").unwrap(),
        field(&head, "last-modified").unwrap(),
    );
    let (again, body) = house.get("/app.js", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((status(&again), body.len()), (304, 0));
    assert_eq!(field(&again, "etag"), Some(tag));
    let (again, _) = house.get("/app.js", &format!("if-modified-since: {date}\r\n"));
    assert_eq!(status(&again), 304);
    let (part, _) = house.get(
        "/app.js",
        &format!("range: bytes=0-1\r\nif-range: {tag}\r\n"),
    );
    assert_eq!(status(&part), 206);
}

#[test]
fn what_is_asked_for_often_is_answered_as_at_first() {
    let house = house(None);
    house.file("empty.txt", b"");
    let text = "text ".repeat(1000);
    house.file("a.css", text.as_bytes());
    house.file("a.css.gz", b"compressed");
    let (head, _) = house.get("/app.js", "");
    let tag = field(&head, "etag").unwrap().to_owned();
    for _ in 0..3 {
        let (head, body) = house.get("/app.js", "");
        assert_eq!((status(&head), body), (200, b"0123456789".to_vec()));
        assert_eq!(field(&head, "etag"), Some(&*tag));
        let (head, body) = house.get("/app.js", "range: bytes=2-4\r\n");
        assert_eq!((status(&head), body), (206, b"234".to_vec()));
        assert_eq!(field(&head, "content-range"), Some("bytes 2-4/10"));
        let (head, body) = house.get("/app.js", &format!("if-none-match: {tag}\r\n"));
        assert_eq!((status(&head), body.len()), (304, 0));
        let (head, body) = house.get("/empty.txt", "");
        assert_eq!((status(&head), body.len()), (200, 0));
        assert_eq!(field(&head, "content-length"), Some("0"));
        let (head, body) = house.get("/a.css", "accept-encoding: gzip\r\n");
        assert_eq!(field(&head, "content-encoding"), Some("gzip"));
        assert_eq!(
            field(&head, "content-type"),
            Some("text/css; charset=utf-8")
        );
        assert_eq!(body, b"compressed");
        let (head, body) = house.get("/a.css", "");
        assert_eq!(field(&head, "content-encoding"), None);
        assert_eq!(body, text.as_bytes());
    }
}

#[test]
fn who_has_an_older_version_gets_the_new_one() {
    let house = edited();
    let (head, _) = house.get("/app.js", "");
    let (tag, date) = (
        field(&head, "etag").unwrap(),
        field(&head, "last-modified").unwrap(),
    );
    // Changed within the second of the date.
    house.file("app.js", b"abcdefghij");
    let fields = format!("if-none-match: {tag}\r\nif-modified-since: {date}\r\n");
    let (changed, body) = house.get("/app.js", &fields);
    assert_eq!((status(&changed), body), (200, b"abcdefghij".to_vec()));
    let (whole, _) = house.get(
        "/app.js",
        &format!("range: bytes=0-1\r\nif-range: {tag}\r\n"),
    );
    assert_eq!(status(&whole), 200);
}

#[test]
fn what_is_no_file_goes_to_the_worker() {
    let house = house(None);
    house.worker(1).echo("worker");
    house.file("dir/index.html", b"index");
    house.file(".env", b"secret");
    house.file("dir/.git/config", b"secret");
    for path in [
        "/",
        "/missing",
        "/dir",
        "/dir/",
        "/.env",
        "/dir/.git/config",
        "/app.js/",
        "/app.js%2f",
        "//app.js",
        "/a%5capp.js",
    ] {
        assert_eq!(house.get(path, "").1, b"worker", "{path}");
    }
    let mut client = house.ask("POST /app.js HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    let head = client.head();
    assert_eq!(client.content(&head), b"worker");
}

#[test]
fn no_path_leaves_the_directory() {
    let house = house(Some(Target::Files));
    std::fs::write(house.directory.path().join("secret"), "secret").unwrap();
    symlink("../secret", house.public().join("relative")).unwrap();
    symlink(
        house.directory.path().join("secret"),
        house.public().join("absolute"),
    )
    .unwrap();
    symlink("..", house.public().join("up")).unwrap();
    symlink("app.js", house.public().join("inside.js")).unwrap();
    for path in [
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/../secret",
        "/%2e%2e/secret",
        "/x/..%2f..%2fsecret",
        "/relative",
        "/absolute",
        "/up/secret",
        "/..%5csecret",
    ] {
        let (head, body) = house.get(path, "");
        assert!(matches!(status(&head), 400 | 404), "{path}: {head}");
        assert!(
            !String::from_utf8_lossy(&body).contains("secret<") && body != b"secret",
            "{path}"
        );
    }
    assert_eq!(house.get("/inside.js", "").1, b"0123456789");
}

#[test]
fn a_site_of_files_only_has_indexes_and_no_other_methods() {
    let house = house(Some(Target::Files));
    house.file("index.html", b"root");
    house.file("dir/index.html", b"dir");
    house.file("empty/x", b"");
    assert_eq!(house.get("/", "").1, b"root");
    assert_eq!(house.get("/dir/", "").1, b"dir");
    let (head, _) = house.get("/dir?q=1", "");
    assert_eq!(
        (status(&head), field(&head, "location")),
        (308, Some("/dir/?q=1"))
    );
    for missing in ["/empty/", "/missing", "/.env"] {
        assert_eq!(status(&house.get(missing, "").0), 404, "{missing}");
    }
    let (head, body) = house.get("/empty/x", "");
    assert_eq!((status(&head), body.len()), (200, 0));
    let mut client = house.ask("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn the_route_of_a_site_is_a_directory_and_has_a_slash_at_its_end() {
    let mut house = house(Some(Target::Files));
    house.publish(|table| table.routes[0].path = RoutePath::parse("/site").unwrap());
    assert_eq!(status(&house.get("/site", "").0), 404, "there is no index");
    house.file("index.html", b"index");
    // What was missing is remembered, but for one table.
    house.publish(|_| {});
    for (asked, location) in [
        ("/site", "/site/"),
        ("/site?q=1&r", "/site/?q=1&r"),
        ("/%73ite?q", "/site/?q"),
    ] {
        let (head, body) = house.get(asked, "");
        assert_eq!(
            (status(&head), field(&head, "location"), body.len()),
            (308, Some(location), 0),
            "{asked}"
        );
        assert_eq!(field(&head, "cache-control"), Some("no-cache"));
    }
    let mut client = house.ask("HEAD /site HTTP/1.1\r\nhost: h\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (status(&head), field(&head, "location")),
        (308, Some("/site/"))
    );
    let mut client = house.ask("POST /site HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(status(&client.head()), 405);
    assert_eq!(house.get("/site/", "").1, b"index");
    // A redirect that says otherwise has the last word.
    let redirect = |from: &str, to: &str| tqserver::route::Redirect::new(from, to, 308).unwrap();
    house.publish(|table| table.routes[0].settings.redirects = vec![redirect("/site/", "/site")]);
    assert_eq!(house.get("/site", "").1, b"index");
    house.publish(|table| table.routes[0].settings.redirects = vec![redirect("/site", "/site/x")]);
    assert_eq!(
        field(&house.get("/site", "").0, "location"),
        Some("/site/x")
    );
    // Files beside a worker are no site.
    house.publish(|table| {
        table.routes[0].settings.redirects.clear();
        table.routes[0].target = Target::Unavailable {
            reason: "it ended".to_owned(),
            retry_after: None,
            awaited: None,
        };
    });
    assert_eq!(status(&house.get("/site", "").0), 503);
}

#[test]
fn a_large_file_arrives_whole() {
    let house = house(None);
    let content: Vec<u8> = (0..(8 << 20)).map(|i: u32| (i % 251) as u8).collect();
    house.file("large.bin", &content);
    let (head, body) = house.get("/large.bin", "");
    assert_eq!(
        field(&head, "content-type"),
        Some("application/octet-stream")
    );
    assert!(body == content);
}

#[test]
fn a_fifo_is_not_a_file() {
    let house = house(Some(Target::Files));
    let fifo = house.public().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(status(&house.get("/fifo", "").0), 404);
}

#[test]
fn names_with_signs_that_others_escape_are_served() {
    let house = house(Some(Target::Files));
    for (name, paths) in [
        ("100%.txt", &["/100%25.txt"] as &[&str]),
        ("a%20b.txt", &["/a%2520b.txt"]),
        ("a%2Fb.txt", &["/a%252Fb.txt", "/a%252%46b.txt"]),
        ("50%/a.txt", &["/50%25/a.txt"]),
        ("a\\b.txt", &["/a%5Cb.txt", "/a%5cb.txt"]),
        ("ä+;.txt", &["/%C3%A4+;.txt"]),
    ] {
        house.file(name, name.as_bytes());
        for path in paths {
            let (head, body) = house.get(path, "");
            assert_eq!((status(&head), &body[..]), (200, name.as_bytes()), "{path}");
        }
    }
    // An escaped slash is no slash, and no part of a name.
    house.file("dir/in%.txt", b"x");
    for missing in [
        "/a%2Fb.txt",
        "/a%2fb.txt",
        "/dir%2Fin%25.txt",
        "/50%25%2Fa.txt",
    ] {
        assert_eq!(status(&house.get(missing, "").0), 404, "{missing}");
    }
}

#[test]
fn of_hidden_names_the_well_known_one_is_served() {
    let mut house = house(Some(Target::Files));
    house.file(".well-known/security.txt", b"contact");
    house.file(".well-known/.secret", b"secret");
    house.file("sub/.well-known/x", b"secret");
    house.file(".env", b"secret");
    for route in ["", "/app"] {
        let get = |path: &str| house.get(&format!("{route}{path}"), "");
        assert_eq!(get("/.well-known/security.txt").1, b"contact");
        assert_eq!(get("/%2ewell-known/security.txt").1, b"contact");
        for hidden in [
            "/.env",
            "/.well-known/.secret",
            "/sub/.well-known/x",
            "/.well-knownx",
        ] {
            assert_eq!(status(&get(hidden).0), 404, "{hidden}");
        }
        house.publish(|table| table.routes[0].path = RoutePath::parse("/app").unwrap());
    }
}

#[test]
fn a_file_that_is_written_anew_with_the_same_size_and_time_is_another() {
    let house = edited();
    let path = house.public().join("app.js");
    let times = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let write = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_times(times).unwrap();
    };
    write(b"release 1.0.1");
    let (head, _) = house.get("/app.js", "");
    let tag = field(&head, "etag").unwrap();
    // The kernel's clock for files has ticks of some milliseconds.
    let changed = || std::os::unix::fs::MetadataExt::ctime_nsec(&path.metadata().unwrap());
    let before = changed();
    while changed() == before {
        write(b"release 1.0.2");
    }
    let (head, body) = house.get("/app.js", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((status(&head), &body[..]), (200, &b"release 1.0.2"[..]));
}
