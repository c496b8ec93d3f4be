//! Real directories, before and after.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const MIRROR: &str = "http://127.0.0.1:5000";

/// Everything below a directory: kind, mode, and text or target.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
        };
        found.insert(path, (metadata.mode(), content));
    }
    found
}

/// A node's file system with a `certs.d` in it.
struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn certs_d(&self) -> PathBuf {
        self.path("containerd/certs.d")
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.certs_d().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.certs_d().join(name)).unwrap()
    }

    fn install(&self, registries: &[&str]) -> BTreeMap<String, String> {
        let registries: Vec<String> = registries.iter().map(|name| (*name).to_owned()).collect();
        let report = install(&self.certs_d(), MIRROR, &registries).unwrap();
        self.told(report.files)
    }

    fn check(&self, registries: &[&str]) -> BTreeMap<String, String> {
        let registries: Vec<String> = registries.iter().map(|name| (*name).to_owned()).collect();
        self.told(check(&self.certs_d(), MIRROR, &registries).unwrap())
    }

    fn uninstall(&self) -> BTreeMap<String, String> {
        self.told(uninstall(&self.certs_d()).unwrap().files)
    }

    /// By the directory's name, the word for what was done or found.
    fn told<T: std::fmt::Debug>(&self, files: Vec<(PathBuf, T)>) -> BTreeMap<String, String> {
        let name =
            |file: &Path| file.parent().unwrap().strip_prefix(self.certs_d()).unwrap().display().to_string();
        files.into_iter().map(|(file, what)| (name(&file), format!("{what:?}"))).collect()
    }
}

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect()
}

