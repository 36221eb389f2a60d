//! Where the proxy listens, with which certificates, and whom it believes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::super::document::{Content, Node};
use super::super::section::{Item, Part, Section};
use super::super::settings::{CertificateFiles, PemFile};
use crate::route::{Front, Listen, Place, Tls};

/// Port for clients unless set.
pub(super) const PORT: u16 = 8080;

/// Most connections that can be asked for: beyond it memory is short before descriptors are.
const MOST_CONNECTIONS: u64 = 1_000_000;

/// Most places to listen at: systemd keeps 64 descriptors for the proxy (`FileDescriptorStoreMax=` in its unit), a few of them others.
const MOST_PLACES: usize = 60;

/// What a credential's name is written behind.
const CREDENTIAL: &str = "credential:";

/// Reads the keys of `server` that say how clients are met, timeouts and sizes excepted.
pub(super) fn read(
    server: &mut Section<'_>,
    front: &mut Front,
    certificates: &mut Vec<CertificateFiles>,
    project: &Path,
) {
    front.listen = plain(server);
    let is_set = |key| server.peek(key).is_some();
    let replaced = ["port", "address"].into_iter().find(|key| is_set(key));
    if let Some((item, parts)) = server.members("listen") {
        if let Some(key) = replaced {
            item.problem(
                format!("'server.listen' stands beside 'server.{key}', which says the same"),
                format!("keep 'listen', and write the {key} into its members"),
            );
        }
        front.listen = listen(&item, parts);
    }
    let mut redirect = false;
    if server.peek("tls").is_some() {
        let mut tls = server.section("tls");
        *certificates = read_certificates(&mut tls, project);
        front.tls = Some(Tls {
            pairs: Vec::new(),
            only_tls13: tls
                .choice("min_version", &[("1.2", false), ("1.3", true)])
                .unwrap_or(false),
        });
        redirect = tls.flag("redirect_http").unwrap_or(false);
        tls.finish(|_| None);
    } else {
        server.section("tls").finish(|_| None);
    }
    let secure = front.listen.iter().filter(|listen| listen.tls);
    let port = secure.clone().find_map(Listen::address).map(|a| a.port());
    if let Some(item) = server.peek("tls")
        && secure.clone().next().is_none()
    {
        item.key_problem(
            "'server.tls' is set, and nothing listens with it",
            "add 'listen:' to 'server', as in listen: [\"0.0.0.0:80\", {address: \"0.0.0.0:443\", tls: true}]",
        );
    } else if let Some(item) = server.peek("listen")
        && front.tls.is_none()
        && secure.clone().next().is_some()
    {
        item.key_problem(
            "'server.listen' asks for TLS, and there is no certificate",
            "add 'tls: {certificates: [{certificate: FILE, key: FILE}]}' to 'server'",
        );
    }
    if redirect {
        match port {
            Some(port) => {
                let plain = front.listen.iter_mut().filter(|listen| !listen.tls);
                plain.for_each(|listen| listen.redirect = Some(port));
            }
            None => {
                if let Some(item) = server.peek("tls") {
                    item.key_problem(
                        "'server.tls.redirect_http' has no port with TLS to send clients to",
                        "add a member with 'tls: true' and a port to 'server.listen'",
                    );
                }
            }
        }
    }
    front.http2_cleartext = server.flag("http2_cleartext").unwrap_or(false);
    if let Some((item, parts)) = server.members("trusted_proxies") {
        front.trusted_proxies = networks(&item, &parts);
    }
    if let (Some(item), true) = (server.peek("listen"), front.trusted_proxies.is_empty())
        && front
            .listen
            .iter()
            .any(|l| l.proxy_protocol && l.address().is_some())
    {
        item.key_problem(
            "'server.listen' has 'proxy_protocol', and no proxy is trusted to speak it",
            "add 'trusted_proxies: [ADDRESS or NETWORK]' to 'server'",
        );
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(most) = server.number("max_connections", 16..=MOST_CONNECTIONS, "") {
        front.max_connections = count(most);
    }
    let range = 0..=MOST_CONNECTIONS;
    if let Some(most) = server.number("max_connections_per_address", range, "; 0 is no limit") {
        front.max_connections_per_address = count(most);
    }
}

/// What `port` and `address` say.
fn plain(server: &mut Section<'_>) -> Vec<Listen> {
    let port = server.number("port", 0..=65535, "; 0 lets the kernel choose");
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(PORT);
    let addresses = server.item("address").map(|item| addresses(&item));
    let addresses = addresses.unwrap_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into()]);
    let listen = |ip| Listen::from(SocketAddr::new(ip, port));
    addresses.into_iter().map(listen).collect()
}

