//! The page that shows why what was saved does not serve.

use super::place;
use crate::ansi::{escape, to_html};
use crate::proxy::table::Table;
use crate::route::Target;

const STYLE: &str = "html{color-scheme:dark;background:#15171c;color:#d8dbe2;font:16px/1.5 system-ui,sans-serif}\
body{max-width:72rem;margin:0 auto;padding:3rem 2rem}\
p{margin:.25rem 0;color:#9aa1ae}h1{font-size:1.35rem;font-weight:600;color:#ff8a80;margin:0 0 .25rem;white-space:pre-wrap}\
.place{font:600 1rem ui-monospace,monospace;color:#ffd479;margin:1rem 0 0}\
pre{font:14px/1.55 ui-monospace,SFMono-Regular,Menlo,monospace;background:#0d0e12;border:1px solid #2a2e37;border-radius:8px;\
padding:1.25rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4}";

/// The page for the worker called `name`; `element` follows at its end.
pub(super) fn of(table: &Table, name: &str, element: Option<&str>) -> String {
    let mut routes = table.published.table.routes.iter();
    let route = routes.find(|route| route.worker.as_str() == name);
    let trouble = route.and_then(|route| route.work.as_ref()?.trouble.as_ref());
    let worker = escape(name);
    let content = match (route, trouble) {
        (Some(route), Some(trouble)) => {
            let log = trouble.log.join("\n");
            let reason = std::slice::from_ref(&trouble.reason);
            let place = place::find(&trouble.log).or_else(|| place::find(reason));
            let place =
                place.map(|place| format!("<p class=\"place\">{}</p>", escape(&place.to_string())));
            let serving = match route.target {
                Target::Serving(_) | Target::Files => "The generation before it still serves.",
                Target::Unavailable { .. } => "Nothing of it serves.",
            };
            let log = match log.is_empty() {
                true => String::new(),
                false => format!("<pre>{}</pre>", to_html(&log)),
            };
            format!(
                "<h1>{}</h1><p>Worker <b>{worker}</b>. {serving} This goes away by itself when it is right.</p>{}{log}",
                to_html(&trouble.reason),
                place.unwrap_or_default()
            )
        }
        _ => format!("<p>Nothing is wrong with worker <b>{worker}</b>.</p>"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{worker}: not live</title><style>{STYLE}</style></head>\n\
         <body>{content}{}</body></html>\n",
        element.unwrap_or_default()
    )
}
