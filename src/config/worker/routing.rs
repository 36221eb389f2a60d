//! What a worker says of its route: hosts, redirects, error pages, how requests are handed on.

use super::super::document::Document;
use super::super::hosts::hosts;
use super::super::problem::Place;
use super::super::section::{Item, Section};
use super::bounds::LONGEST_PATH;
use super::stored::stored;
use crate::route::{ErrorPages, Errors, Redirect, RedirectError, RouteSettings};

/// Most redirects: they are looked through one by one for each request.
const MOST_REDIRECTS: usize = 256;
/// Most error pages: there are no more errors.
const MOST_PAGES: usize = 202;
const STATUSES: [(&str, u16); 5] = [
    ("301", 301),
    ("302", 302),
    ("303", 303),
    ("307", 307),
    ("308", 308),
];
/// Keeps the method, and says that it is for good.
const STATUS: u16 = 308;

/// What the file says of the route, and where each of its redirects stands.
pub(super) fn on_route(root: &mut Section<'_>, document: &Document) -> (RouteSettings, Vec<Place>) {
    let hosts = root.item("hosts").map(|item| hosts(&item, "hosts"));
    let (strip_prefix, underscores) = (
        root.flag("strip_prefix"),
        root.flag("underscores_in_headers"),
    );
    let (redirects, places) = redirects(root, document).into_iter().unzip();
    let settings = RouteSettings {
        hosts: hosts.unwrap_or_default(),
        strip_prefix: strip_prefix.unwrap_or_default(),
        underscores_in_headers: underscores.unwrap_or_default(),
        redirects,
        error_pages: error_pages(&root.items("error_pages")),
        files: stored(&root.items("files")),
    };
    (settings, places)
}

/// The redirects in order, and where each stands.
fn redirects(root: &mut Section<'_>, document: &Document) -> Vec<(Redirect, Place)> {
    let list = root.list("redirects", "{from: /old, to: /new}");
    let mut redirects = Vec::new();
    for (at, (node, mut section)) in list.into_iter().enumerate() {
        if at == MOST_REDIRECTS {
            let message = format!("'redirects' has more than {MOST_REDIRECTS} entries");
            let help = "give several paths one redirect with '/*', or let the worker answer them";
            document.problem(node.mark, message, help);
            break;
        }
        let (from, to) = (section.text("from"), section.text("to"));
        let status = section.choice("status", &STATUSES).unwrap_or(STATUS);
        for key in ["from", "to"] {
            if !section.has(key) {
                let message = format!("this redirect has no '{key}'");
                document.problem(node.mark, message, "write it as {from: /old, to: /new}");
            }
        }
        section.finish(|_| None);
        let (Some((from, from_item)), Some((to, to_item))) = (from, to) else {
            continue;
        };
        if let Some(item) = [(&from, &from_item), (&to, &to_item)]
            .into_iter()
            .find_map(|(text, item)| (text.len() > LONGEST_PATH).then_some(item))
        {
            let message = format!("this is longer than {LONGEST_PATH} bytes");
            item.problem(message, "choose a shorter path");
            continue;
        }
        match Redirect::new(&from, &to, status) {
            Ok(redirect) => redirects.push((redirect, document.place(node.mark))),
            Err(error) => {
                let item = match error {
                    RedirectError::From(_) => from_item,
                    RedirectError::To(_) | RedirectError::NoRest(_) => to_item,
                };
                item.problem(format!("'redirects': {error}"), error.help());
            }
        }
    }
    redirects
}

/// The files for errors.
fn error_pages(items: &[Item<'_>]) -> ErrorPages {
    let mut pages = ErrorPages::new();
    for item in items.iter().take(MOST_PAGES) {
        let Some(errors) = Errors::parse(item.key()) else {
            let help = "write one from 400 to 599, or 4xx or 5xx for all of them";
            item.key_problem("this is not the status of an error", help);
            continue;
        };
        let Some(file) = item.text(&format!("error_pages.{errors}")) else {
            continue;
        };
        let odd = |segment: &str| segment.is_empty() || segment.starts_with('.');
        if file.split('/').any(odd)
            || file.contains(|c: char| c.is_control() || "\\%".contains(c))
            || file.len() > LONGEST_PATH
        {
            let message = format!("'error_pages.{errors}' can not be {}", item.shown());
            let help = "write the path of a file inside 'public/', as in errors/404.html; no part of it begins with '.'";
            item.problem(message, help);
            continue;
        }
        pages.insert(errors, file);
    }
    pages
}
