//! What the fuzz target checks, as a plain function: `fuzz/` feeds it what a fuzzer makes up, beside this folder `corpus.rs` the
//! corpus and `any_bytes.rs` random input, and all of them fail by a panic.

use pantala_client::transport::dns::{RECORDS_MAX, answer};

/// What is asked for.
pub const NAME: &str = "_mqtt._tcp.example.org";

/// An answer of a name server: no panic; what is found is names, and not too many; of a part of it comes the same or an error.
pub fn dns_answer(bytes: &[u8]) {
    let id = match bytes {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let whole = answer(bytes, id, NAME);
    if let Ok(found) = &whole {
        assert!(found.len() <= RECORDS_MAX);
        for srv in found {
            let is_label = |label: &str| {
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                (1..=63).contains(&label.len()) && label.bytes().all(is_name)
            };
            assert!(srv.target.len() <= 253);
            assert!(srv.target.is_empty() || srv.target.split('.').all(is_label), "{:?}", srv.target);
        }
    }
    for end in [bytes.len() / 2, bytes.len() * 3 / 4, bytes.len().saturating_sub(1)] {
        let part = answer(&bytes[..end], id, NAME);
        assert!(part.is_err() || part == whole, "{part:?} of {end} bytes, and {whole:?} of all");
    }
}
