//! Balancer instances of a generation: to which of them a request goes.
//!
//! Each thread knows its own requests alone. It gives the next one to the instance with the fewest of them under way, and in turn to
//! those that have equally few.

use std::cell::Cell;
use std::rc::Rc;

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::pool::Upstream;
use crate::names::{INSTANCES_MAX, WorkerName};
use crate::route::RoutePath;

// Those that were tried are bits of one number.
const _: () = assert!(INSTANCES_MAX as u32 <= u64::BITS);

/// The instances of a generation that can be reached, at least one.
#[derive(Debug)]
pub(crate) struct Balancer {
    upstreams: Box<[Rc<Upstream>]>,
    /// Where the search for the one with the fewest requests begins.
    next: Cell<u8>,
    sticky: Option<Sticky>,
}

/// A cookie by which clients stay with an instance.
#[derive(Debug)]
struct Sticky {
    name: String,
    instances: Box<[Named]>,
}

/// An instance by its cookie.
#[derive(Debug)]
struct Named {
    /// What the cookie says.
    value: String,
    /// The header field that sets it.
    field: HeaderValue,
    /// The same for who came by https: a browser never sends it back without.
    secure: HeaderValue,
}

/// A request's place at one of several instances. The request is under way there until this is dropped.
#[derive(Debug)]
pub(crate) struct Selection {
    balancer: Rc<Balancer>,
    /// Where it has been already, one bit each.
    tried: u64,
    /// Where it is.
    at: u8,
    /// The client's cookie says so.
    named: bool,
}

impl Balancer {
    /// The instances behind `upstreams`, each with its number. With `cookie`, the name of one, a client of the worker stays with the
    /// instance it was at first; `start` tells where the first request goes that may go anywhere.
    pub(crate) fn new(
        mut upstreams: Vec<(u8, Rc<Upstream>)>,
        cookie: Option<&str>,
        worker: &WorkerName,
        route: &RoutePath,
        start: usize,
    ) -> Self {
        upstreams.truncate(usize::from(INSTANCES_MAX));
        let sticky = cookie.map(|name| {
            let instances = upstreams.iter().map(|(number, _)| {
                let value = opaque(worker, *number);
                let path = cookie_path(route);
                let field = |more| {
                    let field =
                        format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax{more}");
                    // Neither a name of a cookie nor a route has a character that a field could not carry.
                    HeaderValue::from_str(&field).unwrap_or_else(|_| HeaderValue::from_static(""))
                };
                Named {
                    field: field(""),
                    secure: field("; Secure"),
                    value,
                }
            });
            Sticky {
                name: name.to_owned(),
                instances: instances.collect(),
            }
        });
        Self {
            next: Cell::new(u8::try_from(start % upstreams.len().max(1)).unwrap_or(0)),
            upstreams: upstreams
                .into_iter()
                .map(|(_, upstream)| upstream)
                .collect(),
            sticky,
        }
    }

    /// The ways to all of them.
    pub(crate) fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    /// A place for a request with these header fields.
    pub(crate) fn place(self: &Rc<Self>, headers: &HeaderMap) -> Selection {
        let named = self
            .sticky
            .as_ref()
            .and_then(|sticky| sticky.named(headers));
        let at = named.unwrap_or_else(|| self.fewest(0).unwrap_or(0));
        self.upstreams[usize::from(at)].begin();
        Selection {
            balancer: self.clone(),
            tried: 1 << at,
            at,
            named: named.is_some(),
        }
    }

    /// The instance with the fewest requests under way, without those of which the bit is set in `tried`.
    fn fewest(&self, tried: u64) -> Option<u8> {
        let start = usize::from(self.next.get());
        let numbered = (0..).zip(&self.upstreams);
        let turns = numbered.clone().skip(start).chain(numbered.take(start));
        let (found, _) = turns
            .filter(|(at, _)| tried & (1 << at) == 0)
            .min_by_key(|(_, upstream)| upstream.under_way())?;
        let is_last = usize::from(found) + 1 == self.upstreams.len();
        self.next.set(if is_last { 0 } else { found + 1 });
        Some(found)
    }
}

impl Sticky {
    /// The instance that the client's cookie names. There may be several of this name, set on other routes.
    fn named(&self, headers: &HeaderMap) -> Option<u8> {
        let fields = headers.get_all(COOKIE).iter();
        let fields = fields.filter_map(|field| field.to_str().ok());
        let mut said = fields
            .flat_map(|field| field.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name);
        let index = |said: &str| {
            (0..)
                .zip(&self.instances)
                .find(|(_, instance)| instance.value == said)
        };
        said.find_map(|(_, said)| Some(index(said)?.0))
    }
}

impl Selection {
    /// The way there.
    pub(crate) fn upstream(&self) -> &Rc<Upstream> {
        &self.balancer.upstreams[usize::from(self.at)]
    }

    /// Whether there is no other instance to try.
    pub(crate) fn is_last(&self) -> bool {
        self.tried.count_ones() as usize == self.balancer.upstreams.len()
    }

    /// Goes to another instance, as this one can not be reached; `None` when all were tried.
    pub(crate) fn move_on(&mut self) -> Option<Rc<Upstream>> {
        let next = self.balancer.fewest(self.tried)?;
        self.upstream().end();
        (self.at, self.tried, self.named) = (next, self.tried | 1 << next, false);
        self.upstream().begin();
        Some(self.upstream().clone())
    }

