//! An ordinary user who can write the image seals it, in a machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{GUESTSEAL, on_path, require, run, tool};
use crate::{Layout, kernel, ready};

#[test]
fn an_ordinary_user_seals_and_verifies() {
    if !ready() || !require(on_path("setpriv"), "needs setpriv") {
        return;
    }
    let layout = Layout::new("lvm");
    let folder = layout.folder.path();
    let program = folder.join("guestseal");
    fs::copy(GUESTSEAL, &program).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    tool("chown", [Path::new("-R"), Path::new("65534:65534"), folder]);
    let user = |words: &str| {
        let cache = format!("XDG_CACHE_HOME={}", folder.join("cache").display());
        let start = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "env", &cache];
        let start = start.map(PathBuf::from).into_iter().chain([program.clone()]);
        run("setpriv", start.chain(layout.arguments(words).into_iter().map(PathBuf::from)))
    };
    assert!(kernel().metadata().unwrap().permissions().mode() & 0o004 != 0, "the kernel cannot be read");
    let sealed = user("seal --json").expect(0).result();
    assert_eq!(sealed["attached"]["reason"], "only root can mount on this host");
    assert_eq!(layout.left(), Vec::<String>::new());
    user("verify").expect(0);
    user("seal --isolate never").expect(7);
}
