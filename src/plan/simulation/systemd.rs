//! Units and the processes in them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::disk::Behaviour;
use super::{Found, Happening, Moment, World};
use crate::names::{Instance, Pair};
use crate::plan::{Event, FoundPair, Spec};
use crate::route::Address;
use crate::systemd::{Activity, Ending, ServiceState};

/// A pair of units.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) spec: Spec,
    pub(super) address: Address,
    pub(super) public: Option<PathBuf>,
    pub(super) accepted: bool,
    pub(super) listening: bool,
    pub(super) service: ServiceState,
    /// How often its process died since it was last well.
    pub(super) deaths: u32,
    /// How often it has answered 503.
    pub(super) not_yet: u32,
    /// Something has happened to it.
    pub(super) harmed: bool,
    /// Its periodic health requests fail.
    pub(super) sick: bool,
    /// Somebody stops it.
    pub(super) stopping: bool,
    /// It ended by itself and nothing starts it again.
    pub(super) broken: bool,
}

impl Unit {
    pub(super) fn new(spec: Spec, address: Address) -> Self {
        Self {
            public: spec.public.clone(),
            spec,
            address,
            accepted: false,
            listening: true,
            service: ServiceState::default(),
            deaths: 0,
            not_yet: 0,
            harmed: false,
            sick: false,
            stopping: false,
            broken: false,
        }
    }

    fn has_port(&self) -> bool {
        matches!(self.address, Address::Tcp(_))
    }
}

impl World {
    /// What `ListUnitsByPatterns` would tell.
    pub(super) fn found(&self) -> Vec<Found> {
        let mut found: BTreeMap<&Instance, Found> = BTreeMap::new();
        for (pair, unit) in &self.units {
            let of_unit = FoundPair {
                address: unit.address.clone(),
                listening: match unit.address {
                    Address::Unix(_) => unit.listening,
                    Address::Tcp(_) | Address::Held { .. } => {
                        unit.service.activity != Activity::Failed
                    }
                },
                service: unit.service.clone(),
            };
            let generation = found.entry(&pair.instance).or_insert_with(|| Found {
                instance: pair.instance.clone(),
                spec: unit.spec.clone(),
                pairs: BTreeMap::new(),
                public: unit.public.clone(),
                // The first one speaks for all.
                accepted: unit.accepted,
            });
            generation.pairs.insert(pair.number, of_unit);
        }
        found.into_values().collect()
    }

    /// The pairs of a generation that are there.
    pub(super) fn pairs_of(&self, instance: &Instance) -> Vec<Pair> {
        let pairs = self.units.keys().filter(|pair| pair.instance == *instance);
        pairs.cloned().collect()
    }

    pub(super) fn behaviour(&self, unit: &Unit) -> Behaviour {
        match Behaviour::of(&unit.spec) {
            Behaviour::Waits if self.calm => Behaviour::Good,
            behaviour => behaviour,
        }
    }

    /// Somebody connects, or systemd tries again: a process starts, and may die.
    pub(super) fn wake(&mut self, pair: &Pair) {
        let Some(unit) = self.units.get(pair).cloned() else {
            return;
        };
        let can = unit.listening && !unit.stopping && !unit.broken;
        if !can
            || matches!(
                unit.service.activity,
                Activity::Active | Activity::Restarting
            )
        {
            return;
        }
        self.set(pair, Activity::Active, None);
        if self.behaviour(&unit) == Behaviour::ExitsAtOnce {
            self.die(pair, Ending::ExitCode(1));
        }
    }

    /// A process dies; systemd starts it again, but not more than three times.
    pub(super) fn die(&mut self, pair: &Pair, how: Ending) {
        self.cut_off(pair);
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        unit.deaths += 1;
        if unit.deaths < 3 {
            self.set(pair, Activity::Restarting, Some(how));
            return self.soon(200, Happening::Restart(pair.clone()));
        }
        (unit.broken, unit.listening) = (true, false);
        self.broken.insert(pair.clone());
        let has_port = unit.has_port();
        self.set(pair, Activity::Failed, Some(how));
        if !has_port {
            let event = Event::SocketFailed(pair.clone());
            self.in_order("units", 50, Happening::Hear(self.incarnation, event));
        }
    }

    pub(super) fn restart(&mut self, pair: &Pair) {
        if let Some(unit) = self.units.get_mut(pair)
            && unit.service.activity == Activity::Restarting
        {
            unit.service.activity = Activity::Inactive;
            self.wake(pair);
        }
    }

    /// Something happens to a process that runs.
    pub(super) fn break_something(&mut self) {
        let running: Vec<_> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.service.activity == Activity::Active && !unit.stopping)
            .map(|(pair, _)| pair.clone())
            .collect();
        let Some(pair) = self.random.choice(running) else {
            return;
        };
        self.disturb(Some(&pair.instance.worker));
        let Some(unit) = self.units.get_mut(&pair) else {
            return;
        };
        unit.harmed = true;
        match self.random.u8(..4) {
            0 => {
                unit.deaths = 5;
                self.trace(|| format!("BREAK {pair} hits its start limit"));
                self.die(&pair, Ending::Signal(11));
            }
            1 => {
                unit.deaths = 0;
                self.trace(|| format!("BREAK {pair} dies"));
                self.die(&pair, Ending::OomKill);
            }
            2 => {
                unit.sick = true;
                self.trace(|| format!("BREAK {pair} is sick"));
            }
            _ => {
                unit.broken = unit.has_port();
                if unit.broken {
                    self.broken.insert(pair.clone());
                }
                self.cut_off(&pair);
                self.trace(|| format!("BREAK {pair} exits with 0"));
                self.set(&pair, Activity::Inactive, None);
            }
        }
    }

    /// A stop begins: no more connections; the process gets its signal and takes a while.
    pub(super) fn begin_stop(&mut self, pair: &Pair) -> Moment {
        let Some(unit) = self.units.get_mut(pair) else {
            return self.now;
        };
        (unit.stopping, unit.listening) = (true, false);
        self.cut_off(pair);
        self.set(pair, Activity::Deactivating, None);
        let at = self.now + Duration::from_millis(self.random.u64(1..3000));
        self.at(at, Happening::Gone(pair.clone()));
        at
    }

    pub(super) fn set(&mut self, pair: &Pair, activity: Activity, failure: Option<Ending>) {
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        unit.service = ServiceState {
            activity,
            failure,
            exit_code: Some(0),
            ..ServiceState::default()
        };
        let event = Event::Unit(pair.clone(), unit.service.clone());
        self.in_order("units", 50, Happening::Hear(self.incarnation, event));
    }
}
