//! Contexts as they are written, read, and refused.

use super::*;

fn refused(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    fs::write(&path, text).unwrap();
    let error = read::<Content>(&path, File::open(&path).unwrap()).unwrap_err().to_string();
    error.strip_prefix(path.to_str().unwrap()).unwrap().to_owned()
}

#[test]
fn mistakes_have_line_and_column() {
    let wrong = [
        ("contexts:\n  a:\n    unix: /a\n    tpc: b\n", ":4:5: contexts.a: unknown field `tpc`"),
        ("contexts:\n  a:\n    unix: /a\n    tcp: b:1\n", ":3:5: contexts.a: it has `unix` and `tcp`"),
        ("contexts:\n  a: {}\n", ":2:6: contexts.a: it does not say where"),
        ("contexts:\n  a:\n    tcp: b\n", ":3:5: contexts.a: `b` is not a host and a port"),
        ("contexts:\n  a:\n    tcp: b:1\n", ":3:5: contexts.a: it has no `ca`"),
        ("contexts:\n  a: {unix: /a}\n  a: {unix: /b}\n", ":2:3: contexts: `a` is there twice"),
        ("contexts:\n  ../a: {unix: /a}\n", ":2:3: contexts: `../a` is no name"),
        ("contexts: [\n", ":"),
    ];
    for (text, expected) in wrong {
        let told = refused(text);
        assert!(told.starts_with(expected), "{text}{told}");
    }
}

#[test]
fn the_host_of_the_address_is_whom_the_certificate_is_for() {
    let tcp = |address: &str| Tcp {
        address: address.into(),
        ca: "ca".into(),
        certificate: "crt".into(),
        key: "key".into(),
        server_name: None,
    };
    assert_eq!(tcp("box.example.org:7443").server_name(), "box.example.org");
    assert_eq!(tcp("[2001:db8::1]:7443").server_name(), "2001:db8::1");
    assert_eq!(Tcp { server_name: Some("box".into()), ..tcp("192.0.2.1:1") }.server_name(), "box");
    for bad in ["box", "box:", ":1", "box:0", "box:x", "2001:db8::1:7443"] {
        assert!(check_address(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_entry_is_written_as_it_is_read() {
    let text = "tcp: box:1\nca: a\ncertificate: b\nkey: c\nserver_name: d\ntoken_file: /e\n";
    let entry: Entry = serde_yaml::from_str(text).unwrap();
    assert_eq!(ready(&entry).unwrap(), text);
}
