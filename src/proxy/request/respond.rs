//! One request and its response: down through the phases of [`dispatch`](super::dispatch), and up through what is done to every response.

use std::rc::Rc;

use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body as _;

use super::client::Client;
use super::notes::Notes;
use super::{development, dispatch};
use crate::proxy::downstream::request_body::Inbound;
use crate::proxy::response::body::Body;
use crate::proxy::response::error_page::Form;
use crate::proxy::response::route_pages;
use crate::proxy::wire::headers;
use crate::proxy::wire::refusal::Refusal;

/// Responds to one request, unless it has a `flaw` that was found beneath. The request stays where it is, as in all that is called from here:
/// a future has room for what it is given and again for what it works with, and that much memory would be written for each request.
pub(crate) async fn respond(
    client: &Rc<Client>,
    request: &mut Request<Inbound>,
    flaw: Option<(StatusCode, &'static str)>,
) -> Response<Body> {
    let id = match headers::request_id(request.headers()) {
        Some(id) => id.clone(),
        None => client.shard().request_id(),
    };
    // If the response is ours.
    let form = Form::wanted(request.headers().get(ACCEPT));
    if !request.body().is_end_stream() {
        client.signals().set_unread(true);
    }
    let mut notes = Notes::default();
    let dispatched = match flaw {
        None => dispatch::dispatch(client, request, &id, &mut notes).await,
        Some((status, detail)) => Err(Refusal::new(status, detail)),
    };
    let response = match dispatched {
        Ok(response) => response,
        Err(refusal) => {
            let refusal = keep_inside(client, refusal, &notes);
            route_pages::refusal(refusal, notes.own.as_deref(), form, &id)
        }
    };
    finish(response, notes, id)
}

/// Tells what is wrong with a worker where those who run the server look: in the access log, and in development on the page.
#[cold]
fn keep_inside(client: &Client, mut refusal: Refusal, notes: &Notes) -> Refusal {
    let Some(inside) = refusal.inside.take() else {
        return refusal;
    };
    if client.shard().table().development().is_some() {
        refusal.detail = inside.to_string();
    }
    if let Some(entry) = &notes.entry {
        entry.failed(inside);
    }
    refusal
}

/// What is done to every response on its way up, as noted on the way down.
fn finish(mut response: Response<Body>, notes: Notes, id: HeaderValue) -> Response<Body> {
    if let Some(tag) = notes.tag {
        development::append(&mut response, tag);
    }
    if let Some(offer) = notes.offer {
        offer.apply(&mut response);
    }
    if let Some(entry) = notes.entry {
        entry.answered(response.status());
        response.body_mut().note(entry);
    }
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}
