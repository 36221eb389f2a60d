//! The rules, section by section.

use super::Must::{Answer, Close, Deviates, End, GoOn, Reset};
use super::*;

/// A deviation in the code alone.
const CODE: &str = "h2 says PROTOCOL_ERROR in place of a closer word; the connection ends as it must, or may (5.4)";

/// What comes of a frame on a stream that has ended, as h2 still knows it or not.
const FORGOTTEN: &[What] = &[
    What::Reset(STREAM_CLOSED),
    What::End(STREAM_CLOSED),
    What::End(PROTOCOL),
];

/// A deviation by what is still known.
const LONG_AGO: &str = "a stream that h2 has forgotten is one that never was: PROTOCOL_ERROR";

/// A deviation that costs others nothing: frames are made by the peer itself, whoever's requests it passes on.
const BY_A_PEER: &str =
    "h2 makes it the connection's (5.4); no request that a balancer passes on can bring it about";

/// What comes of a malformed request (8.1.1).
const MALFORMED: Must = Answer(400);

#[test]
fn a_connection_begins_as_it_must() {
    let house = house();
    let open = || Peer::raw(house.listening[0]);
    // 3.4: the server's first frame is its SETTINGS, whatever the client has said.
    let mut peer = open();
    peer.write(PREFACE);
    peer.send(SETTINGS, 0, 0, &[]);
    let first = peer.next().unwrap();
    assert_eq!((first.kind, first.flags & ACK), (SETTINGS, 0));
    // 6.5.3: it says that it has taken the client's.
    peer.until(|frame| frame.kind == SETTINGS && frame.flags == ACK);
    // 3.4: a client need not wait for any of it.
    let mut peer = open();
    let mut all = PREFACE.to_vec();
    all.extend(frame(SETTINGS, 0, 0, &[]));
    all.extend(frame(HEADERS, WHOLE, 1, &request("GET", "/", &[])));
    peer.write(&all);
    assert_eq!(peer.outcome(), What::Answer(200));
    // 3.4: not even when it comes byte by byte.
    let mut peer = open();
    for byte in &all {
        peer.write(std::slice::from_ref(byte));
    }
    assert_eq!(peer.outcome(), What::Answer(200));
    // 3.4: a preface that is not one is no HTTP/2, and HTTP/1.1 does not know it.
    for wrong in [
        &b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        b"INVALID CONNECTION PREFACE\r\n\r\n",
    ] {
        let mut peer = open();
        peer.write(wrong);
        let mut heard = Vec::new();
        let ended = peer.stream.read_to_end(&mut heard);
        assert!(ended.is_ok() || heard.is_empty(), "{ended:?}");
        let said = String::from_utf8_lossy(&heard);
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 5"),
            "{said}"
        );
    }
    // 3.4: SETTINGS come first. h2 takes another frame before them; nobody is harmed.
    let mut peer = open();
    peer.write(PREFACE);
    peer.send(PING, 0, 0, &[0; 8]);
    peer.settings(&[]);
    assert_eq!(peer.goes_on(), What::GoOn);
}

#[test]
fn frames_have_their_form_and_size() {
    hold(&[
        case(
            "4.1",
            "a frame of an unknown type is passed over",
            GoOn,
            |peer| {
                peer.send(0x16, 0, 0, &[0; 8]);
            },
        ),
        case("4.1", "and on a stream as well", Answer(200), |peer| {
            peer.post(1, &[]);
            peer.send(0x16, 0xff, 1, &[0; 8]);
            peer.send(DATA, END_STREAM, 1, b"test");
        }),
        case(
            "4.1",
            "flags that are not defined are passed over",
            GoOn,
            |peer| {
                peer.send(PING, 0x16, 0, &[0; 8]);
                peer.until(|frame| frame.kind == PING && frame.flags == ACK);
            },
        ),
        case("4.1", "the reserved bit is passed over", GoOn, |peer| {
            peer.send(PING, 0, 0x8000_0000, &[0; 8]);
            peer.until(|frame| frame.kind == PING && frame.flags == ACK);
        }),
        case(
            "4.1",
            "the reserved bit of a request's stream too",
            Answer(200),
            |peer| {
                peer.send(HEADERS, WHOLE, 0x8000_0001, &request("GET", "/", &[]));
            },
        ),
        case("4.2", "DATA of the largest size", Answer(200), |peer| {
            peer.post(1, &[]);
            peer.send(DATA, END_STREAM, 1, &[b'x'; FRAME_MAX]);
        }),
        case(
            "4.2",
            "DATA that are too large",
            Deviates(&[What::End(FRAME_SIZE)], BY_A_PEER),
            |peer| {
                peer.post(1, &[]);
                peer.send(DATA, END_STREAM, 1, &[b'x'; FRAME_MAX + 1]);
            },
        ),
        case(
            "4.2",
            "HEADERS that are too large",
            End(FRAME_SIZE),
            |peer| {
                let value = "x".repeat(FRAME_MAX);
                peer.send(HEADERS, WHOLE, 1, &request("GET", "/", &[("x", &value)]));
            },
        ),
        case(
            "4.2",
            "SETTINGS that are too large",
            End(FRAME_SIZE),
            |peer| {
                peer.settings(&[(0xff, 0); FRAME_MAX / 6 + 1]);
            },
        ),
        case(
            "4.2",
            "an unknown frame that is too large",
            End(FRAME_SIZE),
            |peer| {
                peer.send(0x16, 0, 0, &[0; FRAME_MAX + 1]);
            },
        ),
        case(
            "5.5",
            "an extension's frame within a block of fields",
            End(PROTOCOL),
            |peer| {
                peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
                peer.send(0x16, 0, 0, &[0; 8]);
            },
        ),
        case(
            "5.5",
            "an extension's setting is passed over",
            GoOn,
            |peer| {
                peer.settings(&[(0xff, 1), (0, 1)]);
                peer.until(|frame| frame.kind == SETTINGS && frame.flags == ACK);
            },
        ),
    ]);
}

