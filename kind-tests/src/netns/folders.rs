//! Folders of its own for a program that cannot be told to keep out of `/run` and `/var/lib`.
//!
//! The program sees empty ones in their places; what it leaves there is in the fleet's directory and goes with it. That
//! directory must therefore be somewhere else, such as `/tmp`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// What is hidden, and the name of what stands in for it.
const HIDDEN: [(&str, &str); 2] = [("/run", "run"), ("/var/lib", "lib")];

/// A program's folders.
#[derive(Clone, Debug)]
pub struct Folders {
    directory: PathBuf,
}

impl Folders {
    /// Empty folders in `directory`.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        for (hidden, name) in HIDDEN {
            ensure!(!directory.starts_with(hidden), "{} would hide itself", directory.display());
            let folder = directory.join(name);
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// What the program knows as `/run`.
    pub fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// What comes before the program and its arguments. The program takes the place of all of it, process id included,
    /// and the mounts end with it.
    pub fn enter(&self) -> Vec<String> {
        const HIDE: &str = r#"mount --bind "$0/run" /run && mount --bind "$0/lib" /var/lib && exec "$@""#;
        let directory = self.directory.display().to_string();
        let command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDE, &directory];
        command.map(str::to_owned).to_vec()
    }
}
