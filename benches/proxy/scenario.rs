//! What is asked of the contestants.

/// The path of a worker's answers: a route among fifty.
const BASE: &str = "/app07/customers/17";
/// The route of the worker that speaks FastCGI.
pub(crate) const SCRIPTS: &str = "/app48";
/// Bytes of an upload.
const UPLOAD: usize = 1 << 20;

/// One kind of traffic.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) ask: Ask,
    pub(crate) speech: Speech,
    pub(crate) place: Place,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A few bytes from the worker.
    Small,
    /// The same, asked as a browser does.
    Browser,
    /// 10 KiB from the worker.
    Medium,
    /// 1 MiB from the worker.
    Large,
    /// 1 MiB for the worker.
    Upload,
    /// A file of 10 KiB, without the worker.
    File,
    /// A page of 24 KiB from the worker, which is compressed on its way.
    Page,
    /// A few bytes of JSON for the worker, and as many back, as programs ask each other.
    Api,
    /// A page that a script makes: the worker speaks FastCGI.
    Script,
}

/// How it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, keep-alive.
    Plain,
    /// HTTP/1.1, a new connection for each request.
    Fresh,
    /// The same over TLS 1.3.
    Tls,
    /// HTTP/1.1 over TLS 1.3, a new connection for each request, its session resumed by a ticket.
    TlsResumed,
    /// The same with a full handshake each time.
    TlsFull,
    /// HTTP/2 over TLS 1.3, so many streams a connection.
    Http2(usize),
}

/// Who runs where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The proxies on one core, load and worker on another.
    Apart,
    /// All on both: to move a large body is work for whoever sends and takes it, too.
    Anywhere,
}

/// All of them, in the order of the table. Idle connections are measured apart.
pub(crate) const ALL: [Scenario; 12] = [
    plain("1", 1, Ask::Small),
    plain("32", 32, Ask::Small),
    plain("256", 256, Ask::Small),
    plain("browser", 32, Ask::Browser),
    plain("10k", 32, Ask::Medium),
    anywhere("1m-down", 8, Ask::Large),
    anywhere("1m-up", 8, Ask::Upload),
    plain("file", 32, Ask::File),
    tls("tls", 32, Speech::Tls),
    tls("tls-resumed", 8, Speech::TlsResumed),
    tls("tls-full", 8, Speech::TlsFull),
    tls("http2", 4, Speech::Http2(8)),
];

/// What a profile is made of besides, so that the compiler knows what else users do.
pub(crate) const IN_TRAINING: [Scenario; 8] = [
    spoken("new", 8, Ask::Small, Speech::Fresh),
    plain("api", 32, Ask::Api),
    plain("page", 8, Ask::Page),
    plain("script", 16, Ask::Script),
    spoken("tls-page", 4, Ask::Page, Speech::Tls),
    spoken("tls-file", 8, Ask::File, Speech::Tls),
    spoken("http2-page", 2, Ask::Page, Speech::Http2(4)),
    spoken("http2-file", 4, Ask::File, Speech::Http2(8)),
];

const fn plain(name: &'static str, connections: usize, ask: Ask) -> Scenario {
    Scenario {
        name,
        connections,
        ask,
        speech: Speech::Plain,
        place: Place::Apart,
    }
}

const fn anywhere(name: &'static str, connections: usize, ask: Ask) -> Scenario {
    Scenario {
        place: Place::Anywhere,
        ..plain(name, connections, ask)
    }
}

const fn tls(name: &'static str, connections: usize, speech: Speech) -> Scenario {
    spoken(name, connections, Ask::Small, speech)
}

const fn spoken(name: &'static str, connections: usize, ask: Ask, speech: Speech) -> Scenario {
    Scenario {
        speech,
        ..plain(name, connections, ask)
    }
}

impl Ask {
    /// The path of the request.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Small | Self::Browser => format!("{BASE}/small"),
            Self::Medium => format!("{BASE}/10k"),
            Self::Large => format!("{BASE}/1m"),
            Self::Upload => format!("{BASE}/up"),
            Self::File => "/static/10k.txt".to_owned(),
            Self::Page => format!("{BASE}/page"),
            Self::Api => format!("{BASE}/api"),
            Self::Script => format!("{SCRIPTS}/list.php?page=2"),
        }
    }

    /// The request as HTTP/1.1.
    pub(crate) fn request(self) -> Vec<u8> {
        let (method, body) = match self {
            Self::Upload => ("POST", vec![b'u'; UPLOAD]),
            Self::Api => ("POST", CUSTOMER.into()),
            _ => ("GET", Vec::new()),
        };
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: bench.test\r\n", self.path());
        request += match self {
            Self::Browser | Self::Page | Self::Script => BROWSER,
            Self::Api => PROGRAM,
            _ => "User-Agent: bench\r\nAccept: */*\r\n",
        };
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        [request.into_bytes(), body].concat()
    }
}

impl Speech {
    pub(crate) fn is_tls(self) -> bool {
        !matches!(self, Self::Plain | Self::Fresh)
    }

    /// Whether each request has a connection of its own.
    pub(crate) fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh | Self::TlsResumed | Self::TlsFull)
    }
}

/// What a program sends with a call to another.
const PROGRAM: &str = "User-Agent: python-requests/2.32.3\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Authorization: Bearer 0a1b2c3d4e5f60718293a4b5c6d7e8f9.0a1b2c3d4e5f60718293a4b5c6d7e8f9.0a1b2c3d4e5f6071\r\n\
    X-Request-Id: 0192f0c1-2d3e-7f40-8a5b-6c7d8e9fa0b1\r\n\
    Idempotency-Key: 6f1d4c2b\r\n\
    Content-Type: application/json\r\n";
const CUSTOMER: &str = r#"{"name":"Ada Example","mail":"ada@example.org","tags":["new","paper"],"address":{"street":"Main Street 1","city":"Example"}}"#;

/// What Chromium sends with a navigation, and the cookies a site may have set.
const BROWSER: &str = "Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://bench.test/app07/customers?page=2\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=5f0c2b7e9d1a4c3e8b6f7a2d1c0e9f8b; theme=dark; consent=necessary.statistics; _id=GA1.1.1234567890.1700000000\r\n";