#[test]
fn blocks_of_fields_are_whole() {
    hold(&[
        case(
            "4.3",
            "a block that can not be read",
            End(COMPRESSION),
            |peer| {
                peer.send(HEADERS, WHOLE, 1, &[0x40, 0x85]);
            },
        ),
        case("4.3", "PRIORITY within a block", End(PROTOCOL), |peer| {
            peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
            peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
        }),
        case(
            "4.3",
            "HEADERS of another stream within a block",
            End(PROTOCOL),
            |peer| {
                peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
                peer.get(3, "/");
            },
        ),
        case("4.3", "DATA within a block", End(PROTOCOL), |peer| {
            peer.send(HEADERS, 0, 1, &request("POST", "/", &[]));
            peer.send(DATA, END_STREAM, 1, b"test");
        }),
        case("6.10", "a block in many pieces", Answer(200), |peer| {
            let block = request("GET", "/", &[("x-a", "1"), ("x-b", "2")]);
            let (first, rest) = block.split_at(7);
            let (second, third) = rest.split_at(1);
            peer.send(HEADERS, END_STREAM, 1, first);
            peer.send(CONTINUATION, 0, 1, second);
            peer.send(CONTINUATION, 0, 1, &[]);
            peer.send(CONTINUATION, END_HEADERS, 1, third);
        }),
        case(
            "6.10",
            "a first piece without a byte",
            Answer(200),
            |peer| {
                peer.send(HEADERS, END_STREAM, 1, &[]);
                peer.send(CONTINUATION, END_HEADERS, 1, &request("GET", "/", &[]));
            },
        ),
        case(
            "6.10",
            "CONTINUATION of another stream",
            End(PROTOCOL),
            |peer| {
                peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
                peer.send(CONTINUATION, END_HEADERS, 3, &literal("x", "y"));
            },
        ),
        case("6.10", "CONTINUATION on stream 0", End(PROTOCOL), |peer| {
            peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
            peer.send(CONTINUATION, END_HEADERS, 0, &literal("x", "y"));
        }),
        case(
            "6.10",
            "CONTINUATION after the end of a block",
            End(PROTOCOL),
            |peer| {
                peer.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[]));
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case(
            "6.10",
            "CONTINUATION after CONTINUATION that was the last",
            End(PROTOCOL),
            |peer| {
                peer.send(HEADERS, 0, 1, &request("POST", "/", &[]));
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case("6.10", "CONTINUATION after DATA", End(PROTOCOL), |peer| {
            peer.post(1, &[]);
            peer.send(DATA, 0, 1, b"test");
            peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
        }),
        case(
            "10.5.1",
            "a block without end is not waited for",
            Close,
            |peer| {
                peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
                for _ in 0..1000 {
                    peer.send(CONTINUATION, 0, 1, &literal("x", "y".repeat(1000)));
                }
            },
        ),
        case("10.5.1", "nor one of empty pieces", Close, |peer| {
            peer.send(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
            for _ in 0..10_000 {
                peer.send(CONTINUATION, 0, 1, &[]);
            }
        }),
    ]);
}

#[test]
fn streams_are_in_a_state() {
    hold(&[
        case("5.1", "DATA on an idle stream", End(PROTOCOL), |peer| {
            peer.send(DATA, END_STREAM, 1, b"test");
        }),
        case(
            "5.1",
            "RST_STREAM on an idle stream",
            End(PROTOCOL),
            |peer| {
                peer.reset(1, CANCEL);
            },
        ),
        case(
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            End(PROTOCOL),
            |peer| {
                peer.window(1, 100);
            },
        ),
        case(
            "5.1",
            "CONTINUATION on an idle stream",
            End(PROTOCOL),
            |peer| {
                peer.send(CONTINUATION, WHOLE, 1, &request("GET", "/", &[]));
            },
        ),
        case(
            "5.1",
            "PRIORITY on an idle stream is passed over",
            GoOn,
            |peer| {
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            },
        ),
        case(
            "5.1",
            "DATA after the request's end",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.waiting(1);
                peer.send(DATA, END_STREAM, 1, b"test");
            },
        ),
        case(
            "5.1",
            "HEADERS after the request's end",
            Deviates(
                &[What::Reset(PROTOCOL)],
                "a pseudo-header after the request is wrong as well",
            ),
            |peer| {
                peer.waiting(1);
                peer.get(1, "/");
            },
        ),
        case(
            "5.1",
            "CONTINUATION after the request's end",
            End(PROTOCOL),
            |peer| {
                peer.waiting(1);
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case(
            "5.1",
            "WINDOW_UPDATE after the request's end",
            GoOn,
            |peer| {
                peer.waiting(1);
                peer.window(1, 100);
            },
        ),
        case("5.1", "PRIORITY after the request's end", GoOn, |peer| {
            peer.waiting(1);
            peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
        }),
        case(
            "5.1",
            "RST_STREAM after the request's end takes it back",
            GoOn,
            |peer| {
                peer.waiting(1);
                peer.reset(1, CANCEL);
            },
        ),
        case(
            "5.1",
            "DATA after RST_STREAM",
            Deviates(FORGOTTEN, LONG_AGO),
            |peer| {
                peer.post(1, &[]);
                peer.reset(1, CANCEL);
                peer.send(DATA, END_STREAM, 1, b"test");
            },
        ),
        case(
            "5.1",
            "HEADERS after RST_STREAM",
            Deviates(FORGOTTEN, LONG_AGO),
            |peer| {
                peer.post(1, &[]);
                peer.reset(1, CANCEL);
                peer.get(1, "/");
            },
        ),
        case(
            "5.1",
            "CONTINUATION after RST_STREAM",
            End(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.reset(1, CANCEL);
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case(
            "5.1",
            "WINDOW_UPDATE and PRIORITY after RST_STREAM",
            GoOn,
            |peer| {
                peer.post(1, &[]);
                peer.reset(1, CANCEL);
                peer.window(1, 100);
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
            },
        ),
        case(
            "5.1",
            "DATA on a stream that was answered",
            Deviates(FORGOTTEN, LONG_AGO),
            |peer| {
                peer.done(1);
                peer.send(DATA, END_STREAM, 1, b"test");
            },
        ),
        case(
            "5.1",
            "HEADERS on a stream that was answered",
            Deviates(FORGOTTEN, LONG_AGO),
            |peer| {
                peer.done(1);
                peer.get(1, "/");
            },
        ),
        case(
            "5.1",
            "CONTINUATION on a stream that was answered",
            End(PROTOCOL),
            |peer| {
                peer.done(1);
                peer.send(CONTINUATION, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case(
            "5.1",
            "other frames on a stream that was answered",
            GoOn,
            |peer| {
                peer.done(1);
                peer.window(1, 100);
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
                peer.reset(1, CANCEL);
            },
        ),
        case(
            "5.1.1",
            "a client's stream with an even number",
            End(PROTOCOL),
            |peer| {
                peer.get(2, "/");
            },
        ),
        case(
            "5.1.1",
            "a number that is less than one before",
            End(PROTOCOL),
            |peer| {
                peer.done(5);
                peer.get(3, "/");
            },
        ),
        case(
            "5.1.1",
            "the largest number is the last",
            Answer(200),
            |peer| {
                peer.watched = 0x7fff_ffff;
                peer.get(0x7fff_ffff, "/");
            },
        ),
        case(
            "5.1.2",
            "more streams than there may be",
            Reset(REFUSED),
            |peer| {
                for stream in (1..=257).step_by(2) {
                    peer.get(stream, "/never");
                }
                peer.watched = 257;
            },
        ),
        case("5.1.2", "and those that there are stay", GoOn, |peer| {
            for stream in (1..=257).step_by(2) {
                peer.get(stream, "/never");
            }
            peer.until(|frame| frame.kind == RST_STREAM && frame.stream == 257);
            peer.reset(1, CANCEL);
            peer.sync();
        }),
        case(
            "5.4.1",
            "a stream's error leaves the connection",
            GoOn,
            |peer| {
                peer.post(1, &[("content-length", "3")]);
                peer.send(DATA, END_STREAM, 1, b"test");
                peer.until(|frame| frame.kind == RST_STREAM && frame.stream == 1);
            },
        ),
        case("5.4.2", "no RST_STREAM answers another", GoOn, |peer| {
            peer.waiting(1);
            peer.reset(1, CANCEL);
            peer.reset(1, CANCEL);
            peer.send(PING, 0, 0, &[0; 8]);
            let heard = peer.until(|frame| frame.kind == PING);
            assert!(heard.iter().all(|frame| frame.kind != RST_STREAM));
        }),
        case(
            "7",
            "an unknown code of an error is one like others",
            GoOn,
            |peer| {
                peer.waiting(1);
                peer.reset(1, 0xff);
            },
        ),
    ]);
}

#[test]
fn each_type_of_frame_keeps_its_rules() {
    hold(&[
        case("6.1", "DATA on stream 0", End(PROTOCOL), |peer| {
            peer.send(DATA, END_STREAM, 0, b"test");
        }),
        case("6.1", "DATA with padding", Answer(200), |peer| {
            peer.post(1, &[("content-length", "4")]);
            peer.send(DATA, END_STREAM | PADDED, 1, b"\x06test\0\0\0\0\0\0");
        }),
        case(
            "6.1",
            "DATA with padding of no length",
            Answer(200),
            |peer| {
                peer.post(1, &[("content-length", "4")]);
                peer.send(DATA, END_STREAM | PADDED, 1, b"\0test");
            },
        ),
        case("6.1", "DATA of padding alone", Answer(200), |peer| {
            peer.post(1, &[]);
            peer.send(DATA, END_STREAM | PADDED, 1, &[3, 0, 0, 0]);
        }),
        case(
            "6.1",
            "padding that is longer than the frame",
            End(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.send(DATA, END_STREAM | PADDED, 1, b"\x05test");
            },
        ),
        case("6.1", "padding without its length", Close, |peer| {
            peer.post(1, &[]);
            peer.send(DATA, END_STREAM | PADDED, 1, &[]);
        }),
        case("6.2", "HEADERS on stream 0", End(PROTOCOL), |peer| {
            peer.get(0, "/");
        }),
        case("6.2", "HEADERS with padding", Answer(200), |peer| {
            let mut payload = vec![2];
            payload.extend(request("GET", "/", &[]));
            payload.extend([0, 0]);
            peer.send(HEADERS, WHOLE | PADDED, 1, &payload);
        }),
        case(
            "6.2",
            "HEADERS whose padding is longer than they are",
            End(PROTOCOL),
            |peer| {
                let mut payload = vec![255];
                payload.extend(request("GET", "/", &[]));
                peer.send(HEADERS, WHOLE | PADDED, 1, &payload);
            },
        ),
        case("6.2", "HEADERS with a priority", Answer(200), |peer| {
            let mut payload = vec![0, 0, 0, 0, 15];
            payload.extend(request("GET", "/", &[]));
            peer.send(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload);
        }),
        case(
            "6.2",
            "HEADERS with padding and a priority",
            Answer(200),
            |peer| {
                let mut payload = vec![1, 0x80, 0, 0, 3, 15];
                payload.extend(request("GET", "/", &[]));
                payload.push(0);
                peer.send(HEADERS, WHOLE | WITH_PRIORITY | PADDED, 1, &payload);
            },
        ),
        case(
            "6.2",
            "HEADERS that are too short for their priority",
            Close,
            |peer| {
                peer.send(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0, 0, 0]);
            },
        ),
        case(
            "5.3.1 of RFC 7540",
            "HEADERS that depend on themselves",
            MALFORMED,
            |peer| {
                let mut payload = vec![0, 0, 0, 1, 15];
                payload.extend(request("GET", "/", &[]));
                peer.send(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload);
            },
        ),
        case(
            "5.3.1 of RFC 7540",
            "PRIORITY that depends on itself",
            Reset(PROTOCOL),
            |peer| {
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 1, 15]);
                peer.get(1, "/");
            },
        ),
        case("6.3", "PRIORITY on stream 0", End(PROTOCOL), |peer| {
            peer.send(PRIORITY, 0, 0, &[0, 0, 0, 1, 15]);
        }),
        case(
            "6.3",
            "PRIORITY that is too short",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.waiting(1);
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0]);
            },
        ),
        case("6.4", "RST_STREAM on stream 0", End(PROTOCOL), |peer| {
            peer.reset(0, CANCEL);
        }),
        case(
            "6.4",
            "RST_STREAM that is too short",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.waiting(1);
                peer.send(RST_STREAM, 0, 1, &[0, 0, 0]);
            },
        ),
        case(
            "6.4",
            "RST_STREAM that is too long",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.waiting(1);
                peer.send(RST_STREAM, 0, 1, &[0; 5]);
            },
        ),
        case("6.6", "PUSH_PROMISE of a client", End(PROTOCOL), |peer| {
            peer.waiting(1);
            let mut payload = vec![0, 0, 0, 2];
            payload.extend(request("GET", "/", &[]));
            peer.send(PUSH_PROMISE, END_HEADERS, 1, &payload);
        }),
        case("6.7", "PING comes back as it was", GoOn, |peer| {
            peer.send(PING, 0, 0, b"12345678");
            let heard = peer.until(|frame| frame.kind == PING);
            let ping = heard.last().unwrap();
            assert_eq!(
                (ping.flags, ping.payload.as_slice()),
                (ACK, &b"12345678"[..])
            );
        }),
        case(
            "6.7",
            "an acknowledged PING is not answered",
            GoOn,
            |peer| {
                peer.send(PING, ACK, 0, b"12345678");
                peer.send(PING, 0, 0, b"87654321");
                let heard = peer.until(|frame| frame.kind == PING);
                assert_eq!(heard.last().unwrap().payload, b"87654321");
            },
        ),
        case("6.7", "PING on a stream", End(PROTOCOL), |peer| {
            peer.waiting(1);
            peer.send(PING, 0, 1, &[0; 8]);
        }),
        case(
            "6.7",
            "PING that is too short",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(PING, 0, 0, &[0; 6]);
            },
        ),
        case(
            "6.7",
            "PING that is too long",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(PING, 0, 0, &[0; 9]);
            },
        ),
        case("6.8", "GOAWAY on a stream", End(PROTOCOL), |peer| {
            peer.waiting(1);
            peer.send(GOAWAY, 0, 1, &[0; 8]);
        }),
        case(
            "6.8",
            "GOAWAY that is too short",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(GOAWAY, 0, 0, &[0; 7]);
            },
        ),
        case(
            "6.8",
            "a client that leaves gets what it has asked for",
            Answer(200),
            |peer| {
                peer.post(1, &[]);
                peer.send(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0some words");
                peer.send(DATA, END_STREAM, 1, b"test");
            },
        ),
        case(
            "7",
            "GOAWAY with an unknown code is one like others",
            Answer(200),
            |peer| {
                peer.post(1, &[]);
                peer.send(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
                peer.send(DATA, END_STREAM, 1, b"test");
            },
        ),
    ]);
}

