//! Workers of each type: as small as one would write them, with nothing but the language's own library.

use std::path::Path;

/// A type of worker.
pub(crate) struct Kind {
    /// Its name, which is the worker's too.
    pub(crate) name: &'static str,
    /// What has to be installed.
    pub(crate) tool: &'static str,
    /// The file that is saved, and its text, in which `TEXT` is the answer.
    pub(crate) source: (&'static str, &'static str),
    /// What else lies in its directory.
    others: &'static [(&'static str, &'static str)],
    /// Whether it is built before it is started.
    pub(crate) is_built: bool,
}

pub(crate) static KINDS: [Kind; 4] = [
    Kind {
        name: "python",
        tool: "python3",
        source: ("main.py", PYTHON),
        others: &[],
        is_built: false,
    },
    Kind {
        name: "node",
        tool: "node",
        source: ("server.js", NODE),
        others: &[],
        is_built: false,
    },
    Kind {
        name: "go",
        tool: "go",
        source: ("main.go", GO),
        others: &[("go.mod", "module hello\n\ngo 1.19\n")],
        is_built: true,
    },
    Kind {
        name: "rust",
        tool: "cargo",
        source: ("src/main.rs", RUST),
        others: &[(
            "Cargo.toml",
            "[package]\nname = \"rust\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        )],
        is_built: true,
    },
];

impl Kind {
    pub(crate) fn is_installed(&self) -> bool {
        std::env::split_paths(&search_path()).any(|directory| directory.join(self.tool).is_file())
    }

    pub(crate) fn route(&self) -> String {
        format!("/{}", self.name)
    }

    /// What it answers when it was saved for the `number`th time.
    pub(crate) fn text(&self, number: usize) -> String {
        format!("{} {number}", self.name)
    }

    /// The source that answers this.
    pub(crate) fn source_saying(&self, text: &str) -> String {
        self.source.1.replace("TEXT", text)
    }

    /// Puts it into `directory`, saying `text`.
    pub(crate) fn put(&self, directory: &Path, text: &str) {
        let source = (self.source.0, self.source_saying(text));
        let others = self
            .others
            .iter()
            .map(|(path, text)| (*path, (*text).to_owned()));
        for (path, text) in others.chain([source]) {
            let file = directory.join(path);
            std::fs::create_dir_all(file.parent().expect("it lies in a directory"))
                .expect("a directory");
            std::fs::write(file, text).expect("a file of a worker");
        }
    }
}

/// The machine's own programs first: what version managers put before them are scripts that take longer to start than Python does.
pub(crate) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("/usr/local/bin:/usr/bin:/bin:{own}")
}

const PYTHON: &str = r#"import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"TEXT"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "proxy"

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("", 0), Hello, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
"#;

const NODE: &str = r#"const http = require("node:http");

const server = http.createServer((request, response) => {
  response.setHeader("Content-Length", Buffer.byteLength("TEXT"));
  response.end("TEXT");
});
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close());
"#;

const GO: &str = r#"package main

import (
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		io.WriteString(response, "TEXT")
	})
	http.Serve(listener, nil)
}
"#;

const RUST: &str = r#"use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

fn main() {
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(stream: UnixStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let text = "TEXT";
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
        }
    }
    Ok(())
}
"#;
