//! Where things are, and what cargo knows about the workspace.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::step::Failure;

/// The checkout.
pub struct Workspace {
    /// The folder of the root manifest.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// What `cargo metadata` says.
    pub metadata: Value,
    /// Whether `CI=true`: what cannot be run there is a failure, not skipped.
    pub is_ci: bool,
}

impl Workspace {
    /// Asks cargo. Fails if `Cargo.lock` is missing or not up to date.
    pub fn find() -> Result<Workspace, Failure> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = cargo_command()
            .current_dir(manifest)
            .args(["metadata", "--locked", "--format-version", "1"])
            .output()
            .map_err(|error| Failure::io("cargo metadata", &error))?;
        if !output.status.success() {
            return Err(Failure(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| Failure(format!("cargo metadata: {error}")))?;
        let folder = |name: &str| {
            metadata[name].as_str().map(PathBuf::from).ok_or_else(|| Failure(format!("cargo metadata has no {name}")))
        };
        let (root, target) = (folder("workspace_root")?, folder("target_directory")?);
        Ok(Workspace { root, target, metadata, is_ci: env::var_os("CI").is_some_and(|value| value == "true") })
    }

    /// A folder for what steps leave behind: logs of brokers and tests.
    pub fn scratch(&self) -> Result<PathBuf, Failure> {
        let folder = self.target.join("xtask");
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(folder.display(), &error))?;
        Ok(folder)
    }

    /// An executable of this workspace, built for release by now.
    pub fn release_executable(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

/// The cargo that runs us, so that a toolchain chosen by hand (`cargo +1.95 xtask`) stays chosen.
pub fn cargo_command() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