#[test]
fn settings_are_taken_or_refused() {
    hold(&[
        case(
            "6.5",
            "an acknowledgement that says something",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(SETTINGS, ACK, 0, &settings_of(&[(3, 1)]));
            },
        ),
        case("6.5", "SETTINGS on a stream", End(PROTOCOL), |peer| {
            peer.send(SETTINGS, 0, 1, &settings_of(&[(3, 1)]));
        }),
        case(
            "6.5",
            "SETTINGS of a broken length",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(SETTINGS, 0, 0, &[0, 3, 0]);
            },
        ),
        case(
            "6.5.2",
            "ENABLE_PUSH that is neither 0 nor 1",
            End(PROTOCOL),
            |peer| {
                peer.settings(&[(2, 2)]);
            },
        ),
        case("6.5.2", "ENABLE_PUSH that is 0 or 1", GoOn, |peer| {
            peer.settings(&[(2, 0)]);
            peer.settings(&[(2, 1)]);
        }),
        case(
            "6.5.2",
            "a window that is too large",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.settings(&[(4, 0x8000_0000)]);
            },
        ),
        case("6.5.2", "the largest window", GoOn, |peer| {
            peer.settings(&[(4, 0x7fff_ffff)]);
        }),
        case(
            "6.5.2",
            "frames that are too small",
            End(PROTOCOL),
            |peer| {
                peer.settings(&[(5, 16_383)]);
            },
        ),
        case(
            "6.5.2",
            "frames that are too large",
            End(PROTOCOL),
            |peer| {
                peer.settings(&[(5, 1 << 24)]);
            },
        ),
        case("6.5.2", "the largest frames", GoOn, |peer| {
            peer.settings(&[(5, (1 << 24) - 1)]);
        }),
        case(
            "3 of RFC 8441",
            "ENABLE_CONNECT_PROTOCOL that is neither 0 nor 1",
            End(PROTOCOL),
            |peer| {
                peer.settings(&[(8, 2)]);
            },
        ),
        case(
            "6.5.2",
            "a table of fields that is as small as can be",
            GoOn,
            |peer| {
                peer.settings(&[(1, 0)]);
            },
        ),
        case(
            "6.5.2",
            "a table of fields that is as large as can be",
            GoOn,
            |peer| {
                peer.settings(&[(1, u32::MAX)]);
            },
        ),
        case(
            "6.5.2",
            "no stream of ours, no fields of any size",
            GoOn,
            |peer| {
                peer.settings(&[(3, 0), (6, 0)]);
            },
        ),
        case("6.5.3", "each SETTINGS is acknowledged", GoOn, |peer| {
            for _ in 0..3 {
                peer.settings(&[(4, 100)]);
                peer.until(|frame| frame.kind == SETTINGS && frame.flags == ACK);
            }
        }),
        case("6.5.3", "of several values the last holds", GoOn, |peer| {
            peer.settings(&[(4, 100), (4, 1)]);
            peer.get(1, "/");
            let heard = peer.until(|frame| frame.kind == DATA);
            assert_eq!(heard.last().unwrap().payload, b"h");
        }),
    ]);
}

