//! Configurations as nodes have them.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::*;

const ONE: Release = Release { major: 1, minor: 6 };
const TWO_0: Release = Release { major: 2, minor: 0 };
const TWO_1: Release = Release { major: 2, minor: 1 };
const TWO_3: Release = Release { major: 2, minor: 3 };
const IMAGES: &str = "[plugins.\"io.containerd.cri.v1.images\"]\n";
const REGISTRY_3: &str = "[plugins.\"io.containerd.cri.v1.images\".registry]\n";
const REGISTRY_2: &str = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";
const CERTS_D: &str = "config_path = \"/etc/containerd/certs.d\"\n";

struct Etc {
    directory: TempDir,
}

impl Etc {
    fn with(text: &str) -> Self {
        Self { directory: tempfile::tempdir().unwrap() }.and("config.toml", text)
    }

    fn and(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn detect(&self, release: impl Into<Option<Release>>) -> Detected {
        detect(&self.directory.path().join("config.toml"), release.into()).unwrap()
    }
}

fn reasons(detected: &Detected) -> Vec<Reason> {
    detected.problems.iter().map(|problem| problem.reason).collect()
}

fn single() -> ConfigPath {
    ConfigPath::Single("/etc/containerd/certs.d".into())
}

#[test]
fn releases_are_read_as_runtimes_say_them() {
    let printed = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3";
    for (text, major, minor) in
        [("v2.3.7", 2, 3), ("1.6.20~ds1", 1, 6), ("2.1.0-rc.0", 2, 1), (printed, 1, 6)]
    {
        assert_eq!(text.parse::<Release>().unwrap(), Release { major, minor }, "{text}");
    }
    assert!("containerd".parse::<Release>().is_err());
    assert!("".parse::<Release>().is_err());
}

/// The file that the installed containerd prints, where there is one: all defaults, nothing configured.
#[test]
fn the_installed_containerd_has_no_config_path_at_first() {
    let Ok(version) = Command::new("containerd").arg("--version").output() else { return };
    let release: Release = String::from_utf8(version.stdout).unwrap().parse().unwrap();
    let printed = Command::new("containerd").args(["config", "default"]).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let found = Etc::with(&text).detect(release);
    if release == ONE {
        assert_eq!(
            (found.version, &found.config_path, found.pull),
            (Some(2), &ConfigPath::None, Pull::Local)
        );
        assert_eq!(reasons(&found), [Reason::NoConfigPath]);
        let remedied = text.replacen("config_path = \"\"", CERTS_D.trim(), 1);
        assert_ne!(remedied, text);
        let found = Etc::with(&remedied).detect(release);
        assert_eq!((&found.config_path, found.problems.len()), (&single(), 0));
    } else {
        assert!(!found.problems.is_empty(), "no release uses a mirror by its defaults: {found:?}");
    }
}

#[test]
fn no_file_is_all_defaults() {
    let detected = |release| detect(Path::new("/nowhere/config.toml"), Some(release)).unwrap();
    let one = detected(ONE);
    assert_eq!((one.version, &one.config_path), (None, &ConfigPath::None));
    assert!(
        one.problems[0]
            .remedy
            .contains("version = 2\n\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]")
    );
    assert_eq!(reasons(&detected(TWO_1)), [Reason::NoConfigPath], "the default path came with 2.2");
    let two = detected(TWO_3);
    assert_eq!(reasons(&two), [Reason::MultiRootConfigPath]);
    assert!(
        two.problems[0]
            .remedy
            .contains("version = 3\n\n    [plugins.\"io.containerd.cri.v1.images\".registry]")
    );
    assert!(two.config_path.names(Path::new("/etc/docker/certs.d")));
}

#[test]
fn each_version_has_its_home() {
    let one = Etc::with(&format!(
        "[plugins.cri.registry]\n{CERTS_D}[plugins.cri.containerd]\ndiscard_unpacked_layers = true\n"
    ));
    let two = Etc::with(&format!("version = 2\n{REGISTRY_2}{CERTS_D}"));
    let three = Etc::with(&format!("version = 3\n{REGISTRY_3}{CERTS_D}"));
    let four = Etc::with(&format!("version = 4\n{REGISTRY_3}{CERTS_D}"));
    for (etc, release) in
        [(&one, ONE), (&two, ONE), (&two, TWO_3), (&three, TWO_0), (&three, TWO_3), (&four, TWO_3)]
    {
        let found = etc.detect(release);
        assert_eq!((&found.config_path, found.problems.len()), (&single(), 0), "{found:?}");
    }
    assert!(one.detect(ONE).discard_unpacked_layers);
    let found = one.detect(TWO_3);
    assert!(found.discard_unpacked_layers && found.pull == Pull::Local && found.config_path == single());
    assert_eq!(two.detect(None).release, Release { major: 1, minor: 7 });
    assert_eq!(three.detect(None).pull, Pull::Transfer);
}

#[test]
fn a_path_in_the_other_home_is_said_to_be_there() {
    let etc = Etc::with(&format!("version = 3\n{REGISTRY_2}{CERTS_D}"));
    let found = etc.detect(TWO_1);
    assert_eq!(found.config_path, ConfigPath::None);
    assert!(found.problems[0].text.contains("a section"), "{}", found.problems[0]);
    assert!(found.problems[0].remedy.contains(REGISTRY_3.trim()));
    assert_eq!(
        Etc::with(&format!("version = 2\n{REGISTRY_3}{CERTS_D}")).detect(ONE).config_path,
        ConfigPath::None
    );
}

#[test]
fn several_directories_need_local_pull() {
    let paths = "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";
    let text = format!("version = 3\n{REGISTRY_3}{paths}");
    let found = Etc::with(&text).detect(TWO_3);
    assert_eq!((found.pull, reasons(&found)), (Pull::Transfer, vec![Reason::MultiRootConfigPath]));
    let problem = &found.problems[0];
    assert!(problem.remedy.contains("config_path = \"/etc/containerd/certs.d\"\n"), "{problem}");
    assert!(problem.remedy.contains("Restart containerd") && problem.remedy.contains("/etc/docker/certs.d"));
    assert!(Etc::with(&text).detect(TWO_0).problems.is_empty(), "2.0 has no transfer service for CRI");
    for setting in [
        "use_local_image_pull = true",
        "discard_unpacked_layers = true",
        "max_concurrent_downloads = 5",
        "image_pull_with_sync_fs = true",
        "disable_snapshot_annotations = false",
        "registry.configs.x.auth.username = \"u\"",
    ] {
        let (setting, path) = (format!("{IMAGES}{setting}\n"), format!("registry.{paths}"));
        let found = Etc::with(&format!("version = 3\n{setting}{path}")).detect(TWO_3);
        assert_eq!((found.pull, found.problems.len()), (Pull::Local, 0), "{setting}");
        assert!(matches!(found.config_path, ConfigPath::MultiRoot(_)));
    }
    for setting in ["max_concurrent_downloads = 3", "use_local_image_pull = false"] {
        let found = Etc::with(&format!("version = 3\n{IMAGES}{setting}\n")).detect(TWO_3);
        assert_eq!(
            (found.pull, reasons(&found)),
            (Pull::Transfer, vec![Reason::MultiRootConfigPath]),
            "{setting}"
        );
    }
}

#[test]
fn chunked_fetch_is_that_of_the_one_who_pulls() {
    let transfer = "[plugins.\"io.containerd.transfer.v1.local\"]\nconcurrent_layer_fetch_buffer = 1048576\n";
    let cri = format!("{IMAGES}concurrent_layer_fetch_buffer = 1048576\n");
    let chunked = |text: &str| Etc::with(&format!("version = 3\n{text}")).detect(TWO_3).chunked_fetch;
    assert!(chunked(transfer));
    assert!(!chunked(&cri));
    assert!(!chunked(&format!("{IMAGES}use_local_image_pull = true\n{transfer}")));
    assert!(chunked(&format!("{cri}use_local_image_pull = true\n")));
    assert!(!chunked(&transfer.replace("1048576", "512")));
}

#[test]
fn mirrors_exclude_hosts_files() {
    let mirrors = REGISTRY_2.replace("registry]", "registry.mirrors.\"x\"]") + "endpoint = [\"http://a\"]\n";
    let found = Etc::with(&format!("version = 2\n{mirrors}")).detect(ONE);
    assert_eq!(reasons(&found), [Reason::MirrorsConfigured]);
    let found = Etc::with(&format!("version = 2\n{mirrors}{REGISTRY_2}{CERTS_D}")).detect(TWO_3);
    assert_eq!(reasons(&found), [Reason::MirrorsConfigured]);
    assert!(found.problems[0].text.contains("does not load"));
    let empty = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n";
    assert_eq!(reasons(&Etc::with(empty).detect(ONE)), [Reason::NoConfigPath]);
}

#[test]
fn imports_are_merged_as_the_release_does_it() {
    let main = "version = 2\nimports = [\"conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_concurrent_downloads = 9\n";
    let drop_in = format!("version = 2\nimports = [\"../config.toml\"]\n{REGISTRY_2}{CERTS_D}");
    let etc = Etc::with(main).and("conf.d/10-eagle.toml", &drop_in).and("conf.d/readme", "not TOML");
    let found = etc.detect(TWO_3);
    assert_eq!((&found.config_path, found.pull), (&single(), Pull::Local), "merged key by key");
    let etc = etc.and("conf.d/20.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1\n");
    assert_eq!(etc.detect(TWO_3).config_path, single());
    assert_eq!(etc.detect(ONE).config_path, ConfigPath::None, "the last section replaces those before");
    let etc = etc.and("conf.d/30.toml", &format!("version = 3\n{REGISTRY_3}config_path = \"/other\"\n"));
    assert_eq!(etc.detect(TWO_3).config_path, ConfigPath::Single("/other".into()));
}

#[test]
fn bad_files_are_said_to_be_bad() {
    let etc = Etc::with("version = 2\nx = [\n");
    let file = etc.directory.path().join("config.toml");
    let error = detect(&file, None).unwrap_err();
    assert!(matches!(&error, DetectError::Syntax { line: 2 | 3, .. }), "{error}");
    let etc = Etc::with("version = 2\nimports = [\"/nowhere/x.toml\"]\n").and("conf.d/a.toml", "");
    assert_eq!(reasons(&etc.detect(ONE)), [Reason::NoConfigPath, Reason::ImportUnreadable]);
    let etc = Etc::with(&format!(
        "version = 3\n{IMAGES}discard_unpacked_layers = \"yes\"\nregistry.config_path = 1\n"
    ));
    let found = etc.detect(TWO_1);
    assert_eq!(reasons(&found), [Reason::NoConfigPath, Reason::WrongType, Reason::WrongType]);
    let mut etc = Etc::with("version = 2\nimports = [\"*.toml\"]\n");
    for number in 0..70 {
        etc = etc.and(&format!("{number}.toml"), "");
    }
    let error = detect(&etc.directory.path().join("config.toml"), None).unwrap_err();
    assert!(matches!(error, DetectError::TooMuch { most: 64, .. }), "{error}");
    fs::write(etc.directory.path().join("config.toml"), vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    let error = detect(&etc.directory.path().join("config.toml"), None).unwrap_err();
    assert!(matches!(error, DetectError::TooMuch { of: "bytes", .. }), "{error}");
}
