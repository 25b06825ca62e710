//! Certificates for the broker and for a client, which the other side trusts by themselves.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use super::install;
use crate::step::Failure;
use crate::workspace::Workspace;

/// Made anew for each run, so that none has expired.
pub struct Certificate {
    /// PEM: it is its own authority.
    pub certificate: PathBuf,
    /// PEM, without a passphrase.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for 127.0.0.1, with this Common Name and these Basic Constraints.
    pub fn make(workspace: &Workspace, common_name: &str, constraints: &str) -> Result<Self, Failure> {
        let folder = workspace.scratch()?.join("certificate").join(common_name);
        fs::create_dir_all(&folder).map_err(|error| Failure::io(folder.display(), &error))?;
        let made = Self { certificate: folder.join("own.crt"), key: folder.join("own.key") };
        // Set in place of the system's settings, which could add what contradicts these.
        let settings = folder.join("openssl.cnf");
        let text = format!(
            "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n\
             [name]\nCN = {common_name}\n\
             [extensions]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical, {constraints}\n"
        );
        fs::write(&settings, text).map_err(|error| Failure::io(settings.display(), &error))?;
        let key_kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let arguments = ["req", "-x509", "-sha256", "-days", "2"].iter().chain(&key_kind).map(OsStr::new).chain([
            OsStr::new("-config"),
            settings.as_os_str(),
            OsStr::new("-keyout"),
            made.key.as_os_str(),
            OsStr::new("-out"),
            made.certificate.as_os_str(),
        ]);
        install::run("openssl", arguments).map_err(Failure)?;
        Ok(made)
    }
}
