//! J4: the time of a refusal does not tell whether there is such a user.
//!
//! Two kinds of logins in turn, in an order from a seed, by one client on loopback; the times are compared as dudect does:
//! what lies above a percentile that was fixed before is left out, since that is the machine's and not the broker's, and of the
//! rest Welch's t says whether the means are apart. A disturbance may make them so once; a difference that is there makes
//! them so again, on fresh samples.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::client::{Client, V5, connect_as};
use crate::process::{Broker, Folder};

/// Of each kind.
const SAMPLES: usize = 2_000;
/// Times above this percentile of all of both kinds are left out.
const PERCENTILE: usize = 80;
/// As dudect has it: beyond, the difference is one.
const T_MAX: f64 = 4.5;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// So that a hash takes a few hundred microseconds, many times what else there is to a login.
const ITERATIONS: &str = "500";

/// A password file with one user, whose hash is cheap enough for thousands of logins.
fn start() -> Broker {
    let folder = Folder::new();
    let passwords = folder.write("passwords", "");
    let status = Command::new(env!("CARGO_BIN_EXE_pantala"))
        .args(["passwd", "-b", "-H", "sha512-pbkdf2", "-I", ITERATIONS])
        .arg(&passwords)
        .args(["known", "right"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let file = folder.write(
        "pantala.toml",
        &format!(
            "[broker]\nworkers = 1\n[limits]\nfailures_per_address_max = 0\nfailures_per_user_max = 0\n\
             [log]\ntypes = [\"error\", \"notice\"]\nconnection_messages = false\n\
             [[listener]]\nhost = \"127.0.0.1\"\nport = 0\nallow_anonymous = false\n\
             [[security]]\npassword_file = {passwords:?}\n"
        ),
    );
    Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str(), "--durability".as_ref(), "memory".as_ref()])
}

/// Nanoseconds from CONNECT to its refusal.
fn refused_after(address: SocketAddr, user_name: &str) -> u64 {
    let mut client = Client::open(address);
    client.level = V5;
    let connect = connect_as(V5, "", Some(user_name), Some(b"wrong"));
    let start = Instant::now();
    client.send(&connect);
    let answer = client.packet();
    let taken = start.elapsed();
    assert_eq!((answer[0], answer[3]), (0x20, 0x87), "{answer:02x?}");
    u64::try_from(taken.as_nanos()).unwrap()
}

/// The times of both kinds, taken in turn.
fn samples(seed: u64, mut one: impl FnMut(bool) -> u64) -> [Vec<u64>; 2] {
    let (mut state, mut times) = (seed, [Vec::new(), Vec::new()]);
    while times.iter().any(|times| times.len() < SAMPLES) {
        // Which is the first of each pair is left to chance (xorshift).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for kind in [state & 1 == 0, state & 1 == 1] {
            times[usize::from(kind)].push(one(kind));
        }
    }
    times
}

/// Welch's t of what is left of the times.
fn t_of(times: &[Vec<u64>; 2]) -> f64 {
    let mut all: Vec<u64> = times.iter().flatten().copied().collect();
    all.sort_unstable();
    let most = all[all.len() * PERCENTILE / 100];
    let moments = times.each_ref().map(|times| {
        let kept: Vec<f64> = times.iter().filter(|time| **time <= most).map(|time| *time as f64).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let [(one, of_one), (other, of_other)] = moments;
    (one - other) / (of_one + of_other).sqrt()
}

/// Whether the two are apart, twice; else by how much.
fn are_apart(mut one: impl FnMut(bool) -> u64) -> Result<(), [f64; 2]> {
    let t = [1, 2].map(|seed| t_of(&samples(SEED.wrapping_mul(seed), &mut one)));
    if t.iter().all(|t| t.abs() >= T_MAX) { Ok(()) } else { Err(t) }
}

#[test]
fn a_refusal_does_not_tell_whether_the_user_is_known() {
    let mut broker = start();
    let address = broker.address();
    // What the first connections cost is not what is asked about.
    assert!((0..50).all(|_| refused_after(address, "known") > 0));
    let apart = are_apart(|known| refused_after(address, if known { "known" } else { "other" }));
    assert!(apart.is_err(), "an unknown user is told from a known one by the time of the refusal");
    broker.check();
}

/// The same measure finds a difference where there is one: half a hash, where without a hash for unknown users it would be a
/// whole one.
#[test]
fn the_measure_sees_a_difference() {
    let mut broker = start();
    let address = broker.address();
    let hash = (0..50).map(|_| refused_after(address, "known")).min().unwrap();
    let apart = are_apart(|more| refused_after(address, "known") + if more { hash / 2 } else { 0 });
    assert!(apart.is_ok(), "a difference of half a hash is not seen: {apart:?}");
    broker.check();
}
