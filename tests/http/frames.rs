//! HTTP/2 frame by frame: what a client must not do, and what it may that is rare (RFC 9113, and RFC 7541 for compressed fields).
//!
//! In the place of h2spec, whose rules these are in our words, and some more. A case says in which section its rule stands, what the
//! client does, and what must come of it. Where the h2 crate does something else, the case says `Deviates`, with what comes instead,
//! and fails once that changes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::house::{DEADLINE, House, field, find};

#[path = "frames/cases.rs"]
mod cases;
#[path = "frames/shared.rs"]
mod shared;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest frame that is taken unless a peer says otherwise.
const FRAME_MAX: usize = 16_384;

// Types of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

// Flags.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;
/// Both ends: a request in one frame.
const WHOLE: u8 = END_STREAM | END_HEADERS;

// Codes of errors (RFC 9113, 7).
const NO_ERROR: u32 = 0;
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION: u32 = 9;

/// What must come.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// A connection error: a GOAWAY with this code, and the end.
    End(u32),
    /// A stream error with this code, and of this stream alone. One may be made the connection's (5.4), but other people's requests may
    /// be on it: the next request on the connection is answered.
    Reset(u32),
    /// An answer with this status; the next request on the connection is answered as well.
    Answer(u16),
    /// Nothing: the connection goes on, and its next request is answered.
    GoOn,
    /// The connection ends, with or without a word.
    Close,
    /// One of these, which is not what the section says, and why that does no harm.
    Deviates(&'static [What], &'static str),
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    End(u32),
    Reset(u32),
    Answer(u16),
    GoOn,
    Close,
}

/// One rule.
struct Case {
    section: &'static str,
    claim: &'static str,
    must: Must,
    act: fn(&mut Peer),
}

/// A client in single frames.
struct Peer {
    stream: TcpStream,
    /// The stream whose answer or end is looked at.
    watched: u32,
    /// It has said that it sends no more requests.
    leaving: bool,
    heard: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const fn case(section: &'static str, claim: &'static str, must: Must, act: fn(&mut Peer)) -> Case {
    Case {
        section,
        claim,
        must,
        act,
    }
}

impl Peer {
    /// A connection whose settings are exchanged.
    fn open(address: SocketAddr) -> Self {
        let mut peer = Self::raw(address);
        peer.write(PREFACE);
        peer.send(SETTINGS, 0, 0, &[]);
        let first = peer.next().expect("closed at once");
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
        peer.send(SETTINGS, ACK, 0, &[]);
        peer.until(|frame| frame.kind == SETTINGS && frame.flags == ACK);
        peer
    }

    /// A connection on which nothing is said yet.
    fn raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            watched: 1,
            leaving: false,
            heard: Vec::new(),
        }
    }

    /// The other side may have closed already: that is seen when it is listened to.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let frame = frame(kind, flags, stream, payload);
        self.leaving |= kind == GOAWAY;
        self.write(&frame);
    }

    /// A request without a body.
    fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, WHOLE, stream, &request("GET", path, &[]));
    }

    /// A request whose body is to come.
    fn post(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_HEADERS, stream, &request("POST", "/", fields));
    }

    /// A request that is never answered, its body sent.
    fn waiting(&mut self, stream: u32) {
        self.get(stream, "/never");
        self.sync();
    }

    /// A request that was answered.
    fn done(&mut self, stream: u32) {
        self.get(stream, "/");
        self.until(|frame| frame.stream == stream && frame.flags & END_STREAM != 0);
    }

    fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload = settings_of(settings);
        self.send(SETTINGS, 0, 0, &payload);
    }

    fn window(&mut self, stream: u32, more: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    }

    fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Returns once all that was sent has been read.
    fn sync(&mut self) {
        self.send(PING, 0, 0, b"in sync?");
        self.until(|frame| frame.kind == PING && frame.flags == ACK);
    }

    /// The next frame; `None` when the connection has ended.
    fn next(&mut self) -> Option<Frame> {
        while self.heard.len() < 9 || self.heard.len() < 9 + length_of(&self.heard) {
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
        let length = length_of(&self.heard);
        let whole: Vec<u8> = self.heard.drain(..9 + length).collect();
        Some(Frame {
            kind: whole[3],
            flags: whole[4],
            stream: word(&whole[5..]) & 0x7fff_ffff,
            payload: whole[9..].to_vec(),
        })
    }

    /// The frames up to one that is awaited, which is the last.
    fn until(&mut self, awaited: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let Some(frame) = self.next() else {
                panic!("closed instead, after {frames:?}");
            };
            let found = awaited(&frame);
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }

    /// The first of all that can come of what was sent, on the stream that is watched or on the connection.
    fn outcome(&mut self) -> What {
        while let Some(frame) = self.next() {
            match frame.kind {
                GOAWAY => {
                    let code = word(&frame.payload[4..]);
                    // An error's GOAWAY is the last that is heard.
                    while self.next().is_some() {}
                    return What::End(code);
                }
                RST_STREAM if frame.stream == self.watched => {
                    return What::Reset(word(&frame.payload));
                }
                HEADERS if frame.stream == self.watched => {
                    return What::Answer(status_of(&frame.payload));
                }
                _ => {}
            }
        }
        What::Close
    }

    /// The same where nothing is to come: a new request's answer says so.
    fn goes_on(&mut self) -> What {
        self.watched = 1001;
        self.get(1001, "/");
        match self.outcome() {
            What::Answer(200) => What::GoOn,
            other => other,
        }
    }
}

