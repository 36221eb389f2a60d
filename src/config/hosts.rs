//! Names of hosts, as both files have them: one or a list.

use super::document::{Content, Node};
use super::section::Item;
use crate::route::HostPattern;

/// Most hosts in one list.
const MOST: usize = 256;

/// The hosts that `item`, which is called `key`, names.
pub(super) fn hosts(item: &Item<'_>, key: &str) -> Vec<HostPattern> {
    let nodes = match &item.node().content {
        Content::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(item.node()),
    };
    if nodes.is_empty() {
        let help = "write one, as in [example.org], or remove the line";
        item.problem(format!("'{key}' is an empty list"), help);
    }
    if let Some(node) = nodes.get(MOST) {
        let message = format!("'{key}' has more than {MOST} names");
        let help = "name all hosts below another with one name, as in \"*.example.org\"";
        item.part_problem(node, message, help);
    }
    let mut hosts = Vec::new();
    for node in nodes.iter().take(MOST) {
        match host(item, key, node) {
            Some(host) if hosts.contains(&host) => {
                let message = format!("'{host}' is here a second time");
                let help = "keep one; capitals and a dot at the end make no difference";
                item.part_problem(node, message, help);
            }
            host => hosts.extend(host),
        }
    }
    hosts
}

fn host(item: &Item<'_>, key: &str, node: &Node) -> Option<HostPattern> {
    let Content::Scalar(text, _) = &node.content else {
        let message = format!("'{key}' holds names of hosts, not {}", node.description());
        item.part_problem(node, message, "write one, as in \"example.org\"");
        return None;
    };
    let host = HostPattern::parse(text).map_err(|error| {
        item.part_problem(node, format!("'{key}': {error}"), error.help());
    });
    host.ok()
}