#[test]
fn nobody_sends_more_than_there_is_room_for() {
    hold(&[
        case(
            "6.9",
            "WINDOW_UPDATE of nothing, for all",
            End(PROTOCOL),
            |peer| {
                peer.window(0, 0);
            },
        ),
        case(
            "6.9",
            "WINDOW_UPDATE of nothing, for a stream",
            Deviates(&[What::End(PROTOCOL)], BY_A_PEER),
            |peer| {
                peer.waiting(1);
                peer.window(1, 0);
            },
        ),
        case(
            "6.9",
            "WINDOW_UPDATE that is too short",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.send(WINDOW_UPDATE, 0, 0, &[0, 0, 1]);
            },
        ),
        case(
            "6.9",
            "WINDOW_UPDATE that is too long",
            Deviates(&[What::End(PROTOCOL)], CODE),
            |peer| {
                peer.waiting(1);
                peer.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0, 1]);
            },
        ),
        case(
            "6.9.1",
            "a window that overflows, for all",
            End(FLOW_CONTROL),
            |peer| {
                peer.window(0, 0x7fff_ffff);
                peer.window(0, 0x7fff_ffff);
            },
        ),
        case(
            "6.9.1",
            "a window that overflows, for a stream",
            Reset(FLOW_CONTROL),
            |peer| {
                peer.waiting(1);
                peer.window(1, 0x7fff_ffff);
                peer.window(1, 0x7fff_ffff);
            },
        ),
        case("6.9.1", "an answer waits for room", GoOn, |peer| {
            peer.settings(&[(4, 0)]);
            peer.get(1, "/");
            peer.until(|frame| frame.kind == HEADERS);
            peer.send(PING, 0, 0, &[0; 8]);
            let heard = peer.until(|frame| frame.kind == PING);
            assert!(heard.iter().all(|frame| frame.kind != DATA), "{heard:?}");
            peer.window(1, 2);
            assert_eq!(
                peer.until(|frame| frame.kind == DATA)
                    .last()
                    .unwrap()
                    .payload,
                b"he"
            );
            peer.window(1, 100);
            assert_eq!(
                peer.until(|frame| frame.kind == DATA)
                    .last()
                    .unwrap()
                    .payload,
                b"llo"
            );
        }),
        case(
            "6.9.2",
            "a new window holds for streams that there are",
            GoOn,
            |peer| {
                peer.settings(&[(4, 0)]);
                peer.get(1, "/");
                peer.until(|frame| frame.kind == HEADERS);
                peer.settings(&[(4, 1)]);
                assert_eq!(
                    peer.until(|frame| frame.kind == DATA)
                        .last()
                        .unwrap()
                        .payload,
                    b"h"
                );
            },
        ),
        case(
            "6.9.2",
            "a window below nothing is waited out",
            GoOn,
            |peer| {
                peer.settings(&[(4, 3)]);
                peer.get(1, "/");
                assert_eq!(
                    peer.until(|frame| frame.kind == DATA)
                        .last()
                        .unwrap()
                        .payload,
                    b"hel"
                );
                // Three of two are taken: one is owed.
                peer.settings(&[(4, 2)]);
                peer.window(1, 1);
                peer.send(PING, 0, 0, &[0; 8]);
                let heard = peer.until(|frame| frame.kind == PING);
                assert!(heard.iter().all(|frame| frame.kind != DATA), "{heard:?}");
                peer.window(1, 1);
                assert_eq!(
                    peer.until(|frame| frame.kind == DATA)
                        .last()
                        .unwrap()
                        .payload,
                    b"l"
                );
            },
        ),
        case(
            "6.9.2",
            "a stream's window that a setting makes overflow",
            End(FLOW_CONTROL),
            |peer| {
                peer.waiting(1);
                peer.window(1, 0x7fff_ffff - 65_535);
                peer.settings(&[(4, 65_536)]);
            },
        ),
        case(
            "6.9.1",
            "a client that sends more than there is room for",
            Reset(FLOW_CONTROL),
            |peer| {
                // The worker does not read: 128 KiB, and what the proxy and the kernel hold on the way to it.
                peer.send(HEADERS, END_HEADERS, 1, &request("POST", "/deaf", &[]));
                for _ in 0..256 {
                    peer.send(DATA, 0, 1, &[0; FRAME_MAX]);
                }
            },
        ),
    ]);
}

