//! Workers whose answers are pages.

use crate::house::worker::{Worker, behaves, empty};
use crate::house::{HEAD, House};

/// It answers with this page.
pub fn page(html: &str) -> Worker {
    behaves("page page.html").file("page.html", &document(html))
}

/// A worker in Rust, that Cargo builds; it answers with this page.
pub fn in_rust(html: &str) -> Worker {
    in_rust_with(html, "")
}

/// The same, with these lines at the end of its source.
pub fn in_rust_with(html: &str, lines: &str) -> Worker {
    let manifest = "[package]\nname = \"index\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    let source = SOURCE.replace("PAGE", &format!("{:?}", document(html)));
    empty()
        .file("Cargo.toml", manifest)
        .file("src/main.rs", &format!("{source}{lines}\n"))
}

/// A worker that its own script builds.
pub fn built(script: &str, html: &str) -> Worker {
    page(html)
        .config("build: [sh, make.sh]")
        .file("make.sh", script)
}

fn document(html: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>a page</title></head><body>{html}</body></html>\n"
    )
}

/// A house in which files are watched.
pub fn house() -> House {
    let head = HEAD.replace("60000", "20");
    House::new().server_yaml(&format!(
        "{head}workers:\n    shutdown_grace_period_ms: 5000\n"
    ))
}

const SOURCE: &str = r#"use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

const HTML: &str = PAGE;

fn main() {
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(stream: UnixStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            let length = HTML.len();
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{HTML}")?;
        }
    }
    Ok(())
}
"#;