#[test]
fn directories_that_were_not_there_come_and_go_with_the_file() {
    let node = Node::new();
    let before = tree(node.root.path());
    assert_eq!(node.check(&[]), words(&[("_default", "Absent")]));
    assert_eq!(tree(node.root.path()), before, "a check changes nothing");
    assert_eq!(node.install(&[]), words(&[("_default", "Created")]));
    assert!(node.read("_default/hosts.toml").contains("[host.\"http://127.0.0.1:5000\"]"));
    for directory in [node.path("containerd"), node.certs_d(), node.certs_d().join("_default")] {
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o755);
    }
    assert_eq!(fs::metadata(node.certs_d().join("_default/hosts.toml")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(node.install(&[]), words(&[("_default", "Unchanged")]));
    assert!(node.check(&[]).is_empty());
    assert_eq!(node.uninstall(), words(&[("_default", "Deleted")]));
    assert_eq!(tree(node.root.path()), before);
    assert!(node.uninstall().is_empty());
}

#[test]
fn every_directory_gets_an_entry_and_everything_is_given_back() {
    let node = Node::new();
    node.write(
        "docker.io/hosts.toml",
        "server = \"https://registry-1.docker.io\"\n\n[host.\"https://cache\"]\n",
    )
    .write("registry.local_5000_/ca.crt", "CERTIFICATE")
    .write("registry.local_5000_/me.cert", "CERTIFICATE")
    .write("registry.local_5000_/me.key", "KEY")
    .write("quay.io/hosts.toml", "")
    .write("broken/hosts.toml", "[host.\"x\"\n")
    .write("foreign-encoding/other", "x")
    .write("a-file", "not a directory");
    fs::write(node.certs_d().join("foreign-encoding/hosts.toml"), b"# \xff\n").unwrap();
    fs::create_dir_all(node.certs_d().join("empty.example")).unwrap();
    fs::create_dir_all(node.path("elsewhere")).unwrap();
    fs::write(node.path("elsewhere/hosts.toml"), "[host.\"https://shared\"]").unwrap();
    fs::write(node.path("linked.toml"), "# linked\n").unwrap();
    symlink(node.path("elsewhere"), node.certs_d().join("link.example")).unwrap();
    fs::create_dir_all(node.certs_d().join("file-link.example")).unwrap();
    symlink("../../../linked.toml", node.certs_d().join("file-link.example/hosts.toml")).unwrap();
    fs::create_dir_all(node.certs_d().join("dangling.example")).unwrap();
    symlink("nowhere", node.certs_d().join("dangling.example/hosts.toml")).unwrap();
    fs::set_permissions(
        node.certs_d().join("docker.io/hosts.toml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let before = tree(node.root.path());

    let told = node.install(&[]);
    let left: Vec<&str> = ["broken", "dangling.example", "foreign-encoding"].to_vec();
    for (name, word) in &told {
        assert_eq!(word.starts_with("Left"), left.contains(&name.as_str()), "{name}: {word}");
    }
    assert_eq!(told["_default"], "Created");
    assert_eq!(told["empty.example"], "Created");
    assert_eq!(told["registry.local_5000_"], "Created");
    assert_eq!(told["docker.io"], "Edited");
    let local = node.read("registry.local_5000_/hosts.toml");
    assert!(local.contains("ca = [\"ca.crt\"]\nclient = [[\"me.cert\", \"me.key\"]]\n[host."), "{local}");
    assert!(fs::read_to_string(node.path("elsewhere/hosts.toml")).unwrap().contains(MIRROR));
    assert!(fs::read_to_string(node.path("linked.toml")).unwrap().contains(MIRROR));
    assert!(fs::symlink_metadata(node.certs_d().join("file-link.example/hosts.toml")).unwrap().is_symlink());
    assert_eq!(node.check(&[]).into_keys().collect::<Vec<_>>(), left);

    let told = node.uninstall();
    assert_eq!(told.len(), 7, "{told:?}");
    assert_eq!(tree(node.root.path()), before);
}

#[test]
fn problems_name_the_file_and_the_line() {
    let node = Node::new();
    node.write("broken/hosts.toml", "a = 1\n[host.\"x\"\n");
    let report = install(&node.certs_d(), MIRROR, &[]).unwrap();
    let problems: Vec<_> = report.problems().collect();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].0, node.certs_d().join("broken/hosts.toml"));
    assert!(problems[0].1.to_string().starts_with("line 2 is not TOML"), "{}", problems[0].1);
}

#[test]
fn drift_is_found_and_repaired() {
    let node = Node::new();
    node.write("docker.io/hosts.toml", "[host.\"https://cache\"]\n");
    node.write("certs.example/ca.crt", "CERTIFICATE");
    node.install(&[]);
    let good = tree(&node.certs_d());
    let text = node.read("docker.io/hosts.toml");
    node.write("docker.io/hosts.toml", &format!("[host.\"https://before\"]\n{text}"));
    node.write("certs.example/second.crt", "CERTIFICATE");
    node.write("new.example/ca.crt", "CERTIFICATE");
    fs::remove_file(node.certs_d().join("_default/hosts.toml")).unwrap();
    let expected = [
        ("_default", "Absent"),
        ("certs.example", "Altered"),
        ("docker.io", "Altered"),
        ("new.example", "Absent"),
    ];
    assert_eq!(node.check(&[]), words(&expected));
    node.install(&[]);
    assert!(node.check(&[]).is_empty());
    let first = node.read("docker.io/hosts.toml");
    assert!(first.find(MIRROR).unwrap() < first.find("https://before").unwrap());
    fs::remove_dir_all(node.certs_d().join("new.example")).unwrap();
    fs::remove_file(node.certs_d().join("certs.example/second.crt")).unwrap();
    node.write("docker.io/hosts.toml", &text);
    node.install(&[]);
    // The file that was taken away came back into a directory that now counts as somebody's.
    let mut now = tree(&node.certs_d());
    let default = node.certs_d().join("_default/hosts.toml");
    let (mode, content) = now.get_mut(&default).unwrap();
    *content = content.replace("file and 0 directories", "file and 1 directories");
    assert_eq!((*mode, now.clone()), (0o100_644, good));
}

#[test]
fn chosen_registries_have_their_own_directories() {
    let node = Node::new();
    let before = tree(node.root.path());
    let told = node.install(&["docker.io", "registry.local:5000"]);
    assert_eq!(told, words(&[("docker.io", "Created"), ("registry.local_5000_", "Created")]));
    assert!(
        node.read("docker.io/hosts.toml").contains("\nserver = \"https://registry-1.docker.io\"\n[host.")
    );
    assert!(!node.read("registry.local_5000_/hosts.toml").contains("server"));
    assert!(node.check(&["docker.io", "registry.local:5000"]).is_empty());

    assert_eq!(node.check(&["docker.io"]), words(&[("registry.local_5000_", "Unwanted")]));
    let told = node.install(&["docker.io"]);
    assert_eq!(told, words(&[("docker.io", "Unchanged"), ("registry.local_5000_", "Deleted")]));
    let told = node.install(&[]);
    assert_eq!(told, words(&[("_default", "Created"), ("docker.io", "Unchanged")]));
    let told = node.install(&["quay.io"]);
    assert_eq!(told, words(&[("_default", "Deleted"), ("docker.io", "Deleted"), ("quay.io", "Created")]));
    node.uninstall();
    assert_eq!(tree(node.root.path()), before);
}

#[test]
fn a_chosen_registry_is_found_as_containerd_finds_it() {
    let node = Node::new();
    node.write("registry.local:5000/ca.crt", "CERTIFICATE");
    node.install(&["registry.local:5000"]);
    assert!(node.read("registry.local:5000/hosts.toml").contains(MIRROR));
    node.write("_default/hosts.toml", "[host.\"https://cache\"]\n");
    let told = node.install(&["quay.io", "registry.local:5000"]);
    assert_eq!(told["quay.io"], "Left(HidesDefault)");
    assert_eq!(told["registry.local:5000"], "Unchanged");
    for bad in ["", "..", "a/b", "_default", "a\n"] {
        let error = install(&node.certs_d(), MIRROR, &[bad.to_owned()]).unwrap_err();
        assert!(matches!(error, InstallError::Registry { .. }), "{bad}: {error}");
    }
}

#[test]
fn a_directory_of_docker_hub_and_others_names_no_server() {
    let node = Node::new();
    fs::create_dir_all(node.certs_d().join("docker.io")).unwrap();
    symlink("docker.io", node.certs_d().join("quay.io")).unwrap();
    let before = tree(node.root.path());
    node.install(&[]);
    assert!(!node.read("quay.io/hosts.toml").contains("server"));
    node.uninstall();
    assert_eq!(tree(node.root.path()), before);
}

#[test]
fn a_directory_with_two_names_goes_once_and_as_a_whole() {
    let node = Node::new();
    node.write("x/ca.crt", "CERTIFICATE");
    node.install(&[]);
    symlink("_default", node.certs_d().join("a.local")).unwrap();
    assert_eq!(node.uninstall(), words(&[("_default", "Deleted"), ("x", "Deleted")]));
    assert!(!node.certs_d().join("_default").is_dir());
}

#[test]
fn of_several_roots_the_last_has_the_default() {
    let node = Node::new();
    node.write("docker.io/hosts.toml", "[host.\"https://cache\"]\n");
    let second = node.path("docker/certs.d");
    fs::create_dir_all(second.join("registry.local_5000_")).unwrap();
    fs::write(second.join("registry.local_5000_/ca.crt"), "CERTIFICATE").unwrap();
    let both = std::env::join_paths([node.certs_d(), second.clone()]).unwrap();
    let before = tree(node.root.path());
    let report = install(Path::new(&both), MIRROR, &[]).unwrap();
    assert_eq!(report.files.len(), 3);
    assert!(!node.certs_d().join("_default").is_dir(), "it would hide the certificates of the second root");
    assert!(fs::read_to_string(second.join("_default/hosts.toml")).unwrap().contains(MIRROR));
    assert!(check(Path::new(&both), MIRROR, &[]).unwrap().is_empty());
    uninstall(Path::new(&both)).unwrap();
    assert_eq!(tree(node.root.path()), before);
}

#[test]
fn what_others_put_beside_our_file_stays() {
    let node = Node::new();
    node.install(&[]);
    node.write("_default/ca.crt", "CERTIFICATE");
    assert_eq!(node.uninstall(), words(&[("_default", "Deleted")]));
    let names: Vec<_> = tree(&node.certs_d()).into_keys().collect();
    assert_eq!(
        names,
        [node.certs_d(), node.certs_d().join("_default"), node.certs_d().join("_default/ca.crt")]
    );
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let node = Node::new();
    node.write("docker.io/hosts.toml", "[host.\"https://cache\"]\n");
    node.write("mine/.eagle-notes", "not temporary");
    let before = tree(node.root.path());
    node.write("docker.io/.eagle-Ab12.tmp", "[host.");
    node.write(".eagle-Cd34.tmp/hosts.toml", "[host.");
    fs::create_dir_all(node.path("containerd/.eagle-Ef56.tmp/certs.d/_default")).unwrap();
    node.uninstall();
    assert_eq!(tree(node.root.path()), before);
    node.write("docker.io/.eagle-Ab12.tmp", "[host.");
    node.install(&[]);
    node.uninstall();
    assert_eq!(tree(node.root.path()), before);
}

#[test]
fn two_processes_do_not_work_at_once() {
    let node = Node::new();
    node.write("docker.io/hosts.toml", "");
    let held = lock(&[node.certs_d()]).unwrap();
    assert!(matches!(install(&node.certs_d(), MIRROR, &[]), Err(InstallError::Busy { .. })));
    assert!(matches!(uninstall(&node.certs_d()), Err(InstallError::Busy { .. })));
    drop(held);
    assert_eq!(node.install(&[]).len(), 2);
}

#[test]
fn a_file_that_cannot_be_restored_is_an_error() {
    let node = Node::new();
    node.write("docker.io/hosts.toml", "[host.\"https://cache\"]\n");
    node.install(&[]);
    // Nobody, not even root, opens a directory as a file.
    let hosts = node.certs_d().join("quay.io/hosts.toml");
    fs::create_dir_all(&hosts).unwrap();
    let error = uninstall(&node.certs_d()).unwrap_err();
    assert!(matches!(&error, InstallError::NotRestored { file, others: 0, .. } if *file == hosts), "{error}");
    assert_eq!(node.read("docker.io/hosts.toml"), "[host.\"https://cache\"]\n");
    assert!(!node.certs_d().join("_default").is_dir());
}

/// What a directory of a registry can hold.
fn directory() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![("hosts.toml", "")]),
        Just(vec![("hosts.toml", "server = \"https://x\"")]),
        Just(vec![("hosts.toml", "# top\n\n# a\n[host.\"https://a\"]\nca = \"c.crt\"\n"), ("c.crt", "C")]),
        Just(vec![("c.crt", "C"), ("d.cert", "D")]),
        Just(vec![("hosts.toml", "broken = [")]),
        Just(vec![("hosts.toml", "[host.\"http://127.0.0.1:5000\"]\n")]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However far a first run came before it was killed: a second one completes it, and all is given back.
    #[test]
    fn a_directory_is_given_back_from_any_step(
        names in prop::sample::subsequence(vec!["_default", "docker.io", "quay.io", "r.local_5000_", "ghcr.io"], 0..=5),
        contents in prop::collection::vec(directory(), 5),
        done in 0usize..6,
        completed in prop::bool::ANY,
    ) {
        let node = Node::new();
        for (name, files) in names.iter().zip(&contents) {
            fs::create_dir_all(node.certs_d().join(name)).unwrap();
            for (file, text) in files {
                node.write(&format!("{name}/{file}"), text);
            }
        }
        let before = tree(node.root.path());
        let roots = roots(&node.certs_d()).unwrap();
        let mirror = Mirror::parse(MIRROR).unwrap();
        for target in Target::every(&roots).unwrap().iter().take(done) {
            let _ = put(target, &mirror, &roots);
        }
        if completed {
            node.install(&[]);
            prop_assert!(node.check(&[]).values().all(|drift| drift.starts_with("Unusable")));
        }
        node.uninstall();
        prop_assert_eq!(tree(node.root.path()), before);
    }
}
