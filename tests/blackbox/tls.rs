//! Certificates in server.yaml: read by the manager, checked, taken over by a reload.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, StreamOwned};

use crate::house::worker::says;
use crate::house::{House, until};

const NAME: &str = "site.example";

const SERVER: &str = "server:
  listen: [\"127.0.0.1:0\", {address: \"127.0.0.1:0\", tls: true}]
  tls:
    certificates: [{certificate: tls/site.crt, key: tls/site.key}]
workers: {shutdown_grace_period_ms: 5000}
";

/// A certificate of the site, put where server.yaml names it.
fn put_certificate(house: &House) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let directory = house.path().join("tls");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("site.crt"), made.cert.pem()).unwrap();
    fs::write(directory.join("site.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn trusting(roots: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A request on a connection of its own; returns the answer.
fn get(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let client = ClientConnection::new(config.clone(), ServerName::try_from(NAME).unwrap())
        .map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(client, stream);
    write!(
        stream,
        "GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn secure_address(house: &House) -> SocketAddr {
    let line = house.server().said("listens on https://").unwrap();
    let rest = line.split("https://").nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

fn open() -> (House, CertificateDer<'static>) {
    let house = House::new()
        .worker("index", says("one"))
        .server_yaml(SERVER);
    let certificate = put_certificate(&house);
    (house.open(), certificate)
}

#[test]
fn a_reload_takes_over_certificates_under_load_and_loses_no_request() {
    let (house, first) = open();
    let address = secure_address(&house);
    let mut certificates = vec![first];
    for _ in 0..5 {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        fs::write(house.path().join("next.crt"), made.cert.pem()).unwrap();
        fs::write(
            house.path().join("next.key"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        certificates.push(made.cert.der().clone());
        let number = certificates.len() - 1;
        fs::rename(
            house.path().join("next.crt"),
            house.path().join(format!("{number}.crt")),
        )
        .unwrap();
        fs::rename(
            house.path().join("next.key"),
            house.path().join(format!("{number}.key")),
        )
        .unwrap();
    }
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let config = trusting(&certificates);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = get(address, &config).expect("an answer");
                        assert!(
                            answer.starts_with("HTTP/1.1 200") && answer.ends_with("one"),
                            "{answer}"
                        );
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for (number, certificate) in certificates.iter().enumerate().skip(1) {
            let tls = house.path().join("tls");
            for kind in ["crt", "key"] {
                let new = fs::read(house.path().join(format!("{number}.{kind}"))).unwrap();
                fs::write(tls.join(format!("site.{kind}")), new).unwrap();
            }
            house.reload().succeeds();
            let only = trusting(std::slice::from_ref(certificate));
            assert!(get(address, &only).is_ok(), "the new certificate is shown");
            let before = answered.load(Ordering::Relaxed);
            until("more are answered", || {
                answered.load(Ordering::Relaxed) > before + 5
            });
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no request failed");
        }
    });
}

#[test]
fn a_broken_or_mismatched_pair_refuses_the_reload_and_the_old_one_stays() {
    let (house, first) = open();
    let address = secure_address(&house);
    let old = trusting(&[first]);
    let tls = house.path().join("tls");
    let other = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    fs::write(tls.join("site.key"), other.signing_key.serialize_pem()).unwrap();
    let ran = house.reload();
    ran.exits(78)
        .says("site.crt")
        .says("key is not that of the certificate")
        .says("server.yaml:4");
    assert!(get(address, &old).is_ok());
    fs::write(tls.join("site.crt"), "nonsense").unwrap();
    house.reload().exits(78).says("no certificate in it");
    fs::remove_file(tls.join("site.crt")).unwrap();
    house.reload().exits(78).says("can not be read");
    assert!(get(address, &old).is_ok());
    house.get("/").is("one");
    let new = trusting(&[put_certificate(&house)]);
    house.reload().succeeds();
    assert!(get(address, &new).is_ok());
}

#[test]
fn a_check_reads_the_certificates_and_their_keys() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new()
        .worker("index", says("one"))
        .server_yaml(SERVER);
    put_certificate(&house);
    let tls = house.path().join("tls");
    let key = tls.join("site.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    house
        .run(["check"])
        .succeeds()
        .says("no problems")
        .says_nothing_of("warning");
    let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let signing = rcgen::KeyPair::generate().unwrap();
    let old = params.self_signed(&signing).unwrap();
    fs::write(tls.join("site.crt"), old.pem()).unwrap();
    house
        .run(["check"])
        .exits(78)
        .says("server.yaml:4")
        .says("key is not that of the certificate");
    fs::write(&key, signing.serialize_pem()).unwrap();
    house
        .run(["check"])
        .succeeds()
        .says("warning: ")
        .says("site.crt has ended on 2020-01-02");
}