    /// The header field by which the client is to stay here, if it does not know yet; `secure`: it came by https.
    pub(crate) fn cookie(&self, secure: bool) -> Option<HeaderValue> {
        let sticky = self.balancer.sticky.as_ref().filter(|_| !self.named)?;
        let instance = &sticky.instances[usize::from(self.at)];
        Some(if secure {
            instance.secure.clone()
        } else {
            instance.field.clone()
        })
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        self.upstream().end();
    }
}

/// What a cookie says of instance `number`: the same in all generations, and different from what that of any other worker says.
fn opaque(worker: &WorkerName, number: u8) -> String {
    // FNV-1a: it stays the same in every version of this program. It hides nothing; it keeps cookies of one name apart.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let bytes = worker.as_str().bytes().chain([b':', number]);
    format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, hash))
}

/// The `Path` of a cookie for `route`: a `;`, which a route may have, would end it, so it ends with the segment before.
fn cookie_path(route: &RoutePath) -> &str {
    let route = route.as_str();
    let plain = match route.find(';') {
        Some(end) => &route[..route[..end].rfind('/').unwrap_or(0)],
        None => route,
    };
    if plain.is_empty() { "/" } else { plain }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::{Generation as Number, Instance};
    use crate::proxy::upstream::generation::Generation;
    use crate::route::{Address, Protocol};

    fn worker(name: &str) -> WorkerName {
        WorkerName::parse(name).unwrap()
    }

    fn balancer(numbers: &[u8], cookie: Option<&str>) -> Rc<Balancer> {
        let instance = Instance::new(worker("api"), Number(1));
        let generation = Arc::new(Generation::new(instance, 1, Arc::default()));
        let upstream = |number: &u8| {
            let address = Address::Unix(format!("/run/{number}.sock").into());
            let upstream = Upstream::new(generation.clone(), 0, address, Protocol::Http);
            (*number, Rc::new(upstream))
        };
        let upstreams = numbers.iter().map(upstream).collect();
        let route = RoutePath::parse("/api").unwrap();
        Rc::new(Balancer::new(upstreams, cookie, &worker("api"), &route, 0))
    }

    fn cookies(text: &str) -> HeaderMap {
        [(COOKIE, HeaderValue::from_str(text).unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn single_requests_go_to_each_in_turn() {
        let balancer = balancer(&[1, 2, 3], None);
        let order: Vec<_> = (0..6)
            .map(|_| balancer.place(&HeaderMap::new()).at)
            .collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_request_goes_where_the_fewest_are_under_way() {
        let balancer = balancer(&[1, 2, 3], None);
        let place = || balancer.place(&HeaderMap::new());
        let mut held: Vec<Selection> = (0..3).map(|_| place()).collect();
        held.remove(1);
        assert_eq!(place().at, 1);
        assert_eq!(place().at, 1, "it was given back");
        let _again = place();
        drop(held);
        assert_ne!(place().at, 1);
    }

    #[test]
    fn each_instance_is_tried_once() {
        let balancer = balancer(&[1, 2, 3], None);
        let mut place = balancer.place(&HeaderMap::new());
        assert!(!place.is_last());
        assert!(place.move_on().is_some() && place.move_on().is_some());
        assert!(place.is_last() && place.move_on().is_none());
        drop(place);
        let under_way = balancer.upstreams().iter().map(|one| one.under_way());
        assert_eq!(under_way.sum::<u32>(), 0);
    }

    #[test]
    fn a_client_stays_where_its_cookie_says() {
        let first = balancer(&[1, 2, 3], Some("sid"));
        let place = first.place(&HeaderMap::new());
        let cookie = place.cookie(false).unwrap();
        let cookie = cookie.to_str().unwrap();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/api; HttpOnly; SameSite=Lax");
        let secure = place.cookie(true).unwrap();
        assert_eq!(secure, format!("{cookie}; Secure"));
        let said = cookies(&format!("a=b; {pair}; sid=other"));
        for _ in 0..3 {
            let place = first.place(&said);
            assert_eq!((place.at, place.cookie(false)), (0, None));
        }
        // The first instance of the next generation is called the same, and so is one that others are missing beside.
        assert_eq!(balancer(&[1, 2], Some("sid")).place(&said).at, 0);
        let without = balancer(&[2, 3], Some("sid"));
        let moved = without.place(&said);
        assert!(moved.cookie(false).is_some(), "it names nobody here");
    }

    #[test]
    fn a_client_that_had_to_move_is_told_so() {
        let balancer = balancer(&[1, 2], Some("sid"));
        let value = opaque(&worker("api"), 1);
        let mut place = balancer.place(&cookies(&format!("sid={value}")));
        assert_eq!(place.cookie(false), None);
        place.move_on().unwrap();
        assert!(place.cookie(false).is_some());
    }

    #[test]
    fn a_cookie_is_of_one_instance_of_one_worker() {
        let (api, docs) = (worker("api"), worker("docs"));
        assert_ne!(opaque(&api, 1), opaque(&api, 2));
        assert_ne!(opaque(&api, 1), opaque(&docs, 1));
        // Also in every later version.
        assert_eq!(opaque(&api, 1), "cf714ba4d30ffd12");
    }

    #[test]
    fn no_route_ends_the_path_of_a_cookie() {
        for (route, path) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b;c/d", "/a"),
            ("/a;b", "/"),
        ] {
            assert_eq!(cookie_path(&RoutePath::parse(route).unwrap()), path);
        }
    }
}
