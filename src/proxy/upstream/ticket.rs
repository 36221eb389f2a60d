//! What a request holds for as long as it is in flight to a worker.

use super::balance::Place;
use super::gate::Pass;
use super::generation::{Generation, InFlight};

/// A request's hold on the worker: its place in the generation's count, in the limit and at one of the instances. All of it is given back when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    in_flight: InFlight,
    /// Its place among those that may be in the worker, where they are counted.
    pass: Option<Pass>,
    /// Where it is, if the generation has several instances.
    pub(crate) place: Option<Place>,
}

impl Ticket {
    /// The ticket of a request that was counted in.
    pub(crate) fn new(in_flight: InFlight) -> Self {
        Self {
            in_flight,
            pass: None,
            place: None,
        }
    }

    /// The request does go to this generation.
    pub(crate) fn begin(&self) {
        self.in_flight.begin();
    }

    /// Holds a place in the worker for as long.
    pub(crate) fn hold(&mut self, pass: Option<Pass>) {
        self.pass = pass;
    }

    /// The number of the generation it is in flight in.
    pub(crate) fn number(&self) -> u64 {
        self.generation().instance.generation.0
    }

    /// The generation it is in flight in.
    pub(crate) fn generation(&self) -> &Generation {
        self.in_flight.generation()
    }
}
