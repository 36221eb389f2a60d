//! What is ambiguous in a message is refused: two readers of the same bytes must not see two different requests.
//!
//! hyper forgives what others do not, and forgets it: a line that ends with a bare LF, a length beside a transfer coding, a length that
//! is said twice, a fragment in a target. So the bytes are looked at beneath it, as they come from the client's socket. The scanner reads
//! no more of a message than where it ends, and knows fewer forms of that than hyper does: of what it lets pass, both think the same. It never
//! answers; it says which request of the connection is flawed, and whoever answers that one refuses it and hangs up. (RFC 9112, 2.2, 5, 6
//! and 7.)

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::framing::{number, size, trim};

/// As much of a line is kept when its end comes with a later read. No line that frames a message needs more.
const LINE_MAX: usize = 256;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flaw {
    /// A line that ends with LF alone.
    BareLf = 1,
    /// A line that begins with white space: a field's continuation, for some (obs-fold).
    Fold,
    /// `#` in the target.
    Fragment,
    /// `Content-Length` and `Transfer-Encoding`.
    TwoFramings,
    /// More than one `Content-Length`, or more than one `Transfer-Encoding`.
    Twice,
    /// A length that is not a number, or beyond all bounds.
    Length,
    /// A transfer coding other than `chunked`.
    Coding,
    /// `Content_Length` or `Transfer_Encoding`, the same for programs that read fields as environment variables.
    Underscore,
    /// An expectation other than `100-continue`.
    Expectation,
    /// Bytes after a request to change the protocol, before that was answered: the old protocol, or the new one?
    Early,
}

/// Where the flaw of a connection is kept for the one that answers.
#[derive(Debug, Default)]
pub(crate) struct Mark(AtomicU64);

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    state: State,
    /// Requests whose head has begun.
    requests: u64,
    head: Head,
    /// The begin of a line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes of that line in all.
    length: usize,
    /// The last of them is a CR.
    cr: bool,
    /// A `#` is among them.
    hash: bool,
}

/// What the next bytes are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request's first line, or empty lines before it.
    #[default]
    Request,
    /// A field, or the empty line after the last one.
    Field,
    /// The rest of a body with a length, in bytes.
    Body(u64),
    /// A chunk's size.
    Size,
    /// The rest of a chunk with its CRLF, in bytes.
    Chunk(u64),
    /// A field after the last chunk, or the empty line that ends the body.
    Trailer,
    /// Nothing, until the request to change the protocol is answered.
    Silence,
    /// Whatever it is, it is not for us to say: the request they belong to is refused.
    Anything,
    /// Nothing more may pass: a body whose end is anybody's guess.
    Nothing,
}

/// What a head has said of framing so far.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    expect: bool,
}

/// What is to be done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They pass.
    Pass,
    /// They pass, and the request with this number, counted from one, is refused.
    Refuse(u64, Flaw),
    /// So many of them pass, and then the body breaks off.
    Break(usize),
}

impl Flaw {
    const ALL: [Self; 10] = [
        Self::BareLf,
        Self::Fold,
        Self::Fragment,
        Self::TwoFramings,
        Self::Twice,
        Self::Length,
        Self::Coding,
        Self::Underscore,
        Self::Expectation,
        Self::Early,
    ];

    /// The status of the refusal, and a sentence for people.
    pub(crate) fn refusal(self) -> (StatusCode, &'static str) {
        let sentence = match self {
            Self::BareLf => "a line of the request's head ends with LF and not with CRLF",
            Self::Fold => "a line of the request's head begins with white space",
            Self::Fragment => "the request's target has a fragment",
            Self::TwoFramings => "the request has Content-Length and Transfer-Encoding",
            Self::Twice => "the request says more than once how long it is",
            Self::Length => "the request's Content-Length is not a number of bytes",
            Self::Coding => "the request's Transfer-Encoding is not 'chunked'",
            Self::Underscore => "the request has a field that only looks like one about its length",
            Self::Expectation => {
                let sentence = "the only expectation that can be met is '100-continue'";
                return (StatusCode::EXPECTATION_FAILED, sentence);
            }
            Self::Early => "the request came before the answer to a change of protocol",
        };
        (StatusCode::BAD_REQUEST, sentence)
    }
}

impl Mark {
    /// Notes the flaw of a request. There is one a connection, since that ends with it.
    pub(crate) fn set(&self, request: u64, flaw: Flaw) {
        self.0
            .store((request << 8) | u64::from(flaw as u8), Ordering::Relaxed);
    }

