//! Labels of SELinux: what is made, replaced, copied or moved has that of its place, held against a reader of
//! file_contexts(5) in another language.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::{GUESTSEAL, run, tool};
use crate::{Tree, ready};

const POLICY: &str = "/etc/selinux/targeted/contexts/files";

/// Runs the other reader.
fn other(what: &str, root: &Path) -> String {
    let flat = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/flat");
    let (script, contexts) = (flat.join("label.py"), flat.join("file_contexts"));
    let words =
        [script.as_path(), Path::new(what), root, &contexts, Path::new("/srv/home"), Path::new("/home")];
    tool("python3", words)
}

fn label(path: &Path) -> String {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, "security.selinux", &mut value).unwrap();
    String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned()
}

#[test]
fn what_is_made_has_the_label_of_its_place() {
    if !ready() {
        return;
    }
    let tree = Tree::new("fedora");
    let policy = tree.at(POLICY);
    fs::create_dir_all(&policy).unwrap();
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/flat/file_contexts"),
        policy.join("file_contexts"),
    )
    .unwrap();
    fs::write(policy.join("file_contexts.subs_dist"), "/srv/home /home\n").unwrap();
    fs::create_dir_all(tree.at("/opt/old/sub")).unwrap();
    for file in ["/opt/old/file", "/opt/old/sub/file", "/opt/old/custom", "/etc/motd"] {
        fs::write(tree.at(file), "old\n").unwrap();
    }
    symlink("file", tree.at("/opt/old/link")).unwrap();
    other("set", &tree.root);
    assert_eq!(other("check", &tree.root), "");
    let custom = "system_u:object_r:custom_t:s0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.at("/opt/old/custom"), "security.selinux", custom.as_bytes(), flags).unwrap();

    let host = tree.root.parent().unwrap().join("host");
    fs::create_dir_all(host.join("in")).unwrap();
    fs::write(host.join("in/file"), "of the host\n").unwrap();
    symlink("file", host.join("in/link")).unwrap();
    let host = host.to_str().unwrap();
    let words: Vec<String> = [
        "--operations",
        "customize,ssh-hostkeys",
        "--hostname",
        "web",
        "--timezone",
        "Europe/Berlin",
        "--mkdir",
        "/srv/site/deep",
        "--write",
        "/srv/site/index:first",
        "--link",
        "/srv/site/index:/srv/site/link:/etc/linked",
        "--copy-in",
        "HOST/in:/srv/site",
        "--upload",
        "HOST/in/file:/etc/motd",
        "--copy",
        "/etc/motd:/srv/site/motd",
        "--copy",
        "/srv/site/in:/opt",
        "--move",
        "/opt/old:/srv/site/old",
        "--firstboot-command",
        "true",
    ]
    .map(|word| word.replace("HOST", host))
    .to_vec();
    let sealed = ["seal".into(), "--tree".into(), tree.root.clone()].into_iter();
    run(GUESTSEAL, sealed.chain(words.into_iter().map(PathBuf::from))).expect(0);
    assert_eq!(label(&tree.at("/srv/site/link")), "system_u:object_r:httpd_sys_link_t:s0");
    assert_eq!(label(&tree.at("/srv/site/old/link")), "system_u:object_r:httpd_sys_link_t:s0");
    let moved = "/srv/site/old/custom";
    assert_eq!(label(&tree.at(moved)), custom, "what somebody labelled himself");
    assert_eq!(
        other("check", &tree.root),
        format!("{moved} {custom} and not system_u:object_r:httpd_sys_content_t:s0\n")
    );
}
