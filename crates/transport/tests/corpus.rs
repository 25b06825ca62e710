//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The seeds of a target, by name: lengths of chunks, then what is cut by them.
fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let cut = |bytes: &[u8]| [&[3, 0, 6, 200], bytes].concat();
    let seeds: Vec<(&str, Vec<u8>)> = match target {
        "proxy" => vec![
            ("v1-ipv4", b"PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883\r\n\x10\x0c".to_vec()),
            ("v1-ipv6", b"PROXY TCP6 2001:db8::7 ::1 49152 1883\r\n\x10\x0c".to_vec()),
            ("v1-unknown", b"PROXY UNKNOWN x\r\n\x10\x0c".to_vec()),
            ("v1-endless", [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat()),
            ("v2-local", binary(0x20, 0x00, b"")),
            ("v2-ipv4", binary(0x21, 0x11, &[1; 12])),
            ("v2-ipv6", binary(0x21, 0x21, &[1; 36])),
            ("v2-unix", binary(0x21, 0x31, &[b'/'; 216])),
            ("v2-tls", binary(0x21, 0x11, b"\0\0\0\0\0\0\0\0\0\0\0\0\x20\0\x11\x07\0\0\0\0\x21\0\x031.3\x22\0\x03abc")),
            ("v2-checksum", binary(0x21, 0x00, &[0x03, 0, 4, 0, 0, 0, 0])),
            ("v2-value-too-long", binary(0x21, 0x11, &[9; 20])),
            ("v2-too-long", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec()),
            ("mqtt", b"\x10\x0c\0\x04MQTT".to_vec()),
        ],
        "websocket-request" => {
            let request = "GET /mqtt?a HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Origin: http://a\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.1\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";
            vec![
                ("granted", format!("{request}\u{2}").into()),
                ("version-8", request.replace("13", "8").into()),
                ("body", request.replace("Origin: http://a", "Transfer-Encoding: chunked").into()),
                ("bare-line-feed", request.replace("\r\nHost", "\nHost").into()),
                ("folded", request.replace("Origin:", " Origin:").into()),
                ("http-1.0", request.replace("1.1", "1.0").into()),
                ("http-0.9", b"GET /\r\n".to_vec()),
                ("post", request.replace("GET", "POST").into()),
                ("long-line", vec![b'A'; 5_000]),
                ("many-fields", request.replace("Origin: http://a", &["x:"; 120].join("\r\n")).into()),
            ]
        }
        "websocket-frames" => vec![
            ("binary", frames(&[(0x82, b"abc"), (0x82, b""), (0x82, b"d")])),
            ("fragments", frames(&[(0x02, b"a"), (0x89, b"ping"), (0x00, b""), (0x80, b"b"), (0x8a, b"")])),
            ("length-16", frames(&[(0x82, &[7; 300])])),
            ("length-64", frames(&[(0x82, &[7; 66_000])])),
            ("close", frames(&[(0x82, b"abc"), (0x88, b"\x03\xe8bye"), (0x82, b"after")])),
            ("close-empty", frames(&[(0x88, b"")])),
            ("close-cut", frames(&[(0x88, b"\x03")])),
            ("text", frames(&[(0x81, b"abc")])),
            ("reserved", frames(&[(0xc2, b"abc")])),
            ("fragment-of-nothing", frames(&[(0x80, b"abc")])),
            ("unmasked", vec![0x82, 0x01, 0x00]),
            ("too-long", vec![0x82, 0xff, 0, 0, 0, 0, 0x20, 0, 0, 1, 1, 1, 1, 1]),
            ("length-2-63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]),
            ("length-too-many-bytes", vec![0x82, 0xfe, 0, 1, 1, 1, 1, 1]),
        ],
        _ => panic!("no such target"),
    };
    seeds.into_iter().map(|(name, bytes)| (name, cut(&bytes))).collect()
}

/// A PROXY header of version 2, and MQTT behind it.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest, b"\x10\x0c"].concat()
}

/// Masked frames with these first bytes.
fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = Vec::new();
    for (first, payload) in frames {
        bytes.push(*first);
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | short as u8),
            length if length < 65_536 => bytes.extend([&[0xfe], &(length as u16).to_be_bytes()[..]].concat()),
            length => bytes.extend([&[0xff], &(length as u64).to_be_bytes()[..]].concat()),
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bytes
}

/// Writes the seeds if that is asked for, once for all tests.
fn update() {
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        if std::env::var_os("UPDATE_CORPUS").is_none() {
            return;
        }
        for (target, _) in targets::ALL {
            let folder = corpus(target);
            fs::create_dir_all(&folder).expect("the corpus can be written");
            for (name, input) in seeds(target) {
                fs::write(folder.join(format!("seed-{name}")), &input).expect("the corpus can be written");
            }
        }
    });
}

#[test]
fn the_seeds_are_those_made_here() {
    update();
    for (target, _) in targets::ALL {
        for (name, input) in seeds(target) {
            let path = corpus(target).join(format!("seed-{name}"));
            let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(kept, input, "{}", path.display());
        }
    }
}

#[test]
fn no_input_of_a_corpus_fails() {
    update();
    for (target, run) in targets::ALL {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus(target)).expect("a corpus for each target") {
            let path = entry.expect("readable").path();
            let input = fs::read(&path).expect("readable");
            // The name of the input that fails has to be in the output.
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{} fails", path.display());
            inputs += 1;
        }
        assert!(inputs >= seeds(target).len(), "{target}: {inputs} inputs");
    }
}
