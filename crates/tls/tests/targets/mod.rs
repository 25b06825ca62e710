//! What the fuzz targets check, as plain functions: `fuzz/` feeds them what a fuzzer makes up, `corpus.rs` beside this what is in
//! the corpora.

use pantala_tls::{ClientCertificates, Names, Pem, Settings, UserNameFrom, names};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

#[allow(dead_code, reason = "the fuzz targets are one program each")]
pub const ALL: [Target; 2] = [("certificate", certificate), ("pem", pem)];

/// A certificate in DER: a User Name that comes of it is a safe one, and is among its names.
pub fn certificate(der: &[u8]) {
    let all = Names::read(der);
    assert_eq!(all.is_ok(), names::not_after(der).is_ok());
    assert_eq!(names::user_name(UserNameFrom::No, der), Ok(None));
    for from in [UserNameFrom::CommonName, UserNameFrom::Subject, UserNameFrom::SubjectAlternativeName] {
        let Ok(name) = names::user_name(from, der) else { continue };
        let name = name.expect("it is asked for");
        let all = all.as_ref().expect("it can be read");
        assert!(!name.is_empty() && name.len() <= 65_535);
        assert!(!name.contains(|it: char| it.is_control() || matches!(it, '*' | '+' | '#')), "{name:?}");
        match from {
            UserNameFrom::CommonName => assert_eq!(all.common_name.as_ref(), Some(&name)),
            UserNameFrom::Subject => assert!(all.subject == name && name.is_ascii()),
            _ => assert_eq!(all.subject_alternative_names, [name]),
        }
    }
}

/// A file: as a certificate with its key, as authorities, and as a list of revoked certificates. An error is one line, and shows
/// nothing of the file.
pub fn pem(bytes: &[u8]) {
    let file = Pem { name: "file".to_owned(), bytes: bytes.to_vec() };
    let shown = format!("{file:?}");
    assert!(!shown.contains("bytes"), "{shown}");
    let clients = ClientCertificates {
        authorities: vec![file.clone()],
        required: true,
        revocation_lists: vec![file.clone()],
        ..ClientCertificates::default()
    };
    let own = vec![(file.clone(), file)];
    for client_certificates in [None, Some(clients)] {
        let settings = Settings { certificates: own.clone(), client_certificates, ..Settings::default() };
        if let Err(error) = settings.build() {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 500, "{text}");
            assert!(!text.contains("-----"), "{text}");
        }
    }
}
