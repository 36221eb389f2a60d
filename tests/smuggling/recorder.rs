//! A worker that writes down what arrives, answers each request with 200, and has a word to say of each message that could be read in
//! another way.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::corpus::escape;
use crate::house::{DEADLINE, find};

/// A request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) head: String,
    /// `METHOD TARGET FRAMING BODY`.
    pub(crate) line: String,
    /// What could be read in another way.
    pub(crate) faults: Vec<String>,
}

/// What has arrived since the last look.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<Arrival>>>);

impl Record {
    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Serves a connection to its end.
    pub(crate) fn serve(&self, mut stream: UnixStream) {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut heard = Vec::new();
        while let Some(arrival) = self.next(&mut stream, &mut heard) {
            self.0.lock().unwrap().push(arrival);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }

    /// Serves every connection of `listener`.
    pub(crate) fn listen(&self, listener: UnixListener) {
        let record = self.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let record = record.clone();
                thread::spawn(move || record.serve(stream));
            }
        });
    }

    fn next(&self, stream: &mut UnixStream, heard: &mut Vec<u8>) -> Option<Arrival> {
        let end = loop {
            if let Some(at) = find(heard, b"\r\n\r\n") {
                break at + 4;
            }
            more(stream, heard)?;
        };
        let head: Vec<u8> = heard.drain(..end).collect();
        let mut faults = faults(&head);
        let head = escape_head(&head);
        let values = |name: &str| -> Vec<String> {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            let named = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.trim().to_owned()).collect()
        };
        if values("expect")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        if lengths.len() + codings.len() > 1 {
            faults.push(format!("lengths {lengths:?}, codings {codings:?}"));
        }
        if values("host").len() != 1 {
            faults.push(format!("hosts {:?}", values("host")));
        }
        let mut body = Vec::new();
        let framing = match (&lengths[..], &codings[..]) {
            (_, [.., coding]) => {
                if coding != "chunked" {
                    faults.push(format!("coding {coding}"));
                }
                if let Err(fault) = chunks(stream, heard, &mut body)? {
                    faults.push(fault);
                }
                "chunked".to_owned()
            }
            ([.., length], []) => {
                let plain = length.bytes().all(|byte| byte.is_ascii_digit());
                match length.parse::<usize>().ok().filter(|_| plain) {
                    Some(length) => {
                        while heard.len() < length {
                            more(stream, heard)?;
                        }
                        body.extend(heard.drain(..length));
                    }
                    None => faults.push(format!("length {length:?}")),
                }
                format!("length {length}")
            }
            ([], []) => "none".to_owned(),
        };
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target) = (words.next()?, words.next().unwrap_or_default());
        let line = format!("{method} {target} {framing} {}", escape(&body));
        Some(Arrival {
            line: line.trim_end().to_owned(),
            head,
            faults,
        })
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        for fault in &self.faults {
            write!(f, " [{fault}]")?;
        }
        Ok(())
    }
}

/// Escapes all of a head but its line ends.
fn escape_head(head: &[u8]) -> String {
    let text = escape(head);
    text.replace("\\r\\n", "\n")
        .replace("\\\"", "\"")
        .replace("\\'", "'")
        .replace("\\\\", "\\")
}

fn faults(head: &[u8]) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = head.split(|&byte| byte == b'\n');
    for line in lines.take_while(|line| *line != b"\r") {
        let text = escape(line);
        match line {
            [line @ .., b'\r'] if !line.contains(&b'\r') => {
                if line.first().is_some_and(u8::is_ascii_whitespace) {
                    faults.push(format!("folded {text}"));
                }
                if line
                    .iter()
                    .any(|&byte| byte != b'\t' && byte.is_ascii_control())
                {
                    faults.push(format!("control character {text}"));
                }
            }
            _ => faults.push(format!("line end {text}")),
        }
    }
    faults
}

/// Reads a chunked body; the outer `None` is a connection that ends before it.
fn chunks(
    stream: &mut UnixStream,
    heard: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> Option<Result<(), String>> {
    loop {
        let line = line(stream, heard)?;
        let plain = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(&line).ok().filter(|_| plain);
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
            return Some(Err(format!("chunk size {}", escape(&line))));
        };
        if size == 0 {
            break;
        }
        while heard.len() < size + 2 {
            more(stream, heard)?;
        }
        body.extend(heard.drain(..size));
        if heard.drain(..2).as_slice() != b"\r\n" {
            return Some(Err("a chunk without its end".to_owned()));
        }
    }
    loop {
        let line = line(stream, heard)?;
        if line.is_empty() {
            return Some(Ok(()));
        }
        if line.contains(&b'\n') || line.contains(&b'\r') {
            return Some(Err(format!("trailer {}", escape(&line))));
        }
        body.extend(b"|");
        body.extend(line);
    }
}

fn line(stream: &mut UnixStream, heard: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = find(heard, b"\r\n") {
            let line = heard.drain(..at).collect();
            heard.drain(..2);
            return Some(line);
        }
        more(stream, heard)?;
    }
}

fn more(stream: &mut UnixStream, heard: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer) {
        Ok(read) if read > 0 => {
            heard.extend(&buffer[..read]);
            Some(())
        }
        _ => None,
    }
}
