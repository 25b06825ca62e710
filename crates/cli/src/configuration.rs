//! `pantala config`.

use std::process::ExitCode;

use clap::Subcommand;
use pantala_server::config;

use crate::print;

#[derive(Debug, Subcommand)]
pub enum Configuration {
    /// Print the JSON Schema (2020-12) of a configuration in TOML, for editors.
    Schema,
    /// Print every key: what it takes, its default, its environment variable, its meaning.
    Reference,
}

pub fn run(configuration: Configuration) -> ExitCode {
    match configuration {
        Configuration::Schema => print(config::schema().as_bytes()),
        Configuration::Reference => print(config::reference().as_bytes()),
    }
}
