//! The health report: what the route table says of each worker, for monitors and people.

use serde_json::{Map, Value, json};

use crate::route::{RouteTable, Target};

/// The report on `table` as a JSON text.
pub(crate) fn health(table: &RouteTable) -> String {
    let mut degraded = false;
    let mut workers = Vec::new();
    for route in &table.routes {
        let mut worker = Map::new();
        worker.insert("name".to_owned(), json!(route.worker));
        worker.insert("route".to_owned(), json!(route.path));
        let state = match &route.target {
            Target::Serving(upstream) => {
                worker.insert("generation".to_owned(), json!(upstream.generation));
                "serving"
            }
            Target::Files => "files",
            Target::Unavailable { reason, .. } => {
                degraded = true;
                worker.insert("reason".to_owned(), json!(reason));
                "unavailable"
            }
        };
        worker.insert("state".to_owned(), json!(state));
        workers.push(Value::Object(worker));
    }
    let status = if degraded { "degraded" } else { "ok" };
    json!({ "status": status, "workers": workers }).to_string() + "\n"
}
