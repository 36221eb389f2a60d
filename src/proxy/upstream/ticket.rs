//! What a request holds for as long as it is in flight to a worker.

use super::balance::Selection;
use super::generation::{Generation, InFlight};
use super::limiter::Permit;

/// A request's hold on the worker: its place in the generation's count, in the limit and at one of the instances. All of it is given back when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    in_flight: InFlight,
    /// Its place among those that may be in the worker, where they are counted.
    permit: Option<Permit>,
    /// Where it is, if the generation has several instances.
    pub(crate) place: Option<Selection>,
}

impl Ticket {
    /// The ticket of a request that was counted in.
    pub(crate) fn new(in_flight: InFlight) -> Self {
        Self {
            in_flight,
            permit: None,
            place: None,
        }
    }

    /// The request does go to this generation.
    pub(crate) fn begin(&self) {
        self.in_flight.begin();
    }

    /// Holds a place in the worker for as long.
    pub(crate) fn hold(&mut self, permit: Option<Permit>) {
        self.permit = permit;
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
