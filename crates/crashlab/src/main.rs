//! `pantala-crashlab`: see the library of the same name.

fn main() -> std::process::ExitCode {
    pantala_crashlab::run(std::env::args_os())
}
