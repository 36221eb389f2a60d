//! What the proxy answers on a worker's route as the worker's settings say: redirects, and the worker's own pages for errors.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode, Uri};

use super::body::Body;
use super::error_page::{self, Form};
use super::files;
use crate::proxy::table::route::Route;
use crate::proxy::wire::refusal::Refusal;
use crate::route::redirected;

/// Largest file that is sent with an error.
const PAGE_MAX: u64 = 1 << 20;

/// Where the request goes instead, if one of the route's redirects is for it. `path` is that of `uri`, decoded.
pub(crate) fn redirect(route: &Route, path: &str, uri: &Uri) -> Option<Response<Body>> {
    let (redirect, location) =
        redirected(&route.settings.redirects, path, uri.path(), uri.query())?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(redirect.status()).ok()?;
    let location = HeaderValue::from_str(&location).ok()?;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// The answer to a refused request: the page that the worker of `route` has for it, else ours. Programs get ours.
#[cold]
pub(crate) fn refusal(
    refusal: Refusal,
    route: Option<&Route>,
    form: Form,
    id: &HeaderValue,
) -> Response<Body> {
    let page = route.filter(|_| form == Form::Html);
    let Some((kind, body)) = page.and_then(|route| own_page(route, refusal.status)) else {
        return error_page::response(refusal, form, id);
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    error_page::mark(refusal, &mut response);
    response
}

fn own_page(route: &Route, status: StatusCode) -> Option<(HeaderValue, Body)> {
    let name = crate::route::error_page(&route.settings.error_pages, status.as_u16())?;
    files::whole(route.public.as_ref()?, name, route.assets, PAGE_MAX)
}
