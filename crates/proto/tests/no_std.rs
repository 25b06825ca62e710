//! What `#![no_std]` says is so for those who build on this crate: a program without `std` can.
//!
//! A program has one panic handler, and `std` brings one. So a crate with its own is refused as soon as `std` comes with what
//! it is built on: this crate, and the crates that it needs with the features that it asks for. Within the workspace other crates
//! ask for more, so it is built outside. It is checked for this machine; whether another kind of machine has all that is needed,
//! as an allocator, this does not show.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SOURCE: &str = "#![no_std]

#[cfg(feature = \"std\")]
extern crate std;

pub use pantala_proto::Packet;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

/// Has cargo check a crate that uses this one and has a panic handler.
fn check(folder: &Path, more: &[&str]) -> Output {
    let proto = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"without-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[features]\nstd = []\n\n\
         [dependencies]\npantala-proto = {{ path = {proto:?} }}\n\n[workspace]\n"
    );
    fs::create_dir_all(folder.join("src")).expect("cargo's folder for tests can be written");
    fs::write(folder.join("Cargo.toml"), manifest).expect("it can be written");
    fs::write(folder.join("src/lib.rs"), SOURCE).expect("it can be written");
    // The same versions as elsewhere, which are here already.
    fs::copy(format!("{proto}/../../Cargo.lock"), folder.join("Cargo.lock")).expect("the workspace has one");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["check", "--offline", "--quiet"]).args(more).current_dir(folder);
    command.env("CARGO_TARGET_DIR", folder.join("target")).output().expect("there is a cargo")
}

#[test]
fn a_program_without_std_can_use_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without-std");
    let output = check(&folder, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // With `std` it is as it would be if this crate brought it.
    let output = check(&folder, &["--features", "std"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("panic_impl"), "{words}");
}
