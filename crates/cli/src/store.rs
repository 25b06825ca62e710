//! `pantala store`.

use std::io::{BufWriter, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use pantala_server::config::{Config, Overrides};
use pantala_server::store_tool::{self, Selection, Soundness, ToolError};

use crate::{EXIT_CONFIGURATION, complain};

/// The store is damaged, or the work could not be finished.
const EXIT_DAMAGED: u8 = 1;
/// The store cannot be opened.
const EXIT_UNOPENED: u8 = 3;

#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read everything, and say what is there.
    ///
    /// Nothing is changed, not even what the broker repairs when it starts: it sets damaged files aside, and writes the end of the
    /// log again. Several may look at once, while no broker runs.
    ///
    /// Status: 0 sound, 1 damaged, 3 the store cannot be opened, by a broker that has it open for one.
    Check(Place),
    /// Write every entry as one line of JSON.
    ///
    /// In the order of kinds and keys, which `docs/format.md` describes. Payloads are `payload` where they are UTF-8, else
    /// `payload_base64`. Entries that are not understood are of the kind `unreadable`. Nothing is changed.
    ///
    /// Status: 0 sound, 1 damaged (all that can be read is written), 3 the store cannot be opened.
    Dump {
        #[command(flatten)]
        place: Place,
        /// Only entries of this kind.
        #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(Selection::names().collect::<Vec<_>>()))]
        kind: Option<String>,
    },
    /// Give up all that is not needed any more.
    ///
    /// The broker does this by itself as far as it is worth it; this goes on until nothing is left to be gained. It needs room for
    /// one more file, and can be ended at any moment without harm. To be run as the user that the broker runs as.
    ///
    /// Opening the store to write repairs it as the start of the broker does: damaged files are set aside.
    ///
    /// Status: 0 done, 1 done although the store is damaged, or not done, 3 the store cannot be opened.
    Compact(Place),
    /// Copy the store to a new data directory.
    ///
    /// A broker can be started with the copy: `pantala broker --data-dir DIR`. To restore it, put DIR/store in the place of the `store` in
    /// the data directory while the broker is stopped. It is made as DIR.partial, and named DIR when it is whole.
    /// Nothing is changed in what is copied.
    ///
    /// Status: 0 done, 1 done although the store is damaged, or not done, 3 the store cannot be opened.
    Backup {
        #[command(flatten)]
        place: Place,
        /// Where to: a directory that does not exist.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
}

/// Where the data is, found as the broker finds it.
#[derive(Debug, Args)]
pub struct Place {
    /// Configuration of the broker, for the data directory that it names.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory. Default: $PANTALA_DATA_DIR, else $XDG_STATE_HOME/pantala, else ~/.local/state/pantala.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub fn run(store: &Store) -> ExitCode {
    let (Store::Check(place) | Store::Dump { place, .. } | Store::Compact(place) | Store::Backup { place, .. }) = store;
    let overrides = Overrides { data_dir: place.data_dir.clone(), ..Overrides::default() };
    let data_dir = match Config::load(place.config.as_deref(), &overrides) {
        Ok(config) => config.data_dir,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let Some(data_dir) = data_dir else {
        complain_of("there is no home directory to look for data in: --data-dir names a place");
        return ExitCode::from(EXIT_CONFIGURATION);
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let result = match store {
        Store::Check(_) => store_tool::check(&data_dir, &mut out),
        Store::Dump { kind, .. } => store_tool::dump(&data_dir, kind.as_deref().and_then(Selection::named), &mut out),
        Store::Compact(_) => store_tool::compact(&data_dir, &mut out),
        Store::Backup { to, .. } => store_tool::backup(&data_dir, to, &mut out),
    };
    match result {
        Ok(Soundness::Sound) => ExitCode::SUCCESS,
        Ok(Soundness::Damaged) => {
            complain_of("the store is damaged: docs/store.md says what to do");
            ExitCode::from(EXIT_DAMAGED)
        }
        // Whoever read it has seen enough.
        Err(ToolError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(if error.is_unopened() { EXIT_UNOPENED } else { EXIT_DAMAGED })
        }
    }
}

fn complain_of(text: &'static str) {
    complain(&*Box::<dyn std::error::Error>::from(text));
}