fn listen(item: &Item<'_>, parts: Vec<Part<'_>>) -> Vec<Listen> {
    let mut all: Vec<Listen> = Vec::new();
    if parts.len() > MOST_PLACES {
        item.problem(
            format!("'server.listen' has {} members", parts.len()),
            format!(
                "keep at most {MOST_PLACES}; \"[::]:443\" alone listens at all addresses of a port"
            ),
        );
    }
    for part in parts {
        let (node, found) = match part {
            Part::Plain(node) => {
                let place = place(item, node);
                let plain = |place| Listen {
                    place,
                    tls: false,
                    proxy_protocol: false,
                    trusted: false,
                    redirect: None,
                };
                (node, place.map(plain))
            }
            Part::Keys(node, mut keys) => {
                let path = keys.path_of("address");
                let address = keys.item("address");
                if address.is_none() {
                    item.part_problem(
                        node,
                        format!("'{path}' is missing"),
                        "write where to listen, as in {address: \"0.0.0.0:443\", tls: true}",
                    );
                }
                let place = address.and_then(|address| place(&address, address.node()));
                let (tls, proxy) = (keys.flag("tls"), keys.flag("proxy_protocol"));
                let trusted = keys.flag("trusted").unwrap_or(false);
                let proxy = proxy.unwrap_or(false);
                match &place {
                    Some(Place::Tcp(_)) if trusted => item.part_problem(
                        node,
                        format!("'{}' is for unix sockets", keys.path_of("trusted")),
                        "remove it, and name the addresses that are trusted in 'server.trusted_proxies'",
                    ),
                    Some(Place::Unix(_)) if proxy && !trusted => item.part_problem(
                        node,
                        format!(
                            "'{}' on a unix socket that is not trusted would refuse every client",
                            keys.path_of("proxy_protocol")
                        ),
                        "add 'trusted: true' if every member of the socket's group is a proxy you trust",
                    ),
                    _ => {}
                }
                keys.finish(|_| None);
                let made = place.map(|place| Listen {
                    place,
                    tls: tls.unwrap_or(false),
                    proxy_protocol: proxy,
                    trusted,
                    redirect: None,
                });
                (node, made)
            }
        };
        let Some(found) = found else {
            continue;
        };
        let again = all.iter().any(|other| other.place == found.place);
        let free = found.address().is_some_and(|address| address.port() == 0);
        if again && !free {
            let message = format!("'{}' is here a second time", found.place);
            item.part_problem(node, message, "keep one");
        } else {
            all.push(found);
        }
    }
    all
}

/// Where a member listens.
fn place(item: &Item<'_>, node: &Node) -> Option<Place> {
    let text: Option<String> = node.typed();
    let text = text.unwrap_or_default();
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        // What the kernel takes for a name (unix(7)), with its end.
        let fits = path.as_os_str().len() < 108 && !text.chars().any(char::is_control);
        if path.is_absolute() && fits {
            return Some(Place::Unix(path));
        }
        item.part_problem(
            node,
            format!("{} is no socket to listen on", described(node)),
            "write an absolute path of at most 107 bytes, as in \"unix:/run/tqserver-proxy/web.sock\"",
        );
        return None;
    }
    let address = text.parse::<SocketAddr>().ok();
    if address.is_none() {
        let help = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("add the port, as in \"{ip}:80\""),
            Ok(IpAddr::V6(ip)) => format!("add the port, as in \"[{ip}]:80\""),
            Err(_) => "write an IP address and a port, as in \"0.0.0.0:80\" or \"[::]:80\", or \"unix:PATH\"".to_owned(),
        };
        let message = format!("{} is no address to listen at", described(node));
        item.part_problem(node, message, help);
    }
    address.map(Place::Tcp)
}

