//! What strangers are told of the workers, and what those who run the server are.

use std::time::Duration;

use crate::access::{logged_with, written};
use crate::house::{DEADLINE, House, SHORT, field, status};
use tqserver::route::{Development, Maintenance, Route, RoutePath, RouteTable, Target};

/// What clients are told when the worker cannot be asked, does not respond, or breaks off, and what of that is in the access log.
#[test]
fn strangers_hear_of_no_worker_and_developers_do() {
    let unavailable = |table: &mut RouteTable| {
        table.routes[0].target = Target::Unavailable {
            reason: "exit code 7".to_owned(),
            retry_after: None,
            awaited: None,
        };
    };
    let silent = |table: &mut RouteTable| table.routes[0].timeouts.read = SHORT;
    let late = |table: &mut RouteTable| table.routes[0].flow.request_timeout = SHORT;
    let nothing = |_: &mut RouteTable| {};
    type Change<'a> = &'a dyn Fn(&mut RouteTable);
    let cases: [(Change<'_>, Option<&str>, &str, &str); 5] = [
        (
            &unavailable,
            None,
            "This service is not available at the moment. Please try again later.",
            "worker 'w' is not available: exit code 7",
        ),
        (
            &silent,
            None,
            "The request took too long. Please try again later.",
            "worker 'w' failed: it did not answer within 150ms",
        ),
        (
            &late,
            None,
            "The request took too long. Please try again later.",
            "worker 'w' failed: it did not answer in the time a request has",
        ),
        (
            &nothing,
            Some(""),
            "The request could not be completed. Please try again later.",
            "worker 'w' broke the connection before its answer",
        ),
        (
            &nothing,
            Some("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
            "The request could not be completed. Please try again later.",
            "worker 'w' failed: ",
        ),
    ];
    for (number, (change, answer, public, inside)) in cases.iter().enumerate() {
        for development in [false, true] {
            let house = logged_with(|table| {
                change(table);
                if development {
                    table.development = Some(Development {
                        server: "run".to_owned(),
                        hold: SHORT,
                    });
                }
            });
            let worker = house.worker(1);
            let path = format!("/strangers/{number}/{development}");
            let mut client = house.ask(&format!(
                "POST {path} HTTP/1.1\r\nhost: h\r\naccept: application/json\r\n\r\n"
            ));
            // One that is to be silent keeps its connection.
            let mut silent = None;
            if number > 0 {
                let mut talk = worker.accept();
                talk.head();
                match answer {
                    Some(answer) => talk.send(answer),
                    None => silent = Some(talk),
                }
            }
            let head = client.head();
            drop(silent);
            let page = String::from_utf8(client.content(&head)).unwrap();
            let line = written().about(&path);
            assert!(line["tq.reason"].starts_with(inside), "{line:?}");
            assert!(line["message"].contains(inside), "{line:?}");
            let told = if development { inside } else { public };
            assert!(page.contains(&format!("\"detail\":\"{told}")), "{page}");
            let says_it = ["worker", "'w'", "exit code", "generation"];
            let says_it = says_it.iter().any(|word| page.contains(word));
            assert_eq!(says_it, development, "{page}");
        }
    }
}

/// The status and the report at `/health`.
fn health(house: &House, fields: &str) -> (u16, serde_json::Value) {
    let (head, body) = house.get("/health", fields);
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    assert_eq!(field(&head, "cache-control"), Some("no-store"));
    (status(&head), serde_json::from_slice(&body).unwrap())
}

fn is_down(awaited: Option<Duration>) -> Target {
    Target::Unavailable {
        reason: "r".to_owned(),
        retry_after: None,
        awaited,
    }
}

#[test]
fn the_health_report_names_every_worker_and_fails_while_one_is_down() {
    let mut house = House::new();
    let ok = serde_json::json!({"status": "ok", "workers": [
        {"name": "w", "route": "/", "state": "serving", "generation": 1}
    ]});
    assert_eq!(health(&house, ""), (200, ok));
    let other = |table: &mut RouteTable, target: Target| {
        table.routes.truncate(1);
        let other = Route {
            path: RoutePath::parse("/x").unwrap(),
            target,
            ..table.routes[0].clone()
        };
        table.routes.push(other);
    };
    house.publish(|table| other(table, is_down(None)));
    let (code, degraded) = health(&house, "");
    assert_eq!(code, 503);
    assert_eq!(degraded["status"], "degraded");
    assert_eq!(degraded["workers"][1]["state"], "unavailable");
    assert_eq!(degraded["workers"][1]["reason"], "r");
    let mut client = house.ask("HEAD /health HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status(&client.head()), 503);
    // Requests wait for a first generation: nobody is refused.
    house.publish(|table| other(table, is_down(Some(DEADLINE))));
    let (code, starting) = health(&house, "");
    assert_eq!(
        (code, &starting["workers"][1]["state"]),
        (200, &"starting".into())
    );
    // What an operator does on purpose.
    house.publish(|table| {
        other(table, is_down(None));
        table.routes[1].halt.maintenance = Some(Maintenance::default());
    });
    let (code, maintenance) = health(&house, "");
    assert_eq!(
        (code, &maintenance["workers"][1]["state"]),
        (200, &"maintenance".into())
    );
    let mut client = house.ask("POST /health HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(status(&client.head()), 405);
}

#[test]
fn strangers_are_told_the_servers_health_in_a_word() {
    let stranger = "x-forwarded-for: 192.0.2.1\r\n";
    let word = |code, word: &str| (code, serde_json::json!({"status": word}));
    for trusted in ["10.0.0.0/8", "127.0.0.1/32"] {
        let mut house = House::with(|table| {
            table.front.trusted_proxies = vec![trusted.parse().unwrap()];
        });
        // Whether or not the proxy that speaks for them is trusted: they are not local.
        assert_eq!(health(&house, stranger), word(200, "ok"));
        assert_eq!(
            health(&house, "forwarded: for=192.0.2.1\r\n"),
            word(200, "ok")
        );
        assert!(health(&house, "").1["workers"].is_array());
        house.publish(|table| table.routes[0].target = is_down(None));
        assert_eq!(health(&house, stranger), word(503, "degraded"));
        // In development there are none.
        house.publish(|table| {
            table.development = Some(Development {
                server: "run".to_owned(),
                hold: SHORT,
            });
        });
        assert!(health(&house, stranger).1["workers"].is_array());
    }
    let house = House::with(|table| {
        let trusted = ["127.0.0.1/32", "10.0.0.0/8"];
        table.front.trusted_proxies = trusted.map(|net| net.parse().unwrap()).into();
    });
    let monitor = "x-forwarded-for: 10.0.0.7\r\n";
    assert!(health(&house, monitor).1["workers"].is_array());
}