    /// What is wrong with the request of this number.
    pub(crate) fn of(&self, request: u64) -> Option<Flaw> {
        let mark = self.0.load(Ordering::Relaxed);
        if mark >> 8 != request {
            return None;
        }
        Flaw::ALL
            .into_iter()
            .find(|flaw| u64::from(*flaw as u8) == mark & 0xff)
    }
}

impl Scanner {
    /// Whether nothing more may pass.
    pub(crate) fn is_broken(&self) -> bool {
        self.state == State::Nothing
    }

    /// Whether the next byte begins another request.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Request | State::Silence) && self.length == 0
    }

    /// How many requests there were, if the next byte begins another.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn between(&self) -> Option<u64> {
        self.is_between().then_some(self.requests)
    }

    /// Looks at what was read. `answered` says that all requests before these bytes are.
    pub(crate) fn take(&mut self, bytes: &[u8], answered: bool) -> Verdict {
        let mut rest = bytes;
        while !rest.is_empty() {
            match &mut self.state {
                State::Anything => return Verdict::Pass,
                State::Nothing => return Verdict::Break(bytes.len() - rest.len()),
                // A request that came with these very bytes can not have been answered.
                State::Silence if answered && rest.len() == bytes.len() => {
                    self.state = State::Request;
                }
                State::Silence => {
                    self.requests += 1;
                    return self.refuse(Flaw::Early);
                }
                State::Body(left) | State::Chunk(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |n| n.min(rest.len()));
                    *left -= taken as u64;
                    rest = &rest[taken..];
                    if *left == 0 {
                        match self.state {
                            State::Body(_) => self.end(),
                            _ => self.state = State::Size,
                        }
                    }
                }
                State::Request | State::Field | State::Size | State::Trailer => {
                    let at = memchr::memchr(b'\n', rest);
                    let (piece, after) = match at {
                        Some(at) => rest.split_at(at + 1),
                        None => (rest, &[][..]),
                    };
                    let before = bytes.len() - rest.len();
                    rest = after;
                    let outcome = match at {
                        Some(_) if self.length == 0 => self.whole(piece),
                        Some(_) => self.last_piece(piece),
                        None => {
                            self.piece(piece);
                            Ok(())
                        }
                    };
                    match outcome {
                        Ok(()) => {}
                        Err(Some(flaw)) => return self.refuse(flaw),
                        Err(None) => {
                            self.state = State::Nothing;
                            return Verdict::Break(before);
                        }
                    }
                }
            }
        }
        Verdict::Pass
    }

    fn refuse(&mut self, flaw: Flaw) -> Verdict {
        self.state = State::Anything;
        Verdict::Refuse(self.requests, flaw)
    }

    /// A request has ended.
    fn end(&mut self) {
        self.state = match self.head.upgrade {
            true => State::Silence,
            false => State::Request,
        };
    }

    /// Takes a line with its LF.
    fn whole(&mut self, line: &[u8]) -> Result<(), Option<Flaw>> {
        match line {
            [text @ .., b'\r', _] => self.line(text, true, false),
            _ => self.line(&line[..line.len() - 1], false, false),
        }
    }

    /// Takes a piece of a line whose end is yet to come.
    fn piece(&mut self, piece: &[u8]) {
        let room = (LINE_MAX - self.line.len()).min(piece.len());
        self.line.extend_from_slice(&piece[..room]);
        self.length += piece.len();
        self.cr = piece.ends_with(b"\r");
        self.hash |= self.state == State::Request && memchr::memchr(b'#', piece).is_some();
    }

    /// Takes the last piece of a line, with its LF.
    fn last_piece(&mut self, piece: &[u8]) -> Result<(), Option<Flaw>> {
        let text = &piece[..piece.len() - 1];
        if !text.is_empty() {
            self.piece(text);
        }
        let crlf = self.cr;
        let length = self.length - usize::from(crlf);
        let mut line = std::mem::take(&mut self.line);
        line.truncate(length);
        let outcome = self.line(&line, crlf, length > line.len());
        line.clear();
        (self.line, self.length, self.cr, self.hash) = (line, 0, false, false);
        outcome
    }

    /// Takes a line without its end, or the begin of one that is `cut`. The error is a flaw of a head, or of a body when there is none.
    fn line(&mut self, text: &[u8], crlf: bool, cut: bool) -> Result<(), Option<Flaw>> {
        // The same whether it came in pieces or not.
        let cut = cut || text.len() > LINE_MAX;
        match self.state {
            State::Request if text.is_empty() && crlf => Ok(()),
            State::Request => {
                self.requests += 1;
                self.head = Head::default();
                self.state = State::Field;
                if !crlf {
                    Err(Some(Flaw::BareLf))
                } else if self.hash || memchr::memchr(b'#', text).is_some() {
                    Err(Some(Flaw::Fragment))
                } else {
                    Ok(())
                }
            }
            State::Field if !crlf => Err(Some(Flaw::BareLf)),
            State::Field if text.is_empty() => {
                match self.head {
                    Head { chunked: true, .. } => self.state = State::Size,
                    Head {
                        length: None | Some(0),
                        ..
                    } => self.end(),
                    Head {
                        length: Some(length),
                        ..
                    } => self.state = State::Body(length),
                }
                Ok(())
            }
            State::Field => self.head.field(text, cut).map_err(Some),
            // What follows is about a body, which is not ours to explain.
            _ if !crlf => Err(None),
            State::Size if cut => Err(None),
            State::Size => {
                match size(text).ok_or(None)? {
                    0 => self.state = State::Trailer,
                    size => self.state = State::Chunk(size + 2),
                }
                Ok(())
            }
            _ if text.is_empty() => {
                self.end();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Head {
    /// Takes a field, or the begin of one that is `cut`.
    fn field(&mut self, line: &[u8], cut: bool) -> Result<(), Flaw> {
        // Hardly any field goes beyond this.
        match line[0] {
            b'c' | b'C' | b't' | b'T' | b'u' | b'U' | b'e' | b'E' => {}
            b' ' | b'\t' => return Err(Flaw::Fold),
            _ => return Ok(()),
        }
        let field = |name: &[u8]| named(line, name);
        if let Some((value, exact)) = field(b"content-length") {
            let length = number(value).filter(|_| !cut).ok_or(Flaw::Length)?;
            match self {
                _ if !exact => return Err(Flaw::Underscore),
                Self { chunked: true, .. } => return Err(Flaw::TwoFramings),
                Self {
                    length: Some(_), ..
                } => return Err(Flaw::Twice),
                _ => self.length = Some(length),
            }
        } else if let Some((value, exact)) = field(b"transfer-encoding") {
            match self {
                _ if !exact => return Err(Flaw::Underscore),
                Self {
                    length: Some(_), ..
                } => return Err(Flaw::TwoFramings),
                Self { chunked: true, .. } => return Err(Flaw::Twice),
                _ if cut || !value.eq_ignore_ascii_case(b"chunked") => return Err(Flaw::Coding),
                _ => self.chunked = true,
            }
        } else if let Some((value, _)) = field(b"expect") {
            if self.expect || cut || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Flaw::Expectation);
            }
            self.expect = true;
        } else if field(b"upgrade").is_some() {
            self.upgrade = true;
        }
        Ok(())
    }
}

/// The value of the field on `line`, if it is called `name`, and whether that is written with dashes.
fn named<'a>(line: &'a [u8], name: &[u8]) -> Option<(&'a [u8], bool)> {
    if line.get(name.len()) != Some(&b':') {
        return None;
    }
    let written = &line[..name.len()];
    let same = |(&a, &b): (&u8, &u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    written
        .iter()
        .zip(name)
        .all(same)
        .then(|| (trim(&line[name.len() + 1..]), !written.contains(&b'_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scanner says of `bytes`, whole and in pieces of every size.
    fn scan(bytes: &str) -> Verdict {
        let whole = Scanner::default().take(bytes.as_bytes(), false);
        for step in 1..bytes.len() {
            let mut scanner = Scanner::default();
            let mut passed = 0;
            let mut verdict = Verdict::Pass;
            for piece in bytes.as_bytes().chunks(step) {
                match scanner.take(piece, false) {
                    Verdict::Pass => passed += piece.len(),
                    Verdict::Break(at) => {
                        verdict = Verdict::Break(passed + at);
                        break;
                    }
                    refused => {
                        verdict = refused;
                        break;
                    }
                }
            }
            match (whole, verdict) {
                // The begin of a line may have passed before its end is seen.
                (Verdict::Break(whole), Verdict::Break(pieces)) => assert!(whole <= pieces),
                _ => assert_eq!(whole, verdict, "{bytes:?} in steps of {step}"),
            }
        }
        whole
    }

    fn head(fields: &str) -> Verdict {
        scan(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
    }

    #[test]
    fn plain_requests_pass_one_after_the_other() {
        assert_eq!(
            scan(
                "\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n\
                 POST / HTTP/1.1\r\nContent-Length:\t 3 \r\n\r\n\n\n\n\
                 POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\n\n\n\r\n00\r\nx: y\r\n\r\n\
                 GET / HTTP/1.1\r\nupgrade: x\r\n\r\n"
            ),
            Verdict::Pass
        );
    }

    #[test]
    fn what_frames_a_message_in_two_ways_is_found() {
        for (fields, flaw) in [
            (
                "content-length: 1\r\ntransfer-encoding: chunked\r\n",
                Flaw::TwoFramings,
            ),
            (
                "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
                Flaw::TwoFramings,
            ),
            ("content-length: 1\r\ncontent-length: 1\r\n", Flaw::Twice),
            (
                "transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Flaw::Twice,
            ),
            ("content-length: 1, 1\r\n", Flaw::Length),
            ("content-length: +1\r\n", Flaw::Length),
            ("content-length:\r\n", Flaw::Length),
            ("content-length: \u{b}1\r\n", Flaw::Length),
            ("content-length: 99999999999999999999\r\n", Flaw::Length),
            ("transfer-encoding: gzip, chunked\r\n", Flaw::Coding),
            ("transfer-encoding: \u{b}chunked\r\n", Flaw::Coding),
            ("content_length: 1\r\n", Flaw::Underscore),
            ("transfer_encoding: chunked\r\n", Flaw::Underscore),
            ("x: 1\n", Flaw::BareLf),
            ("x: 1\r\n y: 2\r\n", Flaw::Fold),
            ("\tx: 1\r\n", Flaw::Fold),
            (
                "expect: 100-continue\r\nexpect: 100-continue\r\n",
                Flaw::Expectation,
            ),
            ("expect: y 100-continue\r\n", Flaw::Expectation),
        ] {
            assert_eq!(head(fields), Verdict::Refuse(1, flaw), "{fields:?}");
        }
    }

    #[test]
    fn the_request_that_is_flawed_is_named() {
        let good = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(
            scan(&format!("{good}{good}GET / HTTP/1.1\n")),
            Verdict::Refuse(3, Flaw::BareLf)
        );
        assert_eq!(
            scan(&format!("{good}\n{good}")),
            Verdict::Refuse(2, Flaw::BareLf)
        );
        let long = format!("GET /{}#{} HTTP/1.1\r\n", "x".repeat(300), "x".repeat(300));
        assert_eq!(scan(&long), Verdict::Refuse(1, Flaw::Fragment));
    }

    #[test]
    fn a_body_whose_end_is_anybodys_guess_breaks_off_before_it() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (begin, guess) in [
            ("", "0x3\r\nabc\r\n0\r\n\r\n"),
            ("", "3\nabc\r\n"),
            ("", " 3\r\nabc\r\n"),
            ("", "3 \r\nabc\r\n"),
            ("", "\r\n"),
            ("", ";a\r\n"),
            ("", "3;\rx\r\nabc\r\n"),
            ("", "10000000000000000\r\n"),
            ("3\r\nabc\r\n", "-1\r\n"),
            ("0\r\n", "\nGET / HTTP/1.1\r\n\r\n"),
            ("0\r\n", "x: y\n\r\n"),
        ] {
            let verdict = scan(&format!("{head}{begin}{guess}"));
            assert_eq!(
                verdict,
                Verdict::Break(head.len() + begin.len()),
                "{guess:?}"
            );
        }
    }

    #[test]
    fn what_follows_a_change_of_protocol_is_a_request_only_after_its_answer() {
        let ask = b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n";
        let mut scanner = Scanner::default();
        assert_eq!(scanner.take(ask, false), Verdict::Pass);
        assert_eq!(scanner.take(ask, true), Verdict::Pass);
        assert_eq!(scanner.take(ask, false), Verdict::Refuse(3, Flaw::Early));
        assert_eq!(scanner.take(b"\n\n\0", false), Verdict::Pass);
    }

    #[test]
    fn a_mark_is_about_one_request() {
        let mark = Mark::default();
        assert_eq!(mark.of(1), None);
        for flaw in Flaw::ALL {
            mark.set(300, flaw);
            assert_eq!((mark.of(299), mark.of(300)), (None, Some(flaw)));
        }
    }
}