fn read_certificates(tls: &mut Section<'_>, project: &Path) -> Vec<CertificateFiles> {
    let example = "write certificates: [{certificate: FILE, key: FILE}]";
    let Some((item, parts)) = tls.members("certificates") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for part in parts {
        let mut keys = match part {
            Part::Keys(_, keys) => keys,
            Part::Plain(node) => {
                let message = format!("{} is no certificate with its key", described(node));
                item.part_problem(node, message, example);
                continue;
            }
        };
        let place = keys.place("certificate");
        let certificate = pem_file(&mut keys, "certificate", project);
        let key = pem_file(&mut keys, "key", project);
        for (name, found) in [("certificate", &certificate), ("key", &key)] {
            if found.is_none() && keys.peek(name).is_none() {
                item.problem(format!("'{}' is missing", keys.path_of(name)), example);
            }
        }
        keys.finish(|_| None);
        if let (Some(certificate), Some(key), Some(place)) = (certificate, key, place) {
            all.push(CertificateFiles {
                certificate,
                key,
                place,
            });
        }
    }
    all
}

fn pem_file(keys: &mut Section<'_>, key: &'static str, project: &Path) -> Option<PemFile> {
    let path = keys.path_of(key);
    let (text, item) = keys.text(key)?;
    if let Some(name) = text.strip_prefix(CREDENTIAL) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.chars().all(plain) && !matches!(name, "" | "." | "..") {
            return Some(PemFile::Credential(name.to_owned()));
        }
        item.problem(
            format!("'{path}': '{name}' is no name of a credential"),
            "write letters, digits, '-', '_' and '.', as in \"credential:example.org.key\"",
        );
        return None;
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        item.problem(
            format!("'{path}' must name a file"),
            "write a path, or credential:NAME",
        );
        return None;
    }
    Some(PemFile::File(project.join(text)))
}

fn networks(item: &Item<'_>, parts: &[Part<'_>]) -> Vec<IpNet> {
    let mut all = Vec::new();
    for part in parts {
        let (Part::Plain(node) | Part::Keys(node, _)) = part;
        let text: Option<String> = node.typed();
        let text = text.unwrap_or_default();
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
        match network {
            Some(network) => all.push(network.trunc()),
            None => item.part_problem(
                node,
                format!(
                    "'server.trusted_proxies': {} is no address or network",
                    described(node)
                ),
                "write one as in \"10.0.0.7\" or \"10.0.0.0/8\"",
            ),
        }
    }
    all
}

fn addresses(item: &Item<'_>) -> Vec<IpAddr> {
    let parse = |node: &Node| -> Option<IpAddr> {
        let text: Option<String> = node.typed();
        let text = text.as_deref().unwrap_or_default();
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let address = bare.parse().ok();
        if address.is_none() {
            item.part_problem(
                node,
                format!("'server.address': {} is not an IP address", described(node)),
                "write one without a port, as in \"127.0.0.1\" or \"::\", or a list of them",
            );
        }
        address
    };
    let Content::List(nodes) = &item.node().content else {
        return parse(item.node()).into_iter().collect();
    };
    let mut addresses = Vec::new();
    for node in nodes {
        match parse(node) {
            Some(address) if addresses.contains(&address) => {
                item.part_problem(
                    node,
                    format!("'{address}' is here a second time"),
                    "keep one",
                );
            }
            Some(address) => addresses.push(address),
            None => {}
        }
    }
    if nodes.is_empty() {
        item.problem(
            "'server.address' is an empty list",
            "write at least one address",
        );
    }
    addresses
}

fn described(node: &Node) -> String {
    match &node.content {
        Content::Scalar(text, _) => format!("'{}'", text.chars().take(60).collect::<String>()),
        _ => node.description().to_owned(),
    }
}