#[test]
fn a_request_is_well_formed() {
    hold(&[
        case(
            "8.1",
            "a second block of fields that does not end the request",
            Reset(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.send(HEADERS, END_HEADERS, 1, &literal("x", "y"));
            },
        ),
        case("8.1", "fields after the body", Answer(200), |peer| {
            peer.post(1, &[("trailer", "x")]);
            peer.send(DATA, 0, 1, b"test");
            peer.send(HEADERS, WHOLE, 1, &literal("x", "y"));
        }),
        case("8.2.1", "a name in upper case", MALFORMED, |peer| {
            malformed(peer, "X-Test", "ok")
        }),
        case("8.2.1", "a name with a space", MALFORMED, |peer| {
            malformed(peer, "x test", "ok")
        }),
        case("8.2.1", "a name with a colon", MALFORMED, |peer| {
            malformed(peer, "x:test", "ok")
        }),
        case("8.2.1", "a name that is empty", MALFORMED, |peer| {
            malformed(peer, "", "ok")
        }),
        case(
            "8.2.1",
            "a name with a control character",
            MALFORMED,
            |peer| malformed(peer, "x\x01", "ok"),
        ),
        case("8.2.1", "a name beyond ASCII", MALFORMED, |peer| {
            malformed(peer, "x\u{e4}", "ok")
        }),
        case("8.2.1", "a value with a line feed", MALFORMED, |peer| {
            malformed(peer, "x", "a\nb")
        }),
        case(
            "8.2.1",
            "a value with a carriage return",
            MALFORMED,
            |peer| malformed(peer, "x", "a\rb"),
        ),
        case("8.2.1", "a value with another control", MALFORMED, |peer| {
            malformed(peer, "x", "a\x01b")
        }),
        case("8.2.1", "a value with DEL", MALFORMED, |peer| {
            malformed(peer, "x", "a\x7fb")
        }),
        case("8.2.1", "a value of Latin-1", Answer(200), |peer| {
            let mut block = request("GET", "/", &[]);
            block.extend(literal("x", b"a\xe9b"));
            peer.send(HEADERS, WHOLE, 1, &block);
        }),
        case(
            "8.2.1",
            "a name that begins with a digit",
            Answer(200),
            |peer| malformed(peer, "1x", "ok"),
        ),
        case("8.2.1", "a value with a tab within", Answer(200), |peer| {
            malformed(peer, "x", "a\tb")
        }),
        case(
            "8.2.1",
            "a name in upper case after the body",
            Reset(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.send(DATA, 0, 1, b"test");
                peer.send(HEADERS, WHOLE, 1, &literal("X", "y"));
            },
        ),
        case(
            "8.2.2",
            "a connection's field after the body",
            Reset(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.send(DATA, 0, 1, b"test");
                peer.send(HEADERS, WHOLE, 1, &literal("keep-alive", "1"));
            },
        ),
        case("8.2.1", "a value with NUL", MALFORMED, |peer| {
            malformed(peer, "x", "a\0b")
        }),
        case(
            "8.2.1",
            "a value that begins with a space",
            MALFORMED,
            |peer| malformed(peer, "x", " a"),
        ),
        case("8.2.1", "a value that ends with a tab", MALFORMED, |peer| {
            malformed(peer, "x", "a\t")
        }),
        case("8.2.2", "connection", MALFORMED, |peer| {
            malformed(peer, "connection", "keep-alive")
        }),
        case("8.2.2", "keep-alive", MALFORMED, |peer| {
            malformed(peer, "keep-alive", "1")
        }),
        case("8.2.2", "proxy-connection", MALFORMED, |peer| {
            malformed(peer, "proxy-connection", "x")
        }),
        case("8.2.2", "transfer-encoding", MALFORMED, |peer| {
            malformed(peer, "transfer-encoding", "chunked")
        }),
        case("8.2.2", "upgrade", MALFORMED, |peer| {
            malformed(peer, "upgrade", "websocket")
        }),
        case("8.2.2", "te for anything but trailers", MALFORMED, |peer| {
            malformed(peer, "te", "trailers, deflate")
        }),
        case("8.2.2", "te for trailers", Answer(200), |peer| {
            malformed(peer, "te", "trailers")
        }),
        case("8.2.3", "a cookie in crumbs", Answer(200), |peer| {
            let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
            peer.send(HEADERS, WHOLE, 1, &request("GET", "/", &crumbs));
        }),
        case(
            "8.3",
            "a pseudo-header that nobody knows",
            MALFORMED,
            |peer| malformed(peer, ":test", "ok"),
        ),
        case("8.3", "an answer's pseudo-header", MALFORMED, |peer| {
            malformed(peer, ":status", "200")
        }),
        case(
            "8.3",
            "a pseudo-header after other fields",
            MALFORMED,
            |peer| {
                let block = fields(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    ("x", "y"),
                    (":path", "/"),
                    (":authority", "h"),
                ]);
                peer.send(HEADERS, WHOLE, 1, &block);
            },
        ),
        case(
            "8.3",
            "a pseudo-header after the body",
            Reset(PROTOCOL),
            |peer| {
                peer.post(1, &[]);
                peer.send(DATA, 0, 1, b"test");
                peer.send(HEADERS, WHOLE, 1, &literal(":method", "GET"));
            },
        ),
        case("8.3.1", "no method", MALFORMED, |peer| {
            without(peer, ":method");
        }),
        case("8.3.1", "no scheme", MALFORMED, |peer| {
            without(peer, ":scheme");
        }),
        case("8.3.1", "no path", MALFORMED, |peer| {
            without(peer, ":path");
        }),
        case("8.3.1", "a path that is empty", MALFORMED, |peer| {
            peer.get(1, "");
        }),
        case("8.3.1", "a path that is none", MALFORMED, |peer| {
            peer.get(1, "a b");
        }),
        case("8.3.1", "a path without its slash", MALFORMED, |peer| {
            peer.get(1, "index");
        }),
        case("8.3.1", "a path that is not UTF-8", MALFORMED, |peer| {
            with_pseudo(peer, ":path", b"/?q=\xe9");
        }),
        case(
            "8.3.1",
            "a path with a control character",
            MALFORMED,
            |peer| {
                with_pseudo(peer, ":path", b"/\x01");
            },
        ),
        case(
            "8.3.1",
            "a path with a sign that none has",
            MALFORMED,
            |peer| {
                with_pseudo(peer, ":path", b"/?q=<");
            },
        ),
        case("8.3.1", "a path with a fragment", MALFORMED, |peer| {
            with_pseudo(peer, ":path", b"/#top");
        }),
        case(
            "8.3.1",
            "an asterisk for another method than OPTIONS",
            MALFORMED,
            |peer| {
                peer.get(1, "*");
            },
        ),
        case("8.3.1", "an asterisk for OPTIONS", Answer(204), |peer| {
            peer.send(HEADERS, WHOLE, 1, &request("OPTIONS", "*", &[]));
        }),
        case("8.3.1", "a scheme that is none", MALFORMED, |peer| {
            with_pseudo(peer, ":scheme", b"h t");
        }),
        case("8.3.1", "a scheme that is empty", MALFORMED, |peer| {
            with_pseudo(peer, ":scheme", b"");
        }),
        case("8.3.1", "a scheme that is not ours", MALFORMED, |peer| {
            with_pseudo(peer, ":scheme", b"ftp");
        }),
        case("8.3.1", "a scheme beyond ASCII", MALFORMED, |peer| {
            with_pseudo(peer, ":scheme", b"\xe9");
        }),
        case("8.3.1", "an authority that is empty", MALFORMED, |peer| {
            with_pseudo(peer, ":authority", b"");
        }),
        case("8.3.1", "an authority that is none", MALFORMED, |peer| {
            with_pseudo(peer, ":authority", b"h\xff");
        }),
        case(
            "8.3.1",
            "neither an authority nor a host",
            MALFORMED,
            |peer| {
                without(peer, ":authority");
            },
        ),
        case("8.3.1", "a method that is empty", MALFORMED, |peer| {
            with_pseudo(peer, ":method", b"");
        }),
        case("8.3.1", "a method beyond ASCII", MALFORMED, |peer| {
            with_pseudo(peer, ":method", b"G\xcbT");
        }),
        case("8.3.1", "two methods", MALFORMED, |peer| {
            twice(peer, ":method", "GET")
        }),
        case("8.3.1", "two schemes", MALFORMED, |peer| {
            twice(peer, ":scheme", "http")
        }),
        case("8.3.1", "two paths", MALFORMED, |peer| {
            twice(peer, ":path", "/")
        }),
        case("8.3.1", "two authorities", MALFORMED, |peer| {
            twice(peer, ":authority", "h")
        }),
        case("8.3.1", "a method that is none", MALFORMED, |peer| {
            peer.send(HEADERS, WHOLE, 1, &request("G T", "/", &[]));
        }),
        case(
            "8.3.1",
            "a host in the place of the authority",
            Answer(200),
            |peer| {
                let block = fields(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    ("host", "h"),
                ]);
                peer.send(HEADERS, WHOLE, 1, &block);
            },
        ),
        case(
            "8.3.1",
            "a host that is not the authority",
            Answer(400),
            |peer| malformed(peer, "host", "other"),
        ),
        case("8.3.1", "an authority with a user", Answer(400), |peer| {
            let block = fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "me@h"),
            ]);
            peer.send(HEADERS, WHOLE, 1, &block);
        }),
        case(
            "8.5",
            "CONNECT with a scheme and a path",
            MALFORMED,
            |peer| {
                peer.send(HEADERS, WHOLE, 1, &request("CONNECT", "/", &[]));
            },
        ),
        case("8.5", "CONNECT without an authority", MALFORMED, |peer| {
            peer.send(HEADERS, WHOLE, 1, &literal(":method", "CONNECT"));
        }),
        case("8.5", "CONNECT to elsewhere", Answer(501), |peer| {
            let block = fields(&[(":method", "CONNECT"), (":authority", "h:1")]);
            peer.send(HEADERS, END_HEADERS, 1, &block);
        }),
        case(
            "4 of RFC 8441",
            "a protocol without a path",
            MALFORMED,
            |peer| {
                let block = fields(&[
                    (":method", "CONNECT"),
                    (":scheme", "http"),
                    (":authority", "h"),
                    (":protocol", "websocket"),
                ]);
                peer.send(HEADERS, END_HEADERS, 1, &block);
            },
        ),
        case(
            "4 of RFC 8441",
            "a protocol for another method than CONNECT",
            MALFORMED,
            |peer| {
                let block = fields(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "h"),
                    (":protocol", "websocket"),
                ]);
                peer.send(HEADERS, WHOLE, 1, &block);
            },
        ),
    ]);
}