impl Case {
    /// What is wrong, if something is.
    fn fault(&self, address: SocketAddr) -> Option<String> {
        let mut peer = Peer::open(address);
        (self.act)(&mut peer);
        let goes_on = matches!(self.must, Must::GoOn | Must::Deviates([What::GoOn], _));
        let came = match goes_on {
            true => peer.goes_on(),
            false => peer.outcome(),
        };
        let right = match self.must {
            Must::End(code) => came == What::End(code),
            Must::Reset(code) => came == What::Reset(code),
            Must::Answer(status) => came == What::Answer(status),
            Must::GoOn => came == What::GoOn,
            Must::Close => matches!(came, What::Close | What::End(_)),
            Must::Deviates(what, _) => what.contains(&came),
        };
        let Self { section, claim, .. } = self;
        // Unless there is no next request, or there are too many.
        let is_last = peer.leaving || peer.watched == 0x7fff_ffff || came == What::Reset(REFUSED);
        if right && !is_last && matches!(came, What::Reset(_) | What::Answer(_)) {
            let other = peer.goes_on();
            if other != What::GoOn {
                return Some(format!("{section}: {claim}: {came:?}, but then {other:?}"));
            }
        }
        let must = match self.must {
            Must::Deviates(what, why) => format!("was {what:?} ({why})"),
            must => format!("must be {must:?}"),
        };
        (!right).then(|| format!("{section}: {claim}: {came:?}, but it {must}"))
    }
}

fn length_of(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn settings_of(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    payload
}

/// A field that is written out and not remembered (RFC 7541, 6.2.2).
fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name.as_ref(), value.as_ref()] {
        // A length in a prefix of seven bits (RFC 7541, 5.1).
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => field.push(length),
            _ => {
                let mut rest = text.len() - 127;
                field.push(127);
                while rest >= 128 {
                    field.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                field.push(u8::try_from(rest).unwrap());
            }
        }
        field.extend(text);
    }
    field
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter();
    fields
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// The fields of a request.
fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "h"),
    ];
    all.extend(more);
    fields(&all)
}

/// The status in an answer's fields: the first, for it is a pseudo-header. Earlier changes of the table's size are passed over.
fn status_of(block: &[u8]) -> u16 {
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    match &block[at..] {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        // `:status` by its name's index, its value in Huffman's code or not.
        [0x48 | 0x08 | 0x18, length, value @ ..] => {
            let value = &value[..usize::from(length & 0x7f)];
            let text = match length & 0x80 {
                0 => String::from_utf8(value.to_vec()).unwrap(),
                _ => digits(value),
            };
            text.parse().unwrap()
        }
        other => panic!("no status in {other:?}"),
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn digits(code: &[u8]) -> String {
    let bits: String = code.iter().map(|byte| format!("{byte:08b}")).collect();
    let mut bits = bits.as_str();
    let mut text = String::new();
    while let Some(five) = bits.get(..5) {
        let digit = u32::from_str_radix(five, 2).unwrap();
        let (digit, length) = match (digit, bits.get(..6)) {
            (0..=2, _) => (digit, 5),
            (_, Some(six)) => match u32::from_str_radix(six, 2).unwrap() {
                six @ 0b011001..=0b011111 => (six - 0b011001 + 3, 6),
                _ => break,
            },
            _ => break,
        };
        text.push(char::from_digit(digit, 10).unwrap());
        bits = &bits[length..];
    }
    text
}

/// A house whose worker answers `hello`, but never at `/never`, and reads no more than the head at `/deaf`.
fn house() -> House {
    let house = House::with(|table| table.front.http2_cleartext = true);
    house.worker(1).serve(|talk| {
        let mut heard = Vec::new();
        loop {
            while !is_whole(&heard) {
                if heard.starts_with(b"POST /deaf ") {
                    std::thread::park_timeout(DEADLINE);
                    return;
                }
                let mut buffer = [0; 16 << 10];
                match talk.stream.read(&mut buffer) {
                    // A request that is taken back ends anywhere.
                    Ok(0) | Err(_) => return,
                    Ok(read) => heard.extend_from_slice(&buffer[..read]),
                }
            }
            if !heard.starts_with(b"GET /never ") {
                talk.answer("hello");
            }
            heard.clear();
        }
    });
    house
}

/// Whether a request has come with all of its body.
fn is_whole(heard: &[u8]) -> bool {
    let Some(end) = find(heard, b"\r\n\r\n") else {
        return false;
    };
    let head = &String::from_utf8_lossy(&heard[..end]);
    match field(head, "content-length") {
        Some(length) => heard.len() == end + 4 + length.parse::<usize>().unwrap(),
        None if field(head, "transfer-encoding").is_some() => {
            find(&heard[end..], b"\r\n0\r\n").is_some() && heard.ends_with(b"\r\n\r\n")
        }
        None => true,
    }
}

/// Tries all cases, and whether others are served as ever.
fn hold(cases: &[Case]) {
    let house = house();
    let address = house.listening[0];
    let faults = cases.iter().filter_map(|case| case.fault(address));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert_eq!(Peer::open(address).goes_on(), What::GoOn);
}
