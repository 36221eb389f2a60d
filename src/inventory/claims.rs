//! Who has which place in the URL space, where workers want what is not theirs.

use std::collections::BTreeMap;

use super::found::{Found, Inventory, Status};
use crate::config::{Place, Problem, Settings};
use crate::names::WorkerName;
use crate::route::Claim;

/// A worker that a deployer wrote has what its directory gives it, and what server.yaml leaves to it.
pub(super) fn refuse_what_is_not_left_to_deployers(inventory: &mut Inventory, settings: &Settings) {
    let names: Vec<WorkerName> = inventory.workers.keys().cloned().collect();
    let deployed = inventory.workers.values_mut();
    for found in deployed.filter(|found| !found.is_administrators) {
        let Some(worker) = found.settings() else {
            continue;
        };
        let refused =
            settings
                .grants
                .refused(&found.name, &worker.route, &worker.on_route.hosts, &names);
        if let Some(refused) = refused {
            let place = found.places.get(refused.key).cloned();
            let place = place.unwrap_or_else(|| Place::file(&found.directory));
            let server = settings.file.display();
            let help = format!("if it is to have that, add to {server}: {}", refused.cure);
            let problem = Problem::new(place, refused.message).help(help);
            found.status = Status::Refused(problem.into());
            found.fingerprint.config.clear();
        }
    }
}

/// The places that a worker wants to have.
fn claims(found: &Found) -> Vec<Claim> {
    let settings = found.settings();
    settings.map_or_else(Vec::new, |settings| {
        Claim::all(&settings.on_route.hosts, &settings.route)
    })
}

/// Of workers that would have the same route the one that serves there keeps it, else the first by name.
pub(super) fn refuse_second_on_a_route(
    inventory: &mut Inventory,
    held: &BTreeMap<Claim, WorkerName>,
) {
    let wanted = inventory.workers.values().flat_map(|found| {
        claims(found)
            .into_iter()
            .map(|claim| (claim, found.name.clone()))
    });
    let mut taken: BTreeMap<Claim, WorkerName> = wanted
        .filter(|(claim, name)| held.get(claim) == Some(name))
        .collect();
    for found in inventory.workers.values_mut() {
        let claims = claims(found);
        let second = claims.iter().find_map(|claim| {
            let first = taken.get(claim).filter(|first| **first != found.name)?;
            Some((claim, first))
        });
        if let Some((claim, first)) = second {
            let message = format!("the route {claim} is that of the worker '{first}' already");
            let help = match claim.host {
                Some(_) => {
                    "give one of the two another 'path', or other 'hosts', in its config/worker.yaml"
                }
                None => {
                    "give one of the two another 'path', or 'hosts' of its own, in its config/worker.yaml"
                }
            };
            let problem = Problem::new(Place::file(&found.directory), message).help(help);
            found.status = Status::Refused(problem.into());
            found.fingerprint.config.clear();
        } else {
            let name = &found.name;
            taken.extend(claims.into_iter().map(|claim| (claim, name.clone())));
        }
    }
}