#[test]
fn a_body_is_as_long_as_it_says() {
    hold(&[
        case("8.1.1", "a length that is right", Answer(200), |peer| {
            body(peer, "8", &[b"test", b"test"]);
        }),
        case("8.1.1", "a body that is shorter", Reset(PROTOCOL), |peer| {
            body(peer, "5", &[b"test"]);
        }),
        case("8.1.1", "a body that is longer", Reset(PROTOCOL), |peer| {
            body(peer, "3", &[b"test"]);
        }),
        case(
            "8.1.1",
            "a body in two pieces that is shorter",
            Reset(PROTOCOL),
            |peer| {
                body(peer, "9", &[b"test", b"test"]);
            },
        ),
        case(
            "8.1.1",
            "a body in two pieces that is longer",
            Reset(PROTOCOL),
            |peer| {
                body(peer, "7", &[b"test", b"test"]);
            },
        ),
        case("8.1.1", "a length and no body", MALFORMED, |peer| {
            let length = [("content-length", "4")];
            peer.send(HEADERS, WHOLE, 1, &request("POST", "/", &length));
        }),
        case(
            "8.1.1",
            "a length that fields after the body belie",
            Reset(PROTOCOL),
            |peer| {
                peer.post(1, &[("content-length", "5")]);
                peer.send(DATA, 0, 1, b"test");
                peer.send(HEADERS, WHOLE, 1, &literal("x", "y"));
            },
        ),
        case("8.1.1", "a length that is no number", MALFORMED, |peer| {
            body(peer, "four", &[b"test"]);
        }),
        case("8.1.1", "a length with a sign", MALFORMED, |peer| {
            body(peer, "+4", &[b"test"]);
        }),
        case("8.1.1", "the same length twice", MALFORMED, |peer| {
            let lengths = [("content-length", "4"), ("content-length", "4")];
            peer.post(1, &lengths);
            peer.send(DATA, END_STREAM, 1, b"test");
        }),
        case(
            "8.1.1",
            "a length of more than 64 bits",
            MALFORMED,
            |peer| {
                body(peer, "18446744073709551616", &[b"test"]);
            },
        ),
        case("8.1.1", "two lengths", MALFORMED, |peer| {
            let lengths = [("content-length", "4"), ("content-length", "5")];
            peer.post(1, &lengths);
            peer.send(DATA, END_STREAM, 1, b"test");
        }),
    ]);
}

