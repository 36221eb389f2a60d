//! HTTP/2 (RFC 9113), as much of it as a load generator needs: GET requests without Huffman codes and without a dynamic table, answers
//! that are only counted.

use std::time::Instant;

use super::scenario::Ask;
use super::talk::{Goal, Talk, record};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest window. Nobody asks this client for more: the answers of a whole run are smaller.
const WINDOW: u32 = (1 << 31) - 1;
/// The window of a connection at its start.
const WINDOW_AT_FIRST: u32 = 65_535;

/// A connection with several requests at a time.
pub(crate) struct Http2 {
    /// The fields of a request, ready to be sent.
    fields: Vec<u8>,
    /// Most requests at a time.
    streams: usize,
    next: u32,
    /// Number and beginning of those on their way.
    open: Vec<(u32, Instant)>,
    out: Vec<u8>,
    sent: usize,
    /// A frame that has not come whole.
    partial: Vec<u8>,
}

impl Http2 {
    /// Is to send the request of `ask` again and again, `streams` at a time.
    pub(crate) fn new(ask: Ask, streams: usize) -> Self {
        let mut fields = Vec::new();
        // RFC 7541: indexed ":method: GET" and ":scheme: https", then names by their index in the static table, values as they are.
        fields.extend([0x82, 0x87]);
        for (name, value) in [
            (4, ask.path().as_str()),
            (1, "bench.test"),
            (15 + 4, "*/*"),
            (15 + 43, "bench"),
        ] {
            literal(&mut fields, name, value);
        }
        if ask == Ask::Page {
            literal(&mut fields, 15 + 1, "gzip, deflate, br, zstd");
        }
        let mut http2 = Self {
            fields,
            streams,
            next: 1,
            open: Vec::new(),
            out: PREFACE.to_vec(),
            sent: 0,
            partial: Vec::new(),
        };
        // No push; a window that never closes.
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend(WINDOW.to_be_bytes());
        http2.say(SETTINGS, 0, 0, &settings);
        let more = WINDOW - WINDOW_AT_FIRST;
        http2.say(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        http2
    }

    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame");
        self.out.extend(&length.to_be_bytes()[1..]);
        self.out.extend([kind, flags]);
        self.out.extend(stream.to_be_bytes());
        self.out.extend(payload);
    }

    fn begin(&mut self, now: Instant) {
        let fields = std::mem::take(&mut self.fields);
        self.say(HEADERS, END_STREAM | END_HEADERS, self.next, &fields);
        self.fields = fields;
        self.open.push((self.next, now));
        self.next += 2;
    }

    /// Takes one frame; when a request began, if its answer ends with this frame.
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<Instant> {
        match kind {
            SETTINGS if flags & ACK == 0 => self.say(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.say(PING, ACK, 0, payload),
            RESET | GOAWAY => panic!("the proxy ends a stream or all: {kind} {payload:?}"),
            HEADERS => assert!(is_well(payload), "an answer that is not 200: {payload:?}"),
            _ => {}
        }
        if !matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0 {
            return None;
        }
        let at = self.open.iter().position(|(open, _)| *open == stream);
        let (_, began) = self.open.swap_remove(at.expect("an answer to a request"));
        Some(began)
    }
}

impl Talk for Http2 {
    fn ask(&mut self, now: Instant) {
        while self.open.len() < self.streams {
            self.begin(now);
        }
    }

    fn unsent(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    fn hear(&mut self, bytes: &[u8], goal: &Goal, latencies: &mut Vec<u32>) {
        let mut seen = std::mem::take(&mut self.partial);
        seen.extend_from_slice(bytes);
        let mut rest = seen.as_slice();
        let now = Instant::now();
        while let Some((head, behind)) = rest.split_at_checked(FRAME_HEAD) {
            let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            let Some((payload, behind)) = behind.split_at_checked(number(&head[..3]) as usize)
            else {
                break;
            };
            let stream = number(&head[5..]);
            if let Some(began) = self.frame(head[3], head[4], stream, payload) {
                record(latencies, began, now);
                if !goal.is_reached(latencies.len(), now) {
                    self.begin(now);
                }
            }
            rest = behind;
        }
        self.partial = rest.to_vec();
    }

    fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }
}

/// A field that the other side is not to remember.
fn literal(fields: &mut Vec<u8>, name: u8, value: &str) {
    match name {
        ..15 => fields.push(name),
        _ => fields.extend([15, name - 15]),
    }
    let length = u8::try_from(value.len())
        .ok()
        .filter(|length| *length < 127);
    fields.push(length.expect("a short value"));
    fields.extend(value.as_bytes());
}

/// Whether an answer's fields begin with ":status: 200", as every server writes it. A change of the table's size may stand before it.
fn is_well(fields: &[u8]) -> bool {
    let mut fields = fields.iter().copied();
    loop {
        match fields.next() {
            Some(0x3f) => while fields.next().is_some_and(|byte| byte & 0x80 != 0) {},
            Some(0x20..0x3f) => {}
            first => return first == Some(0x88),
        }
    }
}
