//! Certificates that are good, and all the ways in which they are not.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::clock::{Clock, SystemClock};

struct Files {
    _dir: TempDir,
    config: TlsConfig,
}

impl Files {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let config = TlsConfig { cert, key, handshake_timeout: handshake_timeout() };
        let files = Self { _dir: dir, config };
        files.write(&made(-1, 1));
        files
    }

    fn write(&self, (cert, key): &(String, String)) {
        std::fs::write(&self.config.cert, cert).expect("written");
        std::fs::write(&self.config.key, key).expect("written");
    }

    fn open(&self) -> Result<Certificates, TlsError> {
        Certificates::open(&self.config, true, Arc::new(SystemClock::new()))
    }

    fn refusal(&self) -> String {
        self.open().err().expect("a refusal").to_string()
    }
}

/// A certificate that is good from so many days on, until so many, and its key.
fn made(from: i64, until: i64) -> (String, String) {
    let now = SystemClock::new().now().to_datetime().expect("a date");
    let day = |days| -> OffsetDateTime { now + Duration::days(days) };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (day(from), day(until));
    (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
}

#[test]
fn a_pair_is_loaded_and_the_next_one_takes_its_place() {
    let files = Files::new();
    let certificates = files.open().expect("it is good");
    let before = certificates.current().get_inner();
    files.write(&made(-1, 1));
    certificates.replace(certificates.renewed().expect("so is the next"));
    assert!(!Arc::ptr_eq(&before, &certificates.current().get_inner()));
}

#[test]
fn its_end_is_known() {
    let files = Files::new();
    let now = SystemClock::new().now();
    let end = Certificates::good_until(&files.config, now).expect("it is good");
    let day = std::time::Duration::from_secs(24 * 3600);
    assert!(now.plus(day / 2) < end && end < now.plus(day * 2), "{end}");
    files.write(&made(-9, -1));
    assert!(Certificates::good_until(&files.config, now).is_err());
}

#[test]
fn files_are_named_when_they_cannot_be_used() {
    let files = Files::new();
    let (cert, key) = made(-1, 1);
    for (cert, key, want) in [
        (&*cert, "", "key.pem: holds no private key in PEM"),
        ("", &*key, "cert.pem: holds no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &*key, "cert.pem: is not"),
        (
            &*cert,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "server.tls.key",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &*key,
            "server.tls.cert",
        ),
    ] {
        files.write(&(cert.to_owned(), key.to_owned()));
        let refusal = files.refusal();
        assert!(refusal.contains(want), "{refusal}");
        assert!(!refusal.contains("AAAA"), "{refusal}");
    }
    std::fs::remove_file(&files.config.key).expect("removed");
    files.write(&(cert, key));
    std::fs::remove_file(&files.config.cert).expect("removed");
    assert!(files.refusal().contains("server.tls.cert: "), "{}", files.refusal());
    assert!(files.refusal().contains("cannot be read"), "{}", files.refusal());
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let files = Files::new();
    files.write(&(made(-1, 1).0, made(-1, 1).1));
    let refusal = files.refusal();
    assert!(refusal.contains("does not belong to the certificate"), "{refusal}");
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let files = Files::new();
    files.write(&made(-9, -1));
    assert!(files.refusal().contains("cert.pem expired at "), "{}", files.refusal());
    files.write(&made(1, 9));
    assert!(files.refusal().contains("is not valid before "), "{}", files.refusal());
}

#[test]
fn a_renewal_in_vain_changes_nothing() {
    let files = Files::new();
    let certificates = files.open().expect("it is good");
    let before = certificates.current().get_inner();
    let stays = |what: &str| {
        assert!(certificates.renewed().is_err(), "{what}");
        assert!(Arc::ptr_eq(&before, &certificates.current().get_inner()), "{what}");
    };
    files.write(&made(-9, -1));
    stays("expired");
    files.write(&(made(-1, 1).0, made(-1, 1).1));
    stays("of two pairs");
    files.write(&("".into(), "".into()));
    stays("empty");
    std::fs::remove_file(&files.config.cert).expect("removed");
    stays("gone");
    let made = std::process::Command::new("mkfifo").arg(&files.config.cert).status();
    assert!(made.expect("mkfifo").success());
    stays("a FIFO that nobody writes into");
    assert!(files.refusal().contains("cannot be read: it is not a regular file"));
}
