//! Properties of adding and removing the entry, over generated files, and the cases that have a reason of their own.

use proptest::prelude::*;

use super::*;

const MIRROR: &str = "http://127.0.0.1:5000";

fn entry() -> Entry {
    Entry {
        mirror: Mirror::parse(MIRROR).unwrap(),
        server: None,
        certificates: Certificates::default(),
        directories: 1,
    }
}

fn with_certificates() -> Entry {
    let clients = vec![("a.cert".to_owned(), "a.key".to_owned())];
    Entry { certificates: Certificates { authorities: vec!["ca \"1\".crt".to_owned()], clients }, ..entry() }
}

/// The hosts in the order of their headers, read from the lines: another way than the one under test.
fn hosts(text: &str) -> Vec<String> {
    let headers = text.lines().filter_map(|line| line.trim().strip_prefix("[host.\""));
    headers.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
}

fn values(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// What the file says beside the mirror and the certificates.
fn foreign(text: &str) -> toml::Table {
    let mut all = values(text);
    let hosts = all.get_mut("host").and_then(toml::Value::as_table_mut);
    if let Some(hosts) = hosts {
        hosts.remove(MIRROR);
        if hosts.is_empty() {
            all.remove("host");
        }
    }
    all
}

/// Files as people write them, with what can stand between, before and behind the tables.
fn file() -> impl Strategy<Value = String> {
    let comment = prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("# [host.\"http://commented\"]\n".to_owned()),
        Just("  # indented, with \"quotes\n\n".to_owned()),
        Just("# directly above\n".to_owned()),
    ];
    let root = prop::sample::subsequence(
        vec![
            "server = \"https://up.example\"\n",
            "skip_verify = false # why\n",
            "note = \"\"\"\n[host.\"http://in a string\"]\n# not a comment\"\"\"\n",
            "list = [\n  1, # one\n  2,\n]\n",
            "override_path = true\n",
            "capabilities = ['pull']\n",
        ],
        0..=6,
    );
    let names =
        prop::sample::subsequence(vec!["https://a", "http://b:5001", "https://c/v2/x", "d.example"], 0..=4);
    let body = prop_oneof![
        Just("\n".to_owned()),
        Just("]\n  capabilities = [\"pull\"]\n".to_owned()),
        Just("]\nca = \"x.crt\"\nclient = [[\"c\", \"k\"]]\n\n".to_owned()),
        Just(".header]\nx = [\"1\"]\n".to_owned()),
        Just("] # beside\ndial_timeout = '3s'\nheader.y = \"2\"\n".to_owned()),
    ];
    let tail = prop_oneof![
        Just(""),
        Just("[other]\nz = 1\n"),
        Just("[[many]]\n[[many]]\nq = 2\n"),
        Just("[header]\nx = \"y\"\n"),
        Just("[host]\n"),
    ];
    let tables = (names, prop::collection::vec((comment.clone(), body), 4));
    let lines = (prop::bool::ANY, prop::bool::ANY, prop::bool::ANY);
    (comment.clone(), root, tables, comment, tail, lines).prop_map(
        |(top, root, (names, bodies), between, tail, (windows, open, tail_first))| {
            let mut text = top + &root.concat() + &between;
            let is_host = tail.starts_with("[host]");
            if tail_first && !is_host {
                text += tail;
            }
            for (name, (comment, body)) in names.iter().zip(&bodies) {
                let body = if body == "\n" { "]\n" } else { body };
                write!(text, "{comment}[host.\"{name}\"{body}").unwrap();
            }
            if !tail_first && (!is_host || names.is_empty()) {
                text += tail;
            }
            if open && text.ends_with('\n') {
                text.pop();
            }
            if windows { text.replace('\n', "\r\n") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_added_is_removed_without_a_trace(text in file(), certificates in prop::bool::ANY) {
        let entry = if certificates { with_certificates() } else { entry() };
        let added = insert(Some(&text), &entry).unwrap();
        prop_assert!(is_in(&added));
        prop_assert_eq!(remove(&added), Removed::Text(text.clone()));
        prop_assert_eq!(remove(&text), Removed::Nothing);
        prop_assert_eq!(insert(Some(&added), &entry).unwrap(), added);
    }

    #[test]
    fn the_mirror_is_first_and_all_else_means_the_same(text in file()) {
        let added = insert(Some(&text), &entry()).unwrap();
        let mut expected = hosts(&text).into_iter().filter(|host| !host.contains(' ')).collect::<Vec<_>>();
        expected.insert(0, MIRROR.to_owned());
        let found = hosts(&added).into_iter().filter(|host| !host.contains(' ')).collect::<Vec<_>>();
        prop_assert_eq!(found, expected);
        let mut before = values(&text);
        if before.get("host").and_then(toml::Value::as_table).is_some_and(toml::Table::is_empty) {
            before.remove("host");
        }
        prop_assert_eq!(foreign(&added), before);
    }

    #[test]
    fn another_mirror_takes_the_place_of_the_first(text in file()) {
        let other = Entry { mirror: Mirror::parse("http://127.0.0.1:5001").unwrap(), ..entry() };
        let moved = insert(Some(&insert(Some(&text), &entry()).unwrap()), &other).unwrap();
        prop_assert_eq!(&moved, &insert(Some(&text), &other).unwrap());
        prop_assert_eq!(remove(&moved), Removed::Text(text));
    }

    #[test]
    fn no_text_makes_it_fail_otherwise_than_by_an_error(text in "\\PC{0,80}|([\\[\\]a-z.=\"'#\\n ]|host|eagle begin \\(|# eagle end){0,60}") {
        if let Ok(added) = insert(Some(&text), &entry()) {
            prop_assert!(values(&added).contains_key("host"));
        }
        let _ = remove(&text);
    }
}

#[test]
fn a_new_file_reads_like_this_and_goes_as_a_whole() {
    let docker = Entry { server: Some("https://registry-1.docker.io"), ..with_certificates() };
    let text = insert(None, &docker).unwrap();
    let expected = "# eagle begin (file and 1 directories): Eagle keeps and removes the lines up to \"eagle end\"\n\
         server = \"https://registry-1.docker.io\"\nca = ['ca \"1\".crt']\nclient = [[\"a.cert\", \"a.key\"]]\n\
         [host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"200ms\"\n\
         # eagle end\n";
    assert_eq!(text, expected);
    assert_eq!(remove(&text), Removed::File { directories: 1 });
    assert_eq!(insert(Some(&text), &docker).unwrap(), text);
}

#[test]
fn what_somebody_added_to_our_file_stays() {
    let text = insert(None, &entry()).unwrap() + "[host.\"https://own\"]\n";
    assert_eq!(remove(&text), Removed::Text("[host.\"https://own\"]\n".to_owned()));
    assert_eq!(insert(Some(&text), &entry()).unwrap(), text);
}

#[test]
fn a_line_end_that_somebody_needs_now_stays() {
    let text = insert(Some("skip_verify = true"), &entry()).unwrap() + "[other]\n";
    assert_eq!(remove(&text), Removed::Text("skip_verify = true\n[other]\n".to_owned()));
}

#[test]
fn changes_inside_of_the_block_are_undone() {
    let text = "# of the people\n[host.\"https://own\"]\nca = \"x\"\n";
    let good = insert(Some(text), &entry()).unwrap();
    let damages: [fn(&str) -> String; 4] = [
        |text| text.replace("200ms", "9s"),
        |text| text.replace("  capabilities = [\"pull\", \"resolve\"]\n", "  skip_verify = true\n"),
        |text| text.replace("# eagle end\n", ""),
        |text| text.replace('\n', "\r\n"),
    ];
    for damage in damages {
        let damaged = damage(&good);
        assert_ne!(damaged, good);
        let Removed::Text(restored) = remove(&damaged) else { panic!("{damaged}") };
        assert_eq!(restored.replace("\r\n", "\n"), text, "{damaged}");
        assert_eq!(insert(Some(&damaged), &entry()).unwrap().replace("\r\n", "\n"), good, "{damaged}");
    }
    let twice = format!("{good}{}", good.lines().take(5).collect::<Vec<_>>().join("\n"));
    assert_eq!(remove(&twice), Removed::Text(text.to_owned()));
}

#[test]
fn certificates_are_named_only_where_containerd_used_them() {
    let names =
        |text: &str| insert(Some(text), &with_certificates()).unwrap().contains("ca = ['ca \"1\".crt']");
    assert!(names(""), "an empty file is no file to containerd");
    assert!(names("server = \"https://x\"\n"), "containerd 1 ignores a file without hosts");
    assert!(names("[header]\nx = \"y\"\n"));
    assert!(!names("server = \"http://x\"\n"), "TLS keys on plain HTTP");
    assert!(!names("ca = \"own.crt\"\n"));
    assert!(!names("[host.\"https://x\"]\n"));
}

#[test]
fn a_mirror_that_a_person_wrote_is_that_persons() {
    let own = "[host.\"http://127.0.0.1:5000/\"]\n";
    assert_eq!(insert(Some(own), &entry()).unwrap(), own);
    assert_eq!(insert(Some(&fresh(MIRROR)), &entry()).unwrap(), fresh(MIRROR));
    assert_eq!(remove(own), Removed::Nothing);
    let second = format!("[host.\"https://a\"]\n{own}");
    let expected = HostsError::NotFirst { mirror: MIRROR.to_owned(), first: "https://a".to_owned() };
    assert_eq!(insert(Some(&second), &entry()).unwrap_err(), expected);
}

#[test]
fn what_containerd_ignores_is_left_alone() {
    let cases = [
        ("a = 1\n[host.\"x\"\n", "line 2 is not TOML"),
        ("\u{feff}[host.\"x\"]\n", "line 1 is not TOML"),
        ("server = 3", "`server` must be a string"),
        ("[host.\"https://x\"]\ndial_timeout = 3\n", "`host.\"https://x\".dial_timeout` must be a duration"),
        (
            "[host.\"https://x\"]\ndial_timeout = \"3\"\n",
            "`host.\"https://x\".dial_timeout` must be a duration",
        ),
        (
            "[host.\"https://x\"]\ncapabilities = [\"fly\"]\n",
            "`host.\"https://x\".capabilities` must be a list",
        ),
        (
            "[host.\"https://x\"]\nskip_verify = \"no\"\n",
            "`host.\"https://x\".skip_verify` must be true or false",
        ),
        ("[host.\"https://x\".header]\na = 1\n", "`host.\"https://x\".header.a` must be a string"),
        ("[[host.\"https://x\"]]\n", "`host.\"https://x\"` must be a table"),
        ("client = [[\"a\"]]\n", "`client` must be a file name"),
        ("host = 1\n", "`host` must be a table"),
        ("host = {\"https://x\" = {}}\n", "the host https://x has no table of its own"),
        ("[host]\n\"https://x\" = {}\n", "the host https://x has no table of its own"),
        ("host.\"https://x\".ca = \"a\"\n", "the host https://x has no table of its own"),
    ];
    for (text, expected) in cases {
        let error = insert(Some(text), &entry()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    for good in ["\"1h2.5m\"", "\"0\"", "\"\"", "\"-1µs\""] {
        let text = format!("[host.\"https://x\"]\ndial_timeout = {good}\n");
        assert!(insert(Some(&text), &entry()).is_ok(), "{good}");
    }
}
