//! `pantala pub`, `sub`, `rr` and `passwd`: mosquitto_pub, mosquitto_sub, mosquitto_rr and mosquitto_passwd, with the same
//! flags, output and exit status.
//!
//! Here is all that needs no network: from flags to a plan, and from a message to what is printed. Whoever carries out a
//! plan asks [`decision::Decider`] about each message and lets [`output::Printer`] print it.

pub mod decision;
pub mod flags;
pub mod json_lines;
pub mod manual;
pub mod output;
pub mod passwd;
pub mod plan;
pub mod prompt;
pub mod run;

use std::ffi::OsString;

use flags::{Asked, FlagError, Program, Surroundings};
use plan::{PublishPlan, RequestPlan, SubscribePlan};

/// What the programs end with when something is wrong with their flags, or with what they need.
pub const EXIT_FAILURE: u8 = 1;
/// What they end with when the time of `-W` is over.
pub const EXIT_TIMEOUT: u8 = 27;

/// A program by the name it was started under: `mosquitto_pub`, `pantala_pub`, with or without folders and `.exe`.
pub fn program_of_link(name: &std::ffi::OsStr) -> Option<Called> {
    let name = std::path::Path::new(name).file_stem()?.to_str()?;
    let name = name.strip_prefix("mosquitto_").or_else(|| name.strip_prefix("pantala_"))?;
    Called::of_name(name)
}

/// A program of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// One that speaks MQTT.
    Client(Program),
    /// mosquitto_passwd.
    Passwd,
}

impl Called {
    /// By the name of its subcommand.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "passwd" => Some(Self::Passwd),
            _ => Program::ALL.into_iter().find(|program| program.name() == name).map(Self::Client),
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Prepared {
    /// To publish.
    Publish(Box<PublishPlan>),
    /// To subscribe.
    Subscribe(Box<SubscribePlan>),
    /// To request.
    Request(Box<RequestPlan>),
    /// To print this on standard output, and end well.
    Text(String),
}

/// From arguments to what is to be done. `called` is how the program was called, for what is printed.
///
/// # Errors
/// What is wrong with the arguments, in one line; to be followed by a hint at `--help`, and status [`EXIT_FAILURE`].
pub fn prepare(
    program: Program,
    called: &str,
    arguments: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Prepared, FlagError> {
    let written = match flags::parse(program, arguments, surroundings)? {
        Asked::Help => return Ok(Prepared::Text(manual::help(program, called))),
        Asked::Version => return Ok(Prepared::Text(format!("{called} (Pantala) {}\n", env!("CARGO_PKG_VERSION")))),
        Asked::Run(written) => written,
    };
    Ok(match program {
        Program::Publish => Prepared::Publish(PublishPlan::new(&written, surroundings)?.into()),
        Program::Subscribe => Prepared::Subscribe(SubscribePlan::new(&written, surroundings)?.into()),
        Program::Request => Prepared::Request(RequestPlan::new(&written, surroundings)?.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_its_name() {
        let called = |name: &str| program_of_link(name.as_ref());
        assert_eq!(called("/usr/bin/mosquitto_pub"), Some(Called::Client(Program::Publish)));
        assert_eq!(called("mosquitto_rr.exe"), Some(Called::Client(Program::Request)));
        assert_eq!(called("pantala_passwd"), Some(Called::Passwd));
        assert_eq!(called("pantala"), None);
        assert_eq!(called("mosquitto"), None);
        assert_eq!(called("mosquitto_ctrl"), None);
    }
}
