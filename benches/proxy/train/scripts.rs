//! A worker that speaks FastCGI, as much of it as a training needs: whatever is asked, it responds with a page.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

const VERSION: u8 = 1;
const BEGIN: u8 = 1;
const END: u8 = 3;
const INPUT: u8 = 5;
const OUTPUT: u8 = 6;
/// Of BEGIN: the connection stays.
const KEEP: u8 = 1;

const PAGE: &[u8] = b"Content-Type: text/html; charset=utf-8\r\nX-Powered-By: PHP/8.4\r\n\r\n<!doctype html><title>List</title><p>page 2\n";

/// Listens at `path` and responds until the program ends.
pub(super) fn start(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket for scripts");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
}

fn serve(mut stream: UnixStream) -> io::Result<()> {
    let mut keep = false;
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let [_, kind, one, two, high, low, padding, _] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut content = vec![0; length + usize::from(padding)];
        stream.read_exact(&mut content)?;
        match kind {
            BEGIN => keep = content[2] & KEEP != 0,
            INPUT if length == 0 => {
                let mut response = record(OUTPUT, [one, two], PAGE);
                response.extend(record(OUTPUT, [one, two], &[]));
                response.extend(record(END, [one, two], &[0; 8]));
                stream.write_all(&response)?;
                if !keep {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

fn record(kind: u8, [one, two]: [u8; 2], content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len())
        .expect("a short record")
        .to_be_bytes();
    [&[VERSION, kind, one, two, high, low, 0, 0], content].concat()
}
