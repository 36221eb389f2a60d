//! The health report: what the route table says of the workers, for monitors and people.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::route::{Route, RouteTable, Target};

/// The report on `table`: its status, and JSON; `details`: with each worker, for those who may see their names.
pub(crate) fn health(table: &RouteTable, details: bool) -> (StatusCode, String) {
    let (status, word) = match table.routes.iter().any(is_down) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        false => (StatusCode::OK, "ok"),
    };
    let report = match details {
        true => {
            let workers: Vec<Value> = table.routes.iter().map(worker).collect();
            json!({ "status": word, "workers": workers })
        }
        false => json!({ "status": word }),
    };
    (status, report.to_string() + "\n")
}

/// Whether requests on the route are refused, though nobody means them to be. Those for a first generation wait for it.
fn is_down(route: &Route) -> bool {
    let refuses = matches!(route.target, Target::Unavailable { awaited: None, .. });
    refuses && route.halt.maintenance.is_none()
}

fn worker(route: &Route) -> Value {
    let mut worker = Map::new();
    worker.insert("name".to_owned(), json!(route.worker));
    worker.insert("route".to_owned(), json!(route.path));
    let state = match &route.target {
        _ if route.halt.maintenance.is_some() => "maintenance",
        Target::Serving(upstream) => {
            worker.insert("generation".to_owned(), json!(upstream.generation));
            "serving"
        }
        Target::Files => "files",
        Target::Unavailable {
            reason, awaited, ..
        } => {
            worker.insert("reason".to_owned(), json!(reason));
            match awaited {
                Some(_) => "starting",
                None => "unavailable",
            }
        }
    };
    worker.insert("state".to_owned(), json!(state));
    Value::Object(worker)
}