#[test]
fn compressed_fields_are_read_or_refused() {
    hold(&[
        case(
            "2.3.3 of RFC 7541",
            "an index beyond both tables",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0xc6]);
            },
        ),
        case(
            "2.3.3 of RFC 7541",
            "a name's index beyond both tables",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x7f, 0x07, 0x01, b'x']);
            },
        ),
        case("6.1 of RFC 7541", "index 0", End(COMPRESSION), |peer| {
            with_block(peer, &[0x80])
        }),
        case(
            "4.2 of RFC 7541",
            "a change of the table's size behind a field",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x20]);
            },
        ),
        case(
            "4.2 of RFC 7541",
            "changes of the table's size before the fields",
            Answer(200),
            |peer| {
                // To nothing, and to 4096.
                let mut block = vec![0x20, 0x3f, 0xe1, 0x1f];
                block.extend(request("GET", "/", &[]));
                peer.send(HEADERS, WHOLE, 1, &block);
            },
        ),
        case(
            "6.3 of RFC 7541",
            "a table that is larger than we allow",
            End(COMPRESSION),
            |peer| {
                let mut block = vec![0x3f, 0xe2, 0x1f];
                block.extend(request("GET", "/", &[]));
                peer.send(HEADERS, WHOLE, 1, &block);
            },
        ),
        case(
            "5.1 of RFC 7541",
            "a number without end",
            End(COMPRESSION),
            |peer| {
                with_block(
                    peer,
                    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
                );
            },
        ),
        case(
            "5.1 of RFC 7541",
            "a number that is not whole",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0xff, 0x80]);
            },
        ),
        case(
            "5.2 of RFC 7541",
            "a text that is longer than the block",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x00, 0x01, b'x', 0x05, b'y']);
            },
        ),
        case(
            "5.2 of RFC 7541",
            "padding of more than seven bits",
            End(COMPRESSION),
            |peer| {
                // `a` has five bits, three are filled up, and eight are too many.
                with_block(peer, &[0x00, 0x01, b'x', 0x82, 0x1f, 0xff]);
            },
        ),
        case(
            "5.2 of RFC 7541",
            "padding of zeros",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x00, 0x01, b'x', 0x81, 0x18]);
            },
        ),
        case(
            "5.2 of RFC 7541",
            "the code of the end within a text",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]);
            },
        ),
        case(
            "5.2 of RFC 7541",
            "Huffman's code as it should be",
            Answer(200),
            |peer| {
                with_block(peer, &[0x00, 0x01, b'x', 0x81, 0x1f]);
            },
        ),
        case(
            "6.2.3 of RFC 7541",
            "a field that is never to be remembered",
            Answer(200),
            |peer| {
                with_block(peer, &[0x10, 0x01, b'x', 0x01, b'y']);
            },
        ),
        case(
            "2.3.2 of RFC 7541",
            "a field that was remembered",
            Answer(200),
            |peer| {
                with_block(peer, &[0x40, 0x01, b'x', 0x01, b'y']);
                peer.until(|frame| frame.kind == DATA);
                peer.watched = 3;
                let mut block = request("GET", "/", &[]);
                block.push(0xbe);
                peer.send(HEADERS, WHOLE, 3, &block);
            },
        ),
        case(
            "4.3 of RFC 7541",
            "a field that was dropped to make room",
            End(COMPRESSION),
            |peer| {
                with_block(peer, &[0x40, 0x01, b'x', 0x01, b'y']);
                peer.until(|frame| frame.kind == DATA);
                peer.watched = 3;
                // The table of nothing, and again of 4096.
                let mut block = vec![0x20, 0x3f, 0xe1, 0x1f];
                block.extend(request("GET", "/", &[]));
                block.push(0xbe);
                peer.send(HEADERS, WHOLE, 3, &block);
            },
        ),
        case(
            "4.4 of RFC 7541",
            "a field that is larger than the table empties it",
            Answer(200),
            |peer| {
                let mut field = literal("x", "y".repeat(5000));
                field[0] = 0x40;
                with_block(peer, &field);
            },
        ),
        case(
            "4.3",
            "a refused request's fields are remembered all the same",
            Answer(200),
            |peer| {
                let mut block = request("GET", "/", &[]);
                block.extend(literal("x", " a"));
                block.extend([0x40, 0x01, b'x', 0x01, b'y']);
                peer.send(HEADERS, WHOLE, 1, &block);
                peer.until(|frame| frame.kind == DATA && frame.stream == 1);
                peer.watched = 3;
                let mut block = request("GET", "/", &[]);
                block.push(0xbe);
                peer.send(HEADERS, WHOLE, 3, &block);
            },
        ),
    ]);
}

