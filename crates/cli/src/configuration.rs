//! `pantala config`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use pantala_server::config;

use crate::{EXIT_CONFIGURATION, complain, print};

#[derive(Debug, Subcommand)]
pub enum Configuration {
    /// Print the JSON Schema (2020-12) of a configuration in TOML, for editors.
    Schema,
    /// Print every key: what it takes, its default, its environment variable, its meaning.
    Reference,
    /// Write a mosquitto.conf, with all that it includes, in our own format.
    ///
    /// What has no effect here is told in comments. Status: 0, 1 if it cannot be written, 3 if the file cannot be used.
    Convert {
        /// The mosquitto.conf.
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// Where to: a file that does not exist. Default: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub fn run(configuration: Configuration) -> ExitCode {
    match configuration {
        Configuration::Schema => print(config::schema().as_bytes()),
        Configuration::Reference => print(config::reference().as_bytes()),
        Configuration::Convert { from, output } => convert(&from, output.as_deref()),
    }
}

fn convert(from: &Path, output: Option<&Path>) -> ExitCode {
    if from.extension().is_some_and(|extension| extension == "toml") {
        complain(&io::Error::other(format!("{}: it is in our own format already", from.display())));
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    let text = match config::convert(from) {
        Ok(text) => text,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let Some(path) = output else { return print(text.as_bytes()) };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            ExitCode::FAILURE
        }
    }
}
