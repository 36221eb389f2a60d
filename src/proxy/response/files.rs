//! Files in a worker's `public/`, served without asking the worker.
//!
//! A file is found and opened in one step that cannot leave the directory ([`Public::file`]), so there is no moment between the check and
//! the use. Hidden files are not served, directories not listed.

use crate::proxy::table::assets::Assets;
use crate::proxy::table::assets::Directories;
use crate::proxy::wire::file_body::FileBody;
use std::io;
use std::rc::Rc;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
};
use http::{Method, Response, StatusCode};

use super::body::Body;
use super::compression::{self, Coding, Offer};
use crate::proxy::table::file::{Content, File};
use crate::proxy::table::public::Public;
use crate::proxy::wire::conditions::{Condition, part};

/// Header fields for which an answer has room at once.
const FIELDS: usize = 10;

/// A file that is there and may be served.
#[derive(Debug)]
pub(crate) struct Found {
    /// Below the public directory.
    pub(crate) name: String,
    pub(crate) file: Rc<File>,
    /// What it is, before it is coded.
    pub(crate) content_type: HeaderValue,
    /// How its content is coded, if it is.
    pub(crate) coding: Option<Coding>,
}

/// What a path below a public directory leads to.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// A file.
    Found(Found),
    /// A directory, where a path that ends with a slash would lead to its index.
    Directory,
    /// Nothing that is served.
    Missing,
}

/// Whether a file of this name may be a PHP script, or was one: `a.php`, `a.PHTML`, `a.php~`, `a.php.bak`. What it says is nobody's to read.
fn is_script(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".php", ".pht", ".phar"]
        .iter()
        .any(|ending| name.contains(ending))
}

/// A directory's name that is served although it is hidden: what others look for there is for everybody (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Looks for `rest`, the decoded path below the route, in `public`; `written` is the whole path as the client wrote it.
pub(crate) fn find(public: &Public, rest: &str, written: &str, assets: Assets) -> Lookup {
    let index = assets.directories != Directories::Nothing;
    if rest.is_empty() && index {
        // The route itself is a directory like those below it.
        return match public.file("index.html") {
            Ok(_) => Lookup::Directory,
            Err(_) => Lookup::Missing,
        };
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let (name, directory) = match rest.strip_suffix('/') {
        Some(directory) => (directory, true),
        None => (rest, rest.is_empty()),
    };
    if directory && !index {
        return Lookup::Missing;
    }
    if (!name.is_empty() && is_hidden(name)) || name.contains('\0') {
        return Lookup::Missing;
    }
    // A slash that the client has escaped stays so in a decoded path, and no file has one in its name. A `%` that was escaped is a `%`.
    if name.contains('%') && has_escaped_slash(written) {
        return Lookup::Missing;
    }
    if assets.scripts && name.rsplit('/').next().is_some_and(is_script) {
        return Lookup::Missing;
    }
    let name = match (directory, name) {
        (true, "") => "index.html".to_owned(),
        (true, name) => format!("{name}/index.html"),
        (false, name) => name.to_owned(),
    };
    if !public.may_have(&name) {
        return Lookup::Missing;
    }
    match public.file(&name) {
        Ok(file) => Lookup::Found(Found::new(name, file)),
        Err(error)
            if error.kind() == io::ErrorKind::IsADirectory
                && assets.directories == Directories::Site =>
        {
            Lookup::Directory
        }
        Err(_) => Lookup::Missing,
    }
}

/// Whether a segment is empty, or hidden and not known to be for everybody.
fn is_hidden(name: &str) -> bool {
    name.split('/').enumerate().any(|(at, segment)| {
        segment.is_empty() || (segment.starts_with('.') && (at > 0 || segment != WELL_KNOWN))
    })
}

/// Whether one of the escapes of a path is that of a slash. Each `%` begins an escape.
fn has_escaped_slash(written: &str) -> bool {
    let escapes = written.split('%').skip(1);
    let mut digits = escapes.filter_map(|escape| escape.as_bytes().get(..2));
    digits.any(|digits| digits.eq_ignore_ascii_case(b"2f"))
}

/// The type and content of the file `name` in `public`, if it is there, may be served and has at most `most` bytes.
pub(crate) fn whole(
    public: &Public,
    name: &str,
    assets: Assets,
    most: u64,
) -> Option<(HeaderValue, Body)> {
    if assets.scripts && name.rsplit('/').next().is_some_and(is_script) {
        return None;
    }
    let file = public.file(name).ok()?;
    (file.size <= most).then(|| (file.content_type.clone(), body(&file, 0, file.size)))
}

/// `length` bytes of `file`, from the byte `at` on.
fn body(file: &File, at: u64, length: u64) -> Body {
    match &file.content {
        Content::Open(file) => Body::file(FileBody::part(file.clone(), at, length)),
        Content::Read(_) if length == 0 => Body::empty(),
        // In memory, so its length fits.
        Content::Read(bytes) => Body::full(bytes.slice(at as usize..(at + length) as usize)),
    }
}

impl Found {
    /// That file, as it lies there.
    pub(crate) fn new(name: String, file: Rc<File>) -> Self {
        Self {
            name,
            content_type: file.content_type.clone(),
            file,
            coding: None,
        }
    }

    /// The answer to a request for this file. With an `offer` the proxy may yet compress it.
    pub(crate) fn respond(
        self,
        method: &Method,
        asked: &HeaderMap,
        offer: Option<&Offer>,
    ) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.reserve(FIELDS);
        let text = |text: &str| HeaderValue::from_str(text).ok();
        // Every use asks first, so a changed file is seen at once; asking costs a 304.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(ETAG, self.file.etag.clone());
        headers.insert(LAST_MODIFIED, self.file.modified.clone());
        let size = self.file.size;
        let (status, part) = match self.file.validators.check(method, asked) {
            Condition::NotModified => (StatusCode::NOT_MODIFIED, None),
            Condition::Failed => (StatusCode::PRECONDITION_FAILED, None),
            Condition::Whole => (StatusCode::OK, Some((0, size))),
            Condition::Part(range) => match part(range, size) {
                Ok(None) => (StatusCode::OK, Some((0, size))),
                Ok(Some((at, length))) => {
                    let range = format!("bytes {at}-{}/{size}", at + length - 1);
                    headers.extend(text(&range).map(|value| (CONTENT_RANGE, value)));
                    (StatusCode::PARTIAL_CONTENT, Some((at, length)))
                }
                Err(()) => {
                    let range = format!("bytes */{size}");
                    headers.extend(text(&range).map(|value| (CONTENT_RANGE, value)));
                    (StatusCode::RANGE_NOT_SATISFIABLE, None)
                }
            },
        };
        // "Not modified", and a part, say of the file what the whole would (RFC 9110, 15.3.7 and 15.4.5).
        let stands_for_it = matches!(
            status,
            StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
        );
        let varies = |offer: &Offer| offer.would_vary(&self.content_type, size);
        if self.coding.is_some() || (stands_for_it && offer.is_some_and(varies)) {
            compression::vary(headers);
        }
        if let Some((at, length)) = part {
            headers.extend(self.coding.map(|coding| (CONTENT_ENCODING, coding.name())));
            headers.insert(CONTENT_TYPE, self.content_type);
            headers.insert(CONTENT_LENGTH, length.into());
            if method != Method::HEAD {
                *response.body_mut() = body(&self.file, at, length);
            }
        }
        *response.status_mut() = status;
        response
    }
}
