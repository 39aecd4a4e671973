use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;

fn remote(text: &str) -> Remote {
    match parse(text).unwrap() {
        Name::Remote(remote) => remote,
        Name::Path(path) => panic!("{text} is the path {}", path.display()),
    }
}

fn node(text: &str) -> Value {
    remote(text).node
}

fn refused(text: &str) -> Error {
    parse(text).expect_err(text)
}

#[test]
fn paths_are_no_uris() {
    for path in ["disk.qcow2", "/srv/a", "./rbd:x", "a:b", "://x", "a/b://c", "", "nbd:host:10809"] {
        assert_eq!(parse(path).unwrap(), Name::Path(path.into()));
    }
    assert_eq!(parse("file:///srv/a%20b").unwrap(), Name::Path("/srv/a b".into()));
    assert_eq!(refused("file://host/a").kind(), ErrorKind::Usage);
}

#[test]
fn nbd_by_host_and_by_socket() {
    let inet = |host: &str, port: &str| json!({ "type": "inet", "host": host, "port": port });
    assert_eq!(node("nbd://h/x"), json!({ "driver": "nbd", "server": inet("h", "10809"), "export": "x" }));
    assert_eq!(node("nbd://h:99")["server"], inet("h", "99"));
    assert_eq!(node("nbd://h")["export"], "");
    assert_eq!(node("nbd://[::1]:9/a/b")["server"], inet("::1", "9"));
    assert_eq!(node("nbd://h/a%20b")["export"], "a b");
    let unix = json!({ "type": "unix", "path": "/run/a b" });
    for text in
        ["nbd+unix:///x?socket=/run/a%20b", "nbd:///x?socket=/run/a b", "nbd+unix:///?socket=/run/a b"]
    {
        assert_eq!(node(text)["server"], unix, "{text}");
    }
    for text in [
        "nbd://",
        "nbd+unix:///x",
        "nbd+unix:///x?socket=run",
        "nbd://h/x?socket=/a",
        "nbd://h/x?tls=1",
        "nbd://h:0/x",
        "nbd://h:99999/",
        "nbd://[::1/x",
        "nbd://u@h/x",
        "nbd://h/%zz",
        "nbd://h/x#y",
        "nbd://a b/x",
    ] {
        assert_eq!(refused(text).kind(), ErrorKind::Usage, "{text}");
    }
}

#[test]
fn ssh_with_and_without_a_user() {
    let full = node("ssh://bob@h:2222/srv/a%25");
    assert_eq!((&full["user"], &full["path"]), (&json!("bob"), &json!("/srv/a%")));
    assert_eq!(full["server"], json!({ "host": "h", "port": "2222" }));
    assert_eq!(full["host-key-check"], json!({ "mode": "known_hosts" }));
    let short = remote("ssh://h/a");
    assert_eq!((short.node.get("user"), short.shown.as_str()), (None, "ssh://h/a"));
    for text in ["ssh://h", "ssh://h/", "ssh:///a", "ssh://h/a?host_key_check=no"] {
        assert_eq!(refused(text).kind(), ErrorKind::Usage, "{text}");
    }
}

#[test]
fn rbd_in_both_forms() {
    let plain = json!({ "driver": "rbd", "pool": "p", "image": "i" });
    assert_eq!(node("rbd:p/i"), plain);
    assert_eq!(node("rbd:///p/i"), plain);
    let full = node(r"rbd:p/n/i\:x@s:id=bob:conf=/etc/c\:d");
    let wanted = json!({ "driver": "rbd", "pool": "p", "namespace": "n", "image": "i:x", "snapshot": "s",
        "user": "bob", "conf": "/etc/c:d" });
    assert_eq!(full, wanted);
    assert_eq!(node("rbd://bob@h/p/i")["server"], json!([{ "host": "h", "port": "6789" }]));
    for text in
        ["rbd:", "rbd:p", "rbd:p/", "rbd:/i", "rbd:p/i@a@b", r"rbd:p/i\", "rbd:p/i:mon_host=x", "rbd:a/b/c/d"]
    {
        assert_eq!(refused(text).kind(), ErrorKind::Usage, "{text}");
    }
}

#[test]
fn a_web_server_gets_no_keys() {
    let plain = remote("https://h:8443/a/b%20c");
    assert_eq!((plain.shown.as_str(), plain.driver()), ("https://h:8443/a/b%20c", "https"));
    assert_eq!(plain.node["url"], plain.shown);
    let signed = refused("https://h/a?Signature=hunter2");
    assert!(!format!("{} {:?}", signed.chain(), signed.what_to_do()).contains("hunter2"));
    for text in [
        "https://h/a?b",
        "https://h/a#b",
        "https://",
        "https:///a",
        "http://h/a b",
        "http://u@h/a",
        "http://h:x/a",
    ] {
        assert_eq!(refused(text).kind(), ErrorKind::Usage, "{text}");
    }
}

#[test]
fn other_kinds_are_told_from_paths() {
    for text in ["ftp://h/a", "iscsi://h/iqn", "gluster://h/v/i", "s3://b/k"] {
        let error = refused(text);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
        assert!(error.what_to_do().unwrap().contains("nbd://"));
    }
}

#[test]
fn no_error_quotes_a_password() {
    for text in [
        "ssh://bob:hunter2@h/a",
        "ssh://bob%3Ahunter2@h/a",
        "https://bob:hunter2@h/a",
        "nbd://x:hunter2@h/a",
        "rbd:p/i:key=hunter2",
        "rbd://bob:hunter2@h/p/i",
        "http://bob:hunter2@/",
        "ftp://bob:hunter2@h/a",
        "ssh://bob:hunter2@h:x/a#b",
    ] {
        let error = refused(text);
        let said = format!("{} {:?}", error.chain(), error.what_to_do());
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn no_name_has_a_zero_byte() {
    for text in ["rbd:p/i\0", "http://h/\0", "ssh://h/%00", "a\0b"] {
        assert_eq!(refused(text).kind(), ErrorKind::Usage, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_ends_in_an_answer(text in "(nbd|nbd\\+unix|ssh|rbd|http|https|file|x)(:|://).{0,60}") {
        if let Ok(Name::Remote(Remote { shown, node })) = parse(&text) {
            prop_assert!(node["driver"].is_string() && !shown.is_empty());
            prop_assert!(!node.to_string().contains("\\u0000"));
        }
    }

    #[test]
    fn any_path_of_a_server_comes_through(path in "/[ -~]{1,40}") {
        let written: String = path.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let uri = format!("ssh://h/{}", &written[3..]);
        prop_assert_eq!(&node(&uri)["path"], &json!(path));
    }
}
