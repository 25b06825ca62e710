//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds and inputs that once failed, which stay for ever. With `UPDATE_CORPUS=1` the seeds are
//! made anew here; each time they have other keys.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.signed_by(&key, &issuer).unwrap()
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let named = |name: &'static str| {
        move |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, name)
    };
    match target {
        "certificate" => vec![
            ("name", signed(&named("sensor-7")).der().to_vec()),
            ("wildcard", signed(&named("*.plant")).der().to_vec()),
            ("zero", signed(&named("a\0b")).der().to_vec()),
            ("alternative", signed(&|params| params.subject_alt_names = vec![dns("a.example")]).der().to_vec()),
            (
                "alternatives",
                signed(&|params| {
                    let address = SanType::IpAddress("2001:db8::7".parse().unwrap());
                    let uri = SanType::URI("spiffe://plant/sensor".try_into().unwrap());
                    params.subject_alt_names = vec![dns("a.example"), address, uri];
                })
                .der()
                .to_vec(),
            ),
            (
                "many-attributes",
                signed(&|params| {
                    params.distinguished_name.push(DnType::CountryName, "DE");
                    params.distinguished_name.push(DnType::OrganizationName, "Plant, \"One\"");
                    params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "own");
                })
                .der()
                .to_vec(),
            ),
        ],
        "pem" => {
            let certificate = signed(&named("broker")).pem();
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2024, 1, 1),
                next_update: date_time_ymd(2044, 1, 1),
                crl_number: SerialNumber::from(1_u64),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&issuer).unwrap().pem().unwrap();
            let all = format!("{certificate}{}{}{list}", issuer.pem(), key.serialize_pem());
            vec![
                ("all", all.clone().into()),
                ("no-key", certificate.clone().into()),
                ("no-list", format!("{certificate}{}", key.serialize_pem()).into()),
                ("cut", all[..all.len() / 2].into()),
                ("crlf", all.replace('\n', "\r\n").into()),
                ("encrypted", all.replace("PRIVATE", "ENCRYPTED PRIVATE").into()),
                ("empty", Vec::new()),
            ]
        }
        _ => panic!("no such target"),
    }
}

#[test]
fn the_targets_hold_over_their_corpora() {
    for (target, check) in targets::ALL {
        let folder = corpus(target);
        let wanted = seeds(target);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (name, input) in &wanted {
                fs::write(folder.join(format!("seed-{name}")), input).unwrap();
            }
        }
        for (name, input) in &wanted {
            assert!(folder.join(format!("seed-{name}")).is_file(), "seed-{name} of {target}");
            check(input);
        }
        for entry in fs::read_dir(&folder).unwrap() {
            check(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

/// What a fuzzer would begin with: a byte changed, at each place.
#[test]
fn the_targets_hold_with_any_byte_changed() {
    for (target, check) in targets::ALL {
        for (_, input) in seeds(target) {
            for place in 0..input.len() {
                // All of a certificate's bytes, and some of a file's, which takes longer.
                if target == "pem" && place % 41 != 0 {
                    continue;
                }
                let mut changed = input.clone();
                changed[place] ^= 1 << (place % 8);
                check(&changed);
            }
        }
    }
}