#[test]
fn a_connection_error_names_the_last_request_it_has_taken() {
    let house = house();
    let mut peer = Peer::open(house.listening[0]);
    peer.done(1);
    peer.waiting(3);
    peer.window(0, 0);
    let heard = peer.until(|frame| frame.kind == GOAWAY);
    let goaway = heard.last().unwrap();
    assert_eq!(word(&goaway.payload), 3);
    assert_eq!(word(&goaway.payload[4..]), PROTOCOL);
    // 5.4.1: and then it ends.
    assert!(peer.next().is_none());
}

#[test]
fn a_client_that_leaves_is_left() {
    let house = house();
    let mut peer = Peer::open(house.listening[0]);
    peer.done(1);
    peer.send(GOAWAY, 0, 0, &[0; 8]);
    let came = peer.outcome();
    assert!(
        matches!(came, What::Close | What::End(NO_ERROR)),
        "{came:?}"
    );
}

/// A request with one more field.
fn malformed(peer: &mut Peer, name: &str, value: &str) {
    peer.send(HEADERS, WHOLE, 1, &request("GET", "/", &[(name, value)]));
}

/// A request without one of its pseudo-headers.
fn without(peer: &mut Peer, name: &str) {
    let all = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "h"),
    ];
    let left: Vec<_> = all.into_iter().filter(|field| field.0 != name).collect();
    peer.send(HEADERS, WHOLE, 1, &fields(&left));
}

/// A request of which one pseudo-header is this.
fn with_pseudo(peer: &mut Peer, name: &str, value: &[u8]) {
    let mut block = Vec::new();
    for (each, usual) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "h"),
    ] {
        let usual = usual.as_bytes();
        block.extend(literal(each, if each == name { value } else { usual }));
    }
    peer.send(HEADERS, WHOLE, 1, &block);
}

/// A request with one of its pseudo-headers twice.
fn twice(peer: &mut Peer, name: &str, value: &str) {
    let mut block = literal(name, value);
    block.extend(request("GET", "/", &[]));
    peer.send(HEADERS, WHOLE, 1, &block);
}

/// A request with a body in pieces.
fn body(peer: &mut Peer, length: &str, pieces: &[&[u8]]) {
    peer.post(1, &[("content-length", length)]);
    for (at, piece) in pieces.iter().enumerate() {
        let end = if at + 1 == pieces.len() {
            END_STREAM
        } else {
            0
        };
        peer.send(DATA, end, 1, piece);
    }
}

/// A request that is good but for the `bytes` behind its fields.
fn with_block(peer: &mut Peer, bytes: &[u8]) {
    let mut block = request("GET", "/", &[]);
    block.extend(bytes);
    peer.send(HEADERS, WHOLE, 1, &block);
}
