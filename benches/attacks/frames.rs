//! Frames of HTTP/2 as no client library sends them (RFC 9113, 4 and 6; RFC 7541, 6).

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// What a connection begins with; `window` is the room for each answer.
pub(crate) fn preface(window: Option<u32>) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(settings(window));
    bytes
}

pub(crate) fn settings(window: Option<u32>) -> Vec<u8> {
    let mut setting = Vec::new();
    if let Some(window) = window {
        setting.extend([0, 4]);
        setting.extend(window.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &setting)
}

pub(crate) fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, 1, 0, &[])
}

pub(crate) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"pingping")
}

pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

pub(crate) fn continuation(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, 0, stream, block)
}

/// The client takes its request back.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// `GET path`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    block.extend([0x04, path.len() as u8]);
    block.extend_from_slice(path.as_bytes());
    block.extend([0x01, 1, b'a']);
    block
}

/// A field that the other side is to remember: name and value.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x40, name.len() as u8];
    block.extend_from_slice(name.as_bytes());
    let mut rest = value.len() - 127;
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
    block.extend_from_slice(value.as_bytes());
    block
}

/// The field that was remembered last.
pub(crate) const LAST: u8 = 0x80 | 62;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
