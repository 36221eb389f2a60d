//! What the administrator does not allow any more of what runs: limits are lowered at once, and routes taken away.

use super::Fleet;
use crate::names::WorkerName;
use crate::plan::{Action, Forbidden, Kind, Ruling, Severity};

impl Fleet {
    pub(super) fn ruled(&mut self, mut ruling: Ruling) {
        for (instance, limits, words) in ruling.limits {
            let Some(run) = self.run(&instance) else {
                continue;
            };
            let assets = run.assets.iter_mut().chain(&mut run.next_assets);
            let specs = assets.map(|assets| &mut assets.spec).chain([&mut run.spec]);
            for spec in specs {
                spec.settings.limits = limits.clone();
            }
            let spec = run.spec.clone();
            self.actions.push(Action::Limit(instance.clone(), spec));
            let text = format!(
                "generation {} of '{}' is above workers.max: {}",
                instance.generation,
                instance.worker,
                words.join(", ")
            );
            let reloads = ruling.reloads.clone();
            self.note(&instance, Severity::Warning, Kind::Progress, reloads, text);
        }
        let names: Vec<WorkerName> = self.workers.keys().cloned().collect();
        for name in names {
            let forbidden = ruling.forbidden.remove(&name).unwrap_or_default();
            self.forbid(&name, forbidden, &ruling.reloads);
        }
    }

    fn forbid(&mut self, name: &WorkerName, forbidden: Vec<Forbidden>, reloads: &[u64]) {
        let worker = self.worker(name);
        let is_new = |one: &&Forbidden| !worker.forbidden.contains(one);
        let new = forbidden.iter().find(is_new).map(|(.., why)| why.clone());
        worker.forbidden = forbidden;
        if let Some(why) = new {
            let generation = worker.fronting().map(|(generation, _)| generation);
            let text = format!("'{name}' is taken out of the route table: {why}");
            let reloads = reloads.to_vec();
            self.say(
                name,
                generation,
                Severity::Warning,
                Kind::Progress,
                reloads,
                text,
            );
        }
    }
}
