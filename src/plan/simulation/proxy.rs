//! The proxy: the table it has applied, requests in flight, what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::disk::Behaviour;
use super::{Happening, Moment, World};
use crate::names::{Instance, Pair};
use crate::plan::Event;
use crate::route::{RouteTable, Target};
use crate::systemd::Activity;
use crate::wire::ProbeOutcome;

/// The data plane.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    /// The link that is up, by number.
    pub(super) link: Option<u64>,
    links: u64,
    pub(super) table: Option<RouteTable>,
    /// All that were ever in a table that was in force.
    pub(super) shown: BTreeSet<Instance>,
    undrained: Vec<Instance>,
    /// By the request's number, and where it is.
    pub(super) in_flight: BTreeMap<Instance, BTreeMap<u64, Pair>>,
    requests: u64,
    /// Since when a generation gets no new requests.
    pub(super) left: BTreeMap<Instance, Moment>,
}

impl Proxy {
    /// The generations that get requests.
    pub(super) fn serving(&self) -> Vec<Instance> {
        let routes = self.table.iter().flat_map(|table| &table.routes);
        let serving = routes.filter_map(|route| match &route.target {
            Target::Serving(upstream) => {
                Some(Instance::new(route.worker.clone(), upstream.generation))
            }
            _ => None,
        });
        serving.collect()
    }

    /// Where their requests go.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let routes = self.table.iter().flat_map(|table| &table.routes);
        let serving = routes.flat_map(|route| match &route.target {
            Target::Serving(upstream) => {
                let instance = Instance::new(route.worker.clone(), upstream.generation);
                let numbers: Vec<u8> = match upstream.instances.is_empty() {
                    true => vec![1],
                    false => upstream.instances.keys().copied().collect(),
                };
                numbers
                    .iter()
                    .map(|number| instance.pair(*number))
                    .collect()
            }
            _ => Vec::new(),
        });
        serving.collect()
    }
}

impl World {
    pub(super) fn connect(&mut self) {
        if self.proxy.link.is_some() {
            return;
        }
        self.proxy.links += 1;
        self.proxy.link = Some(self.proxy.links);
        self.trace(|| "LINK up".to_owned());
        self.tell(Event::Linked);
    }

    /// The link breaks; the manager learns of it at once, or has died itself.
    pub(super) fn unlink(&mut self) {
        if self.proxy.link.take().is_some() {
            self.trace(|| "LINK down".to_owned());
            self.disturb(None);
            self.tell(Event::Unlinked);
        }
        self.reconnect_later();
    }

    pub(super) fn reconnect_later(&mut self) {
        let within = if self.chance(4) { 45_000 } else { 1000 };
        self.soon(within, Happening::Connect);
    }

    pub(super) fn restart_proxy(&mut self) {
        self.trace(|| "PROXY restarts".to_owned());
        self.unlink();
        self.forget_proxy();
    }

    /// Another proxy, which knows nothing yet.
    pub(super) fn forget_proxy(&mut self) {
        self.proxy = Proxy {
            links: self.proxy.links,
            shown: std::mem::take(&mut self.proxy.shown),
            ..Proxy::default()
        };
    }

    pub(super) fn say(&mut self, within_ms: u64, event: Event) {
        if let Some(link) = self.proxy.link {
            self.in_order("from proxy", within_ms, Happening::Said(link, event));
        }
    }

    /// Serves by a new table.
    pub(super) fn apply(&mut self, table: RouteTable) {
        let before = self.proxy.serving();
        let serial = table.serial;
        self.proxy.undrained.clone_from(&table.draining);
        self.proxy.table = Some(table);
        let serving = self.proxy.serving();
        self.proxy.shown.extend(serving.iter().cloned());
        for instance in before
            .into_iter()
            .filter(|before| !serving.contains(before))
        {
            self.proxy.left.insert(instance, self.now);
        }
        self.trace(|| format!("PROXY applied {serial}: {serving:?}"));
        self.say(200, Event::Applied(serial));
        self.tell_drained();
    }

    fn tell_drained(&mut self) {
        let in_flight = &self.proxy.in_flight;
        let busy = |instance: &Instance| in_flight.get(instance).is_some_and(|all| !all.is_empty());
        let (still, drained) = std::mem::take(&mut self.proxy.undrained)
            .into_iter()
            .partition(busy);
        self.proxy.undrained = still;
        let drained: Vec<Instance> = drained;
        for instance in drained {
            self.say(200, Event::Drained(instance));
        }
    }

    /// Each instance in the table gets a request; none may find it gone.
    pub(super) fn requests(&mut self) {
        for pair in self.proxy.pairs() {
            self.check_reachable(&pair);
            self.wake(&pair);
            let runs = |unit: &super::Unit| unit.service.activity == Activity::Active;
            if self.units.get(&pair).is_some_and(runs) {
                self.proxy.requests += 1;
                let request = self.proxy.requests;
                let in_flight = self.proxy.in_flight.entry(pair.instance.clone());
                in_flight.or_default().insert(request, pair.clone());
                let takes = if self.chance(20) { 15_000 } else { 300 };
                self.soon(takes, Happening::Answered(pair, request));
            }
        }
        let pause = if self.quiet { 5000 } else { 700 };
        self.soon(pause, Happening::Requests);
    }

    pub(super) fn answered(&mut self, pair: &Pair, request: u64) {
        if let Some(in_flight) = self.proxy.in_flight.get_mut(&pair.instance) {
            in_flight.remove(&request);
            self.tell_drained();
        }
    }

    /// Its process is gone, and with it all it had not answered.
    pub(super) fn cut_off(&mut self, pair: &Pair) {
        if let Some(in_flight) = self.proxy.in_flight.get_mut(&pair.instance) {
            in_flight.retain(|_, at| at != pair);
        }
        self.tell_drained();
    }

    pub(super) fn spend_something(&mut self) {
        if let Some(instance) = self.random.choice(self.proxy.serving()) {
            self.trace(|| format!("SPENT {instance}"));
            self.disturb(Some(&instance.worker));
            self.say(100, Event::Spent(instance));
        }
    }

    pub(super) fn probe(&mut self, id: u64, pair: &Pair, timeout: Duration) {
        self.wake(pair);
        let broken = ProbeOutcome::Broken("refused".to_owned());
        let Some(unit) = self.units.get(pair).cloned() else {
            return self.say(20, Event::Probed(id, broken));
        };
        let outcome = match self.behaviour(&unit) {
            _ if !unit.listening || unit.service.activity != Activity::Active => broken,
            _ if unit.accepted && unit.sick => ProbeOutcome::Status(500),
            Behaviour::NeverReady | Behaviour::Waits => {
                let Some(link) = self.proxy.link else { return };
                let event = Event::Probed(id, ProbeOutcome::TimedOut);
                return self.at(self.now + timeout, Happening::Said(link, event));
            }
            Behaviour::Answers500 => ProbeOutcome::Status(500),
            Behaviour::Slow if unit.not_yet < 3 => {
                if let Some(unit) = self.units.get_mut(pair) {
                    unit.not_yet += 1;
                }
                ProbeOutcome::Status(503)
            }
            _ => ProbeOutcome::Status(200),
        };
        self.say(50, Event::Probed(id, outcome));
    }
}
