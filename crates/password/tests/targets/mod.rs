//! What the fuzz targets check, for `fuzz/` and for `corpus.rs`.

use pantala_password::{Algorithm, Error, File, Hash};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 1] = [("password_file", password_file)];

/// A password file: it is read the same whatever ends its lines, an error is in one of them, and what is written can be read again
/// with the same users and hashes. The same lines with passwords in plain text give a file in which each password is right.
pub fn password_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = File::parse(text);
    let other_ends = text.replace("\r\n", "\n").replace('\n', "\r\n");
    match (&read, &File::parse(&other_ends)) {
        (Err(error), Err(other)) => {
            assert_eq!(error, other);
            is_in_a_line(error, text);
        }
        (Ok(file), Ok(other)) => {
            assert_eq!(entries(file), entries(other));
            reads_again(file);
            changes(file);
            for hash in file.users().filter_map(|name| file.hash(name)).filter(|hash| is_cheap(hash)) {
                // Nothing but SHA-512 of 64 known bytes could be right, so what matters is that it comes back.
                let _ = hash.verify(b"secret");
            }
        }
        _ => panic!("line ends decide whether it can be read"),
    }

    let mut passwords = Vec::new();
    let hashed = File::parse_plain(text, |password| {
        passwords.push(password.to_owned());
        Hash::new(Algorithm::Pbkdf2Sha512 { iterations: 1 }, password, b"twelve bytes")
    });
    match hashed {
        Err(error) => is_in_a_line(&error, text),
        Ok(file) => {
            assert_eq!(file.users().count(), passwords.len());
            for (name, password) in file.users().zip(&passwords) {
                assert!(file.hash(name).is_some_and(|hash| hash.verify(password)), "{name:?}");
            }
            reads_again(&file);
        }
    }
}

fn entries(file: &File) -> Vec<(&str, String)> {
    file.users().map(|name| (name, file.hash(name).expect("a user has a hash").to_string())).collect()
}

fn is_in_a_line(error: &Error, text: &str) {
    let Error::Line { line, .. } = error else { panic!("{error} in a file") };
    assert!((1..=text.lines().count()).contains(line), "{error}");
}

fn reads_again(file: &File) {
    let written = file.to_string();
    let again = File::parse(&written).expect("what is written can be read");
    assert_eq!(entries(&again), entries(file));
    // All that is no user is in it, too; only the end of the last line is none of it.
    assert_eq!(written.lines().count(), again.to_string().lines().count());
}

/// Every second user removed, then one added: the others stay as they are, in their order.
fn changes(file: &File) {
    let before = entries(file);
    let mut changed = file.clone();
    for (name, _) in before.iter().step_by(2) {
        assert!(changed.remove(name) && !changed.remove(name));
    }
    let mut expected: Vec<_> = before.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(entries(&changed), expected);
    let Some((name, hash)) = before.first() else { return };
    let parsed = Hash::parse(hash).expect("it was read");
    assert_eq!(changed.set(name, parsed.clone()), Ok(false));
    assert_eq!(changed.set(name, parsed), Ok(true));
    expected.push((name, hash.clone()));
    assert_eq!(entries(&changed), expected);
    reads_again(&changed);
}

/// Whether to verify is fast enough for here. A file may ask for a GiB and for minutes.
fn is_cheap(hash: &Hash) -> bool {
    let text = hash.to_string();
    let number = |text: &str| text.parse::<u32>().expect("it was written by us");
    match text.split('$').collect::<Vec<_>>()[..] {
        ["", "7", iterations, ..] => number(iterations) <= 1_000,
        ["", "argon2id", _, parameters, ..] => {
            let mut values = parameters.split(',').map(|parameter| number(&parameter[2..]));
            values.next() <= Some(1_024) && values.next() <= Some(2)
        }
        _ => true,
    }
}
