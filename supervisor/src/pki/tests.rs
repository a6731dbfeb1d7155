//! Certificates from their making to their end, on real files.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use supervisor_core::ids::Name;
use tempfile::TempDir;

use super::{authority::Issued, *};
use crate::role::{Grant, Role};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn begun() -> (TempDir, Files) {
    let home = tempfile::tempdir().unwrap();
    let files = Files::of(home.path());
    Authority::init(&files, &["box.example.org".into(), "192.0.2.7".into()]).unwrap();
    (home, files)
}

fn wish(name: &str, grant: Grant) -> Wish {
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    Wish { subject: name.parse().unwrap(), grant, valid_for: YEAR, request: request.pem().unwrap() }
}

fn issue(files: &Files, name: &str) -> Issued {
    Authority::open(files).unwrap().issue(&wish(name, Grant::Viewer)).unwrap()
}

fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_made_once_and_the_servers_certificate_each_time() {
    let (_home, files) = begun();
    let (ca, first) = own(&files);
    let again = Authority::init(&files, &[]).unwrap();
    let (same, second) = own(&files);
    assert_eq!(ca, same);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.hosts, ["localhost", "127.0.0.1", "::1", "box.example.org", "192.0.2.7"]);
    assert_eq!(second, again.server);
    assert_ne!(first.serial, second.serial);
    assert_eq!(second.hosts, ["localhost", "127.0.0.1", "::1"]);
    assert_eq!([files.ca_key(), files.server()].map(|path| mode(&path)), [0o600; 2]);
    assert_eq!(mode(&files.0), 0o700);
}

#[test]
fn a_certificate_says_what_was_wished_for() {
    let (_home, files) = begun();
    let authority = Authority::open(&files).unwrap();
    for role in Role::ALL {
        let instance = (role == Role::Rescue).then(|| Name::new("spare").unwrap());
        let grant = Grant::new(role, instance).unwrap();
        let issued = authority.issue(&wish("a.b-c_d@e", grant.clone())).unwrap();
        assert_eq!((issued.facts.name.as_str(), issued.facts.grant.as_ref()), ("a.b-c_d@e", Some(&grant)));
        Trust::load(&files).unwrap().check(&chain(&issued)).unwrap();
    }
    let listed = list(&files).unwrap();
    assert_eq!(listed.len(), Role::ALL.len());
    assert!(listed.iter().all(|one| one.revoked.is_none()));
}

#[test]
fn what_cannot_be_in_a_certificate_is_refused() {
    let (_home, files) = begun();
    let authority = Authority::open(&files).unwrap();
    for name in ["", "-a", "a b", "ä", "a\n", &"a".repeat(65)] {
        assert!(matches!(name.parse::<Subject>(), Err(PkiError::Unfit(_))), "{name}");
    }
    for (valid_for, request) in [
        (Duration::from_secs(1), None),
        (YEAR * 11, None),
        (YEAR, Some("nonsense".to_owned())),
        (YEAR, Some("x".repeat(20 << 10))),
    ] {
        let wish = wish("a", Grant::Viewer);
        let request = request.unwrap_or(wish.request.clone());
        let refused = authority.issue(&Wish { valid_for, request, ..wish });
        assert!(matches!(refused, Err(PkiError::Unfit(_))), "{refused:?}");
    }
    for host in ["", "a b", "-a.org", "a..b", "*.*.org", &"a".repeat(64)] {
        let refused = Authority::init(&files, &[host.into()]);
        assert!(matches!(refused, Err(PkiError::Unfit(_))), "{host}: {refused:?}");
    }
    assert!(list(&files).unwrap().is_empty());
}

#[test]
fn one_that_was_taken_back_is_not_good_and_the_others_are() {
    let (_home, files) = begun();
    let (mine, other) = (issue(&files, "mine"), issue(&files, "other"));
    let again = issue(&files, "mine");
    let authority = Authority::open(&files).unwrap();
    let serial = Selection::Serial(mine.facts.serial.clone());
    assert_eq!(authority.revoke(&serial).unwrap().len(), 1);
    assert!(matches!(authority.revoke(&serial), Err(PkiError::Unknown(_))));
    let is_good = |issued: &Issued| Trust::load(&files).unwrap().check(&chain(issued)).is_ok();
    assert_eq!([&mine, &other, &again].map(is_good), [false, true, true]);
    authority.revoke(&Selection::Of("mine".parse().unwrap())).unwrap();
    assert_eq!([&mine, &other, &again].map(is_good), [false, true, false]);
    // A new certificate for the server lets nobody in again.
    Authority::init(&files, &[]).unwrap();
    assert_eq!([&mine, &other, &again].map(is_good), [false, true, false]);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let (_home, files) = begun();
    let (_elsewhere, others) = begun();
    let refused = |file: PathBuf| {
        let whole = fs::read(&file).unwrap();
        fs::copy(others.0.join(file.file_name().unwrap()), &file).unwrap();
        let told = Trust::load(&files).map(drop).unwrap_err();
        fs::write(&file, whole).unwrap();
        told.to_string()
    };
    assert!(refused(files.crl()).contains("no authority in `ca.crt` has signed it"));
    assert!(refused(files.ca()).contains("ca.crl"));
    Trust::load(&files).unwrap();
    fs::copy(others.ca_key(), files.ca_key()).unwrap();
    assert!(matches!(Authority::open(&files), Err(PkiError::Damaged { .. })));
    fs::remove_file(files.ca_key()).unwrap();
    assert!(matches!(Authority::init(&files, &[]), Err(PkiError::NoKey { .. })));
}

#[test]
fn a_list_of_revoked_certificates_that_is_lost_is_not_made_anew() {
    let (_home, files) = begun();
    fs::remove_file(files.crl()).unwrap();
    assert!(matches!(Authority::init(&files, &[]), Err(PkiError::Missing { .. })));
    assert!(matches!(Trust::load(&files), Err(PkiError::Missing { .. })));
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let (_home, files) = begun();
    for path in [files.ca_key(), files.server()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    assert!(matches!(Authority::open(&files), Err(PkiError::Exposed { .. })));
    assert!(matches!(Trust::load(&files), Err(PkiError::Exposed { .. })));
}
