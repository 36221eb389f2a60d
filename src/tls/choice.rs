//! Which certificate a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names they are for.
#[derive(Debug)]
pub(super) struct Choice {
    /// In lower case; a wildcard stands under what follows its asterisk, with the dot.
    names: HashMap<String, Arc<CertifiedKey>>,
    /// For who names no host, or one that no certificate is for: an answer that can be explained to a person is better than none.
    first: Option<Arc<CertifiedKey>>,
}

impl Choice {
    /// A choice among `keys`; of two for one name the earlier is shown.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let mut names = HashMap::new();
        for key in &keys {
            for name in names_of(key) {
                let name = name.strip_prefix('*').unwrap_or(&name).to_owned();
                names.entry(name).or_insert_with(|| key.clone());
            }
        }
        Self {
            names,
            first: keys.into_iter().next(),
        }
    }

    /// The certificate for `name`: its own before a wildcard, which stands for one label (RFC 9525, 6.3).
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = |name: &str| self.names.get(&name[name.find('.')?..]);
            self.names.get(&name).or_else(|| wildcard(&name))
        });
        found.or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

/// The host names that the certificate is for, in lower case.
fn names_of(key: &CertifiedKey) -> Vec<String> {
    let certificate = key.cert.first();
    let parsed = certificate.and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    let names = parsed.iter().flat_map(|parsed| parsed.valid_dns_names());
    names.map(str::to_ascii_lowercase).collect()
}
