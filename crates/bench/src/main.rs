//! `pantala-bench`: see the library of the same name.

fn main() -> std::process::ExitCode {
    pantala_bench::run(std::env::args_os())
}
