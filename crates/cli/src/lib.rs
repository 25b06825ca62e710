//! The command-line side of `pantala`, as far as tests and the run loops need it.
//!
//! The binary is `main.rs`: the broker's command and the store's are there. What `pub`, `sub`, `rr` and `passwd` are made of
//! is here.

pub mod clients;
