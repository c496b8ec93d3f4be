//! When certificates are renewed, and that whoever has to believes them on every day of many years.

use super::*;

const HOST: &str = "eagle-operator.eagle-system.svc";

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn host() -> BTreeSet<String> {
    names(&["10.0.0.1", HOST, "fd00::1"])
}

fn day(number: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + number * 86_400).unwrap()
}

fn first() -> Material {
    renew(None, &host(), day(0)).unwrap().unwrap()
}

#[test]
fn it_is_kept_as_it_was() {
    let made = first();
    let kept = Material::from_data(&made.to_data()).unwrap();
    assert_eq!(kept, made);
    assert_eq!(renew(Some(&kept), &host(), day(59)).unwrap(), None, "nothing to do for two months");
    for name in host() {
        assert!(believed(&kept.shown, &kept.authorities, &name, day(0)), "{name}");
    }
    assert!(!believed(&kept.shown, &kept.authorities, "other.svc", day(0)));
    assert!(!believed(&kept.shown, &first().authorities, HOST, day(0)), "of another authority");
}

#[test]
fn a_certificate_is_renewed_before_it_ends_and_for_other_names() {
    let made = first();
    let renewed = renew(Some(&made), &host(), day(61)).unwrap().unwrap();
    assert_eq!(renewed.authorities, made.authorities, "agents need to learn nothing");
    assert!(believed(&renewed.shown, &made.authorities, HOST, day(150)));
    assert!(!believed(&made.shown, &made.authorities, HOST, day(91)));

    let other = renew(Some(&made), &names(&["operator.example.com"]), day(1)).unwrap().unwrap();
    assert!(believed(&other.shown, &made.authorities, "operator.example.com", day(1)));
}

#[test]
fn an_authority_is_trusted_before_it_signs_and_until_it_ends() {
    let mut known = first();
    let old = known.authorities.clone();
    // A year before its end: both are trusted, the old one signs on.
    let late = 3650 - 364;
    known = renew(Some(&known), &host(), day(late)).unwrap().unwrap();
    assert_eq!((known.authorities.len(), &known.authorities[..1]), (2, &old[..]));
    assert!(believed(&known.shown, &old, HOST, day(late)), "nobody knows the new one yet");
    // When the next certificate is due everybody knows it, and it signs.
    known = renew(Some(&known), &host(), day(late + 61)).unwrap().unwrap();
    assert!(believed(&known.shown, &known.authorities[1..], HOST, day(late + 61)));
    assert!(!believed(&known.shown, &old, HOST, day(late + 61)));
    assert_eq!(known.authorities.len(), 2, "an agent may still read the old file");
    // And the old one goes with its end.
    known = renew(Some(&known), &host(), day(3651)).unwrap().unwrap();
    assert!(known.authorities.len() == 1 && known.authorities != old);
}

#[test]
fn whatever_the_day_what_is_shown_is_believed() {
    let mut known = first();
    let mut before = known.clone();
    for number in (0..8000).step_by(20) {
        if let Some(new) = renew(Some(&known), &host(), day(number)).unwrap() {
            (before, known) = (known, new);
        }
        // By whoever has heard the last change, and by whoever has not.
        for trusted in [&before, &known] {
            assert!(believed(&known.shown, &trusted.authorities, HOST, day(number)), "day {number}");
        }
        assert!(known.authorities.iter().all(|one| day(number) < one.span.until), "day {number}");
    }
}

#[test]
fn what_was_broken_by_hand_is_named() {
    let made = first();
    let broken = |key: &str, text: Option<String>| {
        let mut data = made.to_data();
        match text {
            Some(text) => data.insert(key.to_owned(), ByteString(text.into_bytes())),
            None => data.remove(key),
        };
        Material::from_data(&data).unwrap_err().to_string()
    };
    assert_eq!(broken(KEY, None), "tls.key is missing");
    assert_eq!(broken(CHAIN, Some("x".into())), "tls.crt is missing");
    assert_eq!(broken(AUTHORITY_SPANS, Some("{}".into())), "ca.json cannot be read");
    assert_eq!(broken(KEY, Some(made.shown.certificate.clone())), "tls.key cannot be read");
    let twice = made.authorities[0].pair.key.repeat(2);
    assert_eq!(broken(AUTHORITY_KEYS, Some(twice)), "there are 1 authorities, 2 keys and 1 times");
}

#[test]
fn an_authority_with_another_ones_key_is_replaced() {
    let mut known = first();
    known.authorities[0].pair.key = known.shown.key.clone();
    let renewed = renew(Some(&known), &host(), day(61)).unwrap().unwrap();
    assert_ne!(renewed.authorities, known.authorities);
    assert!(believed(&renewed.shown, &renewed.authorities, HOST, day(61)));
}
