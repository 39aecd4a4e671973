//! An ordinary user who can write the image seals it, in a machine; also as root of a container that has no power over
//! its host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{GUESTSEAL, Ran, on_path, require, run, tool};
use crate::{Layout, kernel, ready};

/// A layout that belongs to nobody, with guestseal beside it: the build may be in a folder of root's.
struct Nobodys {
    layout: Layout,
    program: PathBuf,
}

impl Nobodys {
    fn new() -> Option<Self> {
        if !ready() || !require(on_path("setpriv"), "needs setpriv") {
            return None;
        }
        assert!(kernel().metadata().unwrap().permissions().mode() & 0o004 != 0, "the kernel cannot be read");
        let layout = Layout::new("lvm");
        let folder = layout.folder.path();
        let program = folder.join("guestseal");
        fs::copy(GUESTSEAL, &program).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        tool("chown", [Path::new("-R"), Path::new("65534:65534"), folder]);
        Some(Self { layout, program })
    }

    /// The path of a folder beside the disks.
    fn folder(&self, name: &str) -> String {
        self.layout.folder.path().join(name).display().to_string()
    }

    /// Runs guestseal as nobody, by way of another command.
    #[track_caller]
    fn guestseal(&self, through: &[&str], words: &str) -> Ran {
        let start = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
        let start = start.iter().chain(through).map(PathBuf::from).chain([self.program.clone()]);
        run("setpriv", start.chain(self.layout.arguments(words).into_iter().map(PathBuf::from)))
    }
}

#[test]
fn an_ordinary_user_seals_and_verifies() {
    let Some(nobodys) = Nobodys::new() else { return };
    let cache = format!("XDG_CACHE_HOME={}", nobodys.folder("cache"));
    let user = |words: &str| nobodys.guestseal(&["env", &cache], words);
    let sealed = user("seal --json").expect(0).result();
    assert_eq!(sealed["attached"]["reason"], "only root can mount on this host");
    assert_eq!(nobodys.layout.left(), Vec::<String>::new());
    user("verify").expect(0);
    user("seal --isolate never").expect(7);
}

/// Its user is root there and nobody outside; /proc is that of the host, as unshare(1) leaves it, and there is no home.
#[test]
fn root_of_a_user_namespace_seals_and_verifies() {
    let Some(nobodys) = Nobodys::new() else { return };
    let namespace = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"];
    let test = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let may = run("setpriv", test.iter().chain(&namespace).chain(&["true"]));
    if !require(may.code == 0, "needs user namespaces for ordinary users") {
        return;
    }
    let temporary = nobodys.folder("temporary");
    tool("install", ["-d", "-o", "65534", "-g", "65534", "-m", "700", &temporary]);
    let (home, temporary) = ("HOME=/nonexistent", format!("TMPDIR={temporary}"));
    let through = [&["env", home, &temporary], &namespace[..]].concat();
    let sealed = nobodys.guestseal(&through, "seal --json").expect(0).result();
    assert_eq!(sealed["attached"]["reason"], "root of a user namespace cannot mount disks");
    assert_eq!(nobodys.layout.left(), Vec::<String>::new());
    nobodys.guestseal(&through, "verify --isolate vm").expect(0);
    assert!(Path::new(&nobodys.folder("temporary/guestseal-0")).is_dir(), "the cache is elsewhere");
}
