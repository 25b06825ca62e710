//! A mosquitto.conf: a configuration, or an error in one line.
#![no_main]

use std::path::Path;

use pantala_server::config::{Config, Environment, Overrides};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = Some((Path::new("mosquitto.conf"), text));
    match Config::of_text(file, &Overrides::default(), &Environment::default()) {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            // What one configuration is told by does not differ from itself.
            assert!(config.effective().changes(&config.effective()).is_empty());
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
});
