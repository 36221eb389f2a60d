//! What the proxy answers of a route's files, those that were deployed and those that its worker stores.

use http::header::{CACHE_CONTROL, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode, Uri};

use crate::proxy::response::body::Body;
use crate::proxy::response::compression::Offer;
use crate::proxy::response::{files, precompressed};
use crate::proxy::table::assets::{Assets, Directories};
use crate::proxy::table::route::Route;
use crate::proxy::upstream::fastcgi::lacks_slash;
use crate::route::redirected;

/// The response without the worker, if the path names a file, or a directory without the slash at its end.
pub(super) fn respond<B>(
    route: &Route,
    path: &str,
    request: &Request<B>,
    offer: &mut Option<Offer>,
) -> Option<Response<Body>> {
    let file = file(route, path, request, offer);
    file.or_else(|| slash_of_scripts(route, path, request.uri()))
}

/// The file that the path names, of those that the worker stores or was deployed with.
fn file<B>(
    route: &Route,
    path: &str,
    request: &Request<B>,
    offer: &mut Option<Offer>,
) -> Option<Response<Body>> {
    let rest = &path[route.path.prefix().len()..];
    if !route.stored.is_empty()
        && let Some(response) = stored(route, rest, request, offer)
    {
        return Some(response);
    }
    let public = route.public.as_ref()?;
    let find = |rest: &str| files::find(public, rest, request.uri().path(), route.assets);
    let mut found = find(rest);
    if matches!(found, files::Lookup::Directory) {
        let response = to_slash(route, path, request.uri());
        if response.is_some() {
            return response;
        }
        found = find(&format!("{rest}/"));
    }
    match found {
        files::Lookup::Found(found) => {
            let found = precompressed::chosen(public, found, request.headers());
            if let Some(offer) = offer {
                offer.for_file();
            }
            Some(found.respond(request.method(), request.headers(), offer.as_ref()))
        }
        files::Lookup::Directory | files::Lookup::Missing => None,
    }
}

/// The file of the worker's state that the path leads to, if the proxy serves it.
fn stored<B>(
    route: &Route,
    rest: &str,
    request: &Request<B>,
    offer: &mut Option<Offer>,
) -> Option<Response<Body>> {
    let assets = Assets {
        directories: Directories::Nothing,
        ..route.assets
    };
    let found = route.stored.iter().find_map(|stored| {
        match files::find(
            &stored.files,
            stored.rest(rest)?,
            request.uri().path(),
            assets,
        ) {
            files::Lookup::Found(found) => Some(found),
            files::Lookup::Directory | files::Lookup::Missing => None,
        }
    })?;
    if let Some(offer) = offer {
        offer.for_file();
    }
    let mut response = found.respond(request.method(), request.headers(), offer.as_ref());
    // Whoever has uploaded it chose its name, and with it its type; a browser is not to find another.
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    Some(response)
}

/// The way to a directory of PHP scripts that has an index, for who asks for it without a slash at the end.
fn slash_of_scripts(route: &Route, path: &str, uri: &Uri) -> Option<Response<Body>> {
    let scripts = route.target.scripts()?;
    let rest = &path[route.path.prefix().len()..];
    lacks_slash(rest, scripts).then(|| to_slash(route, path, uri))?
}

/// The same address with a slash at the end of its path, unless that is redirected itself: it would be so for ever.
#[cold]
fn to_slash(route: &Route, path: &str, uri: &Uri) -> Option<Response<Body>> {
    let redirects = &route.settings.redirects;
    let (with, written) = (format!("{path}/"), format!("{}/", uri.path()));
    // Two at the beginning would be another host.
    if path.starts_with("//") || redirected(redirects, &with, &written, None).is_some() {
        return None;
    }
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{written}{query}")).ok()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // Directories come and go.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(LOCATION, location);
    Some(response)
}
