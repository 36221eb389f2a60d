use super::*;

fn pair(names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair {
        name: "test.pem".to_owned(),
        certificate: Pem::Text(made.cert.pem()),
        key: Pem::Text(made.signing_key.serialize_pem()),
    }
}

#[test]
fn a_certificate_and_its_key_are_good() {
    check(&pair(&["example.org"])).unwrap();
}

#[test]
fn a_certificate_that_ends_is_told_with_its_time() {
    let mut params = rcgen::CertificateParams::new(["example.org".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = Pair {
        name: "test.pem".to_owned(),
        certificate: Pem::Text(params.self_signed(&key).unwrap().pem()),
        key: Pem::Text(key.serialize_pem()),
    };
    let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 86_400);
    let end = 21_916;
    assert_eq!(crate::calendar::date(end), (2030, 1, 2));
    assert_eq!(ended(&pair, day(end - 1)), None);
    assert_eq!(ended(&pair, day(end + 1)), Some(day(end)));
    let hidden = Pair {
        certificate: Pem::Credential("test".to_owned()),
        ..pair
    };
    assert_eq!(ended(&hidden, day(end + 1)), None);
}

#[test]
fn what_is_broken_or_does_not_belong_together_is_refused_with_its_reason() {
    let good = pair(&["example.org"]);
    let other = pair(&["example.org"]);
    let text = |text: &str| Pem::Text(text.to_owned());
    for (certificate, key, reason) in [
        (good.certificate.clone(), other.key, "is not that of"),
        (text(""), good.key.clone(), "no certificate"),
        (good.key.clone(), good.key.clone(), "no certificate"),
        (good.certificate.clone(), text(""), "no private key"),
        (
            good.certificate.clone(),
            text(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ),
            "passphrase",
        ),
        (
            text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            good.key.clone(),
            "test.pem",
        ),
        (
            good.certificate.clone(),
            Pem::Credential("tls.key".to_owned()),
            "'tls.key' can not be read",
        ),
    ] {
        let pair = Pair {
            certificate,
            key,
            ..good.clone()
        };
        let error = check(&pair).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn the_certificate_of_the_very_name_goes_before_a_wildcard_and_the_first_is_for_all_else() {
    let provider = aws_lc_rs::default_provider();
    let sets: [&[&str]; 3] = [
        &["first.example"],
        &["*.example.org", "example.org"],
        &["www.example.org"],
    ];
    let keys: Vec<_> = sets
        .iter()
        .map(|names| certified(&pair(names), &provider).unwrap())
        .collect();
    let choice = Choice::new(keys.clone());
    for (name, expected) in [
        (Some("www.example.org"), 2),
        (Some("WWW.example.ORG"), 2),
        (Some("a.example.org"), 1),
        (Some("example.org"), 1),
        (Some("a.b.example.org"), 0),
        (Some("first.example"), 0),
        (Some("other"), 0),
        (None, 0),
    ] {
        let found = choice.find(name).unwrap();
        assert!(Arc::ptr_eq(&found, &keys[expected]), "{name:?}");
    }
    assert!(Choice::new(Vec::new()).find(None).is_none());
}

#[test]
fn a_host_is_asked_for_where_its_certificate_was_shown() {
    let keys = [
        &["one.example", "both.example"][..],
        &["two.example", "*.two.example", "both.example"],
    ];
    let provider = aws_lc_rs::default_provider();
    let keys = keys.map(|names| certified(&pair(names), &provider).unwrap());
    let choice = Arc::new(Choice::new(keys.to_vec()));
    for (shown, host, expected) in [
        (Some("one.example"), "one.example", true),
        (Some("one.example"), "ONE.example:8443", true),
        (Some("one.example"), "both.example", true),
        (Some("one.example"), "two.example", false),
        (Some("one.example"), "Two.Example.:443", false),
        (Some("one.example"), "www.two.example", false),
        (Some("two.example"), "www.two.example", true),
        // Shown by the other, but this one is for it as well.
        (Some("two.example"), "both.example", true),
        (Some("two.example"), "one.example", false),
        // Of one label.
        (Some("one.example"), "a.b.two.example", true),
        // No certificate is for these.
        (Some("two.example"), "elsewhere.example", true),
        (Some("two.example"), "[::1]:443", true),
        (Some("two.example"), "", true),
        // The first is for those that name no host, or one that no certificate is for.
        (None, "one.example", true),
        (None, "two.example", false),
        (Some("elsewhere.example"), "elsewhere.example", true),
        (Some("elsewhere.example"), "one.example", true),
        (Some("elsewhere.example"), "two.example", false),
    ] {
        let is_for = choice.shown(shown).unwrap().is_for(host);
        assert_eq!(is_for, expected, "{shown:?}, {host:?}");
    }
    let alone = Arc::new(Choice::new(keys[..1].to_vec()));
    assert!(alone.shown(Some("one.example")).is_none());
}
