//! Which certificate a client is shown.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::route::host_name;

/// Certificates by the names they are for.
#[derive(Debug)]
pub(super) struct Choice {
    /// Places in `keys`, by names in lower case; a wildcard stands under what follows its asterisk, with the dot.
    names: HashMap<String, usize>,
    /// The first is for who names no host, or one that no certificate is for: an answer that can be explained to a person is better than
    /// none.
    keys: Vec<Key>,
}

/// A certificate with its key.
#[derive(Debug)]
struct Key {
    certified: Arc<CertifiedKey>,
    /// All it is for, as in [`Choice::names`].
    names: HashSet<String>,
}

/// The certificate that a client was shown, where others might have been.
#[derive(Debug)]
pub struct Shown {
    choice: Arc<Choice>,
    key: usize,
    /// The host that the client named.
    name: Option<Box<str>>,
}

impl Choice {
    /// A choice among `keys`; of two for one name the earlier is shown.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut names = HashMap::new();
        let mut all = Vec::new();
        for certified in keys {
            let own = names_of(&certified);
            let own = own.map(|name| name.strip_prefix('*').unwrap_or(&name).to_owned());
            let own: HashSet<String> = own.collect();
            for name in &own {
                names.entry(name.clone()).or_insert(all.len());
            }
            all.push(Key {
                certified,
                names: own,
            });
        }
        Self { names, keys: all }
    }

    /// The certificate for `name`, or the first.
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let key = self.keys.get(self.place(name))?;
        Some(key.certified.clone())
    }

    fn place(&self, name: Option<&str>) -> usize {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.named(&name)
        });
        named.unwrap_or(0)
    }

    /// The certificate for `name`, which is in lower case: its own before a wildcard.
    fn named(&self, name: &str) -> Option<usize> {
        let place = self.names.get(name);
        place.or_else(|| self.names.get(below(name)?)).copied()
    }

    /// What a client was shown that named the host `name`; `None` where there is but one certificate.
    pub(super) fn shown(self: &Arc<Self>, name: Option<&str>) -> Option<Shown> {
        (self.keys.len() > 1).then(|| Shown {
            choice: self.clone(),
            key: self.place(name),
            name: name.map(Box::from),
        })
    }
}

impl Shown {
    /// Whether a request for `host`, as its Host field or its `:authority` says, may come on this connection: another certificate would
    /// not have been shown for it, or this one is for it as well. Else it was meant for a connection of its own (RFC 9110, 7.4).
    pub fn is_for(&self, host: &str) -> bool {
        if let Some(name) = &self.name
            && host.eq_ignore_ascii_case(name)
        {
            return true;
        }
        // A host that no certificate can be for.
        let Some(host) = host_name(host) else {
            return true;
        };
        let own = &self.choice.keys[self.key].names;
        match self.choice.named(&host) {
            Some(key) if key != self.key => {
                own.contains(&*host) || below(&host).is_some_and(|below| own.contains(below))
            }
            _ => true,
        }
    }
}

/// What a wildcard that covers `name` stands under: it stands for one label (RFC 9525, 6.3).
fn below(name: &str) -> Option<&str> {
    name.find('.').map(|dot| &name[dot..])
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

/// The host names that the certificate is for, in lower case.
fn names_of(key: &CertifiedKey) -> impl Iterator<Item = String> {
    let certificate = key.cert.first();
    let parsed = certificate.and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    let names = parsed.iter().flat_map(|parsed| parsed.valid_dns_names());
    let names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
    names.into_iter()
}
