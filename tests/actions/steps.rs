//! The steps of a customisation, each on a small tree.

use std::os::unix::fs::PermissionsExt;

use guestseal::guest::change::{Change, Supply};
use guestseal::operation::BUILTIN;
use guestseal::payload::{Source, gather};
use guestseal::plan::Planned;

use super::*;

struct Host<'a>(&'a [Source]);

impl Supply for Host<'_> {
    fn piece(&mut self, source: u32, offset: u64) -> Result<Vec<u8>> {
        self.0[source as usize].piece(offset)
    }
}

impl Tree {
    /// Gathers what the step brings, looks and makes the changes.
    fn try_step(&self, action: &str) -> Result<Vec<String>> {
        let (_, text) = BUILTIN.iter().find(|(name, _)| *name == "customize-steps").unwrap();
        let mut operation = parse(text, "customize-steps").unwrap();
        operation.actions = vec![verb(action)];
        let mut planned = Planned { operation, settings: Settings::default(), sources: Vec::new() };
        gather(&mut planned, Some(&self.at("/host")))?;
        let findings = self.look(&planned.operation.actions[0], &planned.settings)?;
        let root = GuestRoot::open(self.0.path()).unwrap();
        for change in &findings.changes {
            change.make_with(&root, &mut Host(&planned.sources))?;
        }
        let told = |change: &Change| format!("{:?} {}", change.verb(), change.path().display());
        Ok(findings.changes.iter().map(told).collect())
    }

    #[track_caller]
    fn step(&self, action: &str) -> Vec<String> {
        self.try_step(action).unwrap_or_else(|error| panic!("{action}: {}", error.chain()))
    }

    #[track_caller]
    fn refuses_step(&self, action: &str, words: &str) {
        let error = self.try_step(action).expect_err(action);
        assert!(error.chain().contains(words), "{action}: {}", error.chain());
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }
}

fn one(verb: &str, path: &str) -> String {
    format!("[action.{verb}]\npath = '{path}'\n")
}

fn two(verb: &str, from: impl AsRef<Path>, to: &str) -> String {
    format!("[action.{verb}]\nfrom = '{}'\nto = '{to}'\n", from.as_ref().display())
}

#[test]
fn lines_are_appended_and_edited_where_they_stand() {
    let tree = Tree::new(&[("/etc/hosts", "a"), ("/etc/link", "-> hosts"), ("/etc/folder/", "")]);
    let append = |path: &str| format!("[action.append-line]\npath = '{path}'\nline = 'b c'\n");
    assert_eq!(tree.step(&append("/etc/link")), ["Write /etc/hosts"]);
    tree.step(&append("/etc/hosts"));
    assert_eq!(tree.text("/etc/hosts"), "a\nb c\nb c\n");
    tree.step(&append("/etc/new"));
    assert_eq!((tree.text("/etc/new").as_str(), tree.mode("/etc/new")), ("b c\n", 0o644));
    tree.refuses_step(&append("/none/new"), "/none does not exist");
    tree.refuses_step(&append("/etc/folder"), "not a regular file");

    let edit =
        |path: &str, text: &str| format!("[action.substitute]\npath = '{path}'\nexpression = '{text}'\n");
    fs::set_permissions(tree.at("/etc/hosts"), PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(tree.step(&edit("/etc/link", "s/^b (.)/$1/")), ["Write /etc/hosts"]);
    assert_eq!((tree.text("/etc/hosts").as_str(), tree.mode("/etc/hosts")), ("a\nc\nc\n", 0o640));
    assert!(tree.step(&edit("/etc/hosts", "s/nothing//")).is_empty());
    tree.refuses_step(&edit("/etc/none", "s/a/b/"), "/etc/none does not exist");
    tree.refuses_step(&edit("/etc/folder", "s/a/b/"), "not a regular file");
}

#[test]
fn files_get_marks_places_and_ends() {
    let files =
        [("/a/file", "12"), ("/a/.hidden", "1"), ("/a/deep/x", "3"), ("/b/", ""), ("/l", "-> /a/file")];
    let tree = Tree::new(&files);
    assert_eq!(tree.step("[action.chmod]\npath = '/l'\nmode = '4711'\n"), ["Mode /a/file"]);
    assert_eq!(tree.mode("/a/file"), 0o4711);
    assert!(tree.step("[action.chmod]\npath = '/l'\nmode = '4711'\n").is_empty());
    tree.refuses_step("[action.chmod]\npath = '/none'\nmode = '0711'\n", "/none does not exist");
    let own = format!("uid = {}\ngid = {}\n", nix::unistd::getuid(), nix::unistd::getgid());
    assert!(tree.step(&format!("[action.chown]\npath = '/l'\n{own}")).is_empty());
    if nix::unistd::getuid().is_root() {
        assert_eq!(tree.step("[action.chown]\npath = '/l'\nuid = 12\ngid = 34\n"), ["Owner /a/file"]);
        assert_eq!(fs::metadata(tree.at("/a/file")).unwrap().gid(), 34);
    }
    assert_eq!(tree.step(&two("copy", "/a", "/b")), ["Copy /b/a"]);
    assert_eq!(tree.text("/b/a/deep/x"), "3");
    assert_eq!(tree.step(&two("copy", "/l", "/b/m")), ["Copy /b/m"]);
    assert_eq!(fs::read_link(tree.at("/b/m")).unwrap(), Path::new("/a/file"));
    assert_eq!(tree.step(&two("move", "/b/a/file", "/b")), ["Move /b/file"]);
    // Giving it to somebody else took the set-id bit off, as chown(2) does.
    assert!(!tree.has("/b/a/file") && tree.mode("/b/file") & 0o777 == 0o711);
    tree.refuses_step(&two("move", "/a", "/a/deep"), "into itself");
    tree.refuses_step(&two("copy", "/none", "/b"), "/none does not exist");
    tree.refuses_step(&two("copy", "/a", "/none/x"), "/none does not exist");

    assert_eq!(tree.step(&one("mkdir", "/b/x/y")), ["Create /b/x", "Create /b/x/y"]);
    assert!(tree.mode("/b/x/y") == 0o755 && tree.step(&one("mkdir", "/b/x/y")).is_empty());
    tree.refuses_step(&one("mkdir", "/b/file/y"), "not a folder");
    assert_eq!(tree.step(&one("touch", "/b/new")), ["Write /b/new"]);
    assert_eq!(tree.step(&one("touch", "/b/new")), ["Touch /b/new"]);
    tree.refuses_step(&one("touch", "/b"), "not a regular file");
    assert_eq!(tree.step(&one("empty", "/b/file")), ["Truncate /b/file"]);
    tree.refuses_step(&one("empty", "/b"), "not a regular file");
    tree.refuses_step(&one("empty", "/none"), "/none does not exist");
    let all = format!("{}recursive = true\n", one("empty", "/b/a"));
    assert_eq!(tree.step(&all), ["Truncate /b/a/.hidden", "Truncate /b/a/deep/x"]);
    assert_eq!(tree.step(&one("scrub", "/b/new")), ["Remove /b/new"]);
    tree.refuses_step(&one("scrub", "/b"), "not a regular file");
    tree.refuses_step(&one("scrub", "/none"), "/none does not exist");
    // As the shell has it: a star matches no dot at the beginning of a name.
    assert_eq!(tree.step(&one("delete", "/a/*")), ["Remove /a/deep", "Remove /a/file"]);
    assert!(tree.has("/a/.hidden") && tree.step(&one("delete", "/none/*")).is_empty());
    assert_eq!(tree.step(&one("delete", "/a")), ["Remove /a"]);
    assert_eq!(tree.step("[action.link]\npath = '/b'\ntarget = '/b/file'\ninto = true\n"), ["Link /b/file"]);
}

#[test]
fn files_of_the_host_come_with_their_marks() {
    let tree = Tree::new(&[
        ("/host/one", "first"),
        ("/host/tree/sub/two", "second"),
        ("/host/tree/link", "-> sub/two"),
        ("/srv/usr/", ""),
        ("/srv/sub", "-> usr"),
        ("/lib/", ""),
    ]);
    fs::set_permissions(tree.at("/host/one"), PermissionsExt::from_mode(0o2750)).unwrap();
    assert_eq!(tree.step(&two("upload", tree.at("/host/one"), "/srv")), ["Write /srv/one"]);
    assert_eq!((tree.text("/srv/one").as_str(), tree.mode("/srv/one")), ("first", 0o2750));
    assert_eq!(tree.step(&two("upload", tree.at("/host/one"), "/srv/other")), ["Write /srv/other"]);
    tree.refuses_step(&two("upload", tree.at("/host/one"), "/none/x"), "/none does not exist");
    tree.refuses_step(&two("upload", tree.at("/host/none"), "/srv"), "--upload cannot take");
    tree.refuses_step(&two("upload", tree.at("/host/tree"), "/srv"), "not a regular file");
    let came = tree.step(&two("copy-in", tree.at("/host/tree"), "/srv"));
    let wanted =
        ["Create /srv/tree", "Link /srv/tree/link", "Create /srv/tree/sub", "Write /srv/tree/sub/two"];
    assert_eq!(came, wanted);
    let mtime = |path: &str| fs::metadata(tree.at(path)).unwrap().mtime();
    assert_eq!(mtime("/srv/tree/sub/two"), mtime("/host/tree/sub/two"));
    tree.refuses_step(&two("copy-in", tree.at("/host/one"), "/srv/one"), "not a folder");

    // A big one does not come at once, and one that changes meanwhile not at all.
    let big = tree.at("/host/big");
    fs::write(&big, vec![7; 3_000_000]).unwrap();
    tree.step(&two("upload", &big, "/srv"));
    assert_eq!(fs::read(tree.at("/srv/big")).unwrap(), fs::read(&big).unwrap());
}

#[test]
fn a_tar_file_is_unpacked_inside_the_guest() {
    let tree = Tree::new(&[("/usr/lib/", ""), ("/lib", "-> usr/lib"), ("/outside/", "")]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o750);
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    };
    use tar::EntryType as Kind;
    add("./lib/", Kind::Directory, "", "");
    add("./lib/file", Kind::Regular, "", "content");
    add("lib/hard", Kind::Link, "./lib/file", "");
    add("lib/soft", Kind::Symlink, "/etc/passwd", "");
    let good = tree.at("/good.tar");
    fs::write(&good, archive.into_inner().unwrap()).unwrap();
    tree.step(&two("tar-in", &good, "/"));
    // The link to the folder stays one.
    assert!(tree.at("/lib").is_symlink());
    assert_eq!(
        (tree.text("/usr/lib/file"), tree.text("/usr/lib/hard")),
        ("content".into(), "content".into())
    );
    let there = fs::metadata(tree.at("/usr/lib/file")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.mtime()), (0o750, 1_000_000_000));
    assert_eq!(fs::read_link(tree.at("/usr/lib/soft")).unwrap(), Path::new("/etc/passwd"));

    let bad = |name: &str, kind: Kind, words: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0);
        header.set_cksum();
        archive.append(&header, &b""[..]).unwrap();
        fs::write(tree.at("/bad.tar"), archive.into_inner().unwrap()).unwrap();
        tree.refuses_step(&two("tar-in", tree.at("/bad.tar"), "/"), words);
    };
    bad("../outside/x", Kind::Regular, "`..`");
    bad("null", Kind::Char, "cannot be brought");
    bad("x", Kind::Link, "leads nowhere");
    fs::write(tree.at("/bad.tar"), b"\x1f\x8b\x08more").unwrap();
    tree.refuses_step(&two("tar-in", tree.at("/bad.tar"), "/"), "compressed");
    fs::write(tree.at("/bad.tar"), "no tar file at all, and longer than that").unwrap();
    tree.refuses_step(&two("tar-in", tree.at("/bad.tar"), "/"), "whole tar file");
}

#[test]
fn keys_are_injected_for_users_that_exist() {
    let tree = system::debian("12");
    tree.put("/host/.ssh/id_old.pub", "ssh-rsa OLD");
    tree.put("/host/.ssh/id_x-cert.pub", "ssh-rsa CERT");
    tree.put("/host/.ssh/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----");
    let inject = |rest: &str| format!("[action.ssh-inject]\nuser = 'root'\n{rest}");
    let wanted = ["Create /root/.ssh", "Write /root/.ssh/authorized_keys"];
    assert_eq!(tree.step(&inject("key = 'ssh-ed25519 A me'\n")), wanted);
    assert_eq!((tree.mode("/root/.ssh"), tree.mode("/root/.ssh/authorized_keys")), (0o700, 0o600));
    assert!(tree.step(&inject("key = 'ssh-ed25519 A me'\n")).is_empty());
    assert_eq!(tree.step(&inject("")), wanted[1..]);
    assert_eq!(tree.text("/root/.ssh/authorized_keys"), "ssh-ed25519 A me\nssh-rsa OLD\n");
    let file = |path: &str| inject(&format!("file = '{}'\n", tree.at(path).display()));
    tree.refuses_step(&file("/host/.ssh/id_rsa"), "private key");
    tree.refuses_step(&file("/host/none"), "cannot read");
    tree.refuses_step("[action.ssh-inject]\nuser = 'eve'\nkey = 'k'\n", "no user \"eve\"");
    if nix::unistd::getuid().is_root() {
        tree.step("[action.ssh-inject]\nuser = 'bob'\nkey = 'ssh-ed25519 A me'\n");
        let key = fs::metadata(tree.at("/home/bob/.ssh/authorized_keys")).unwrap();
        assert_eq!((key.uid(), key.gid()), (1000, 1000));
    }
}

/// The runner itself, in a folder that stands for the guest's root.
#[test]
#[expect(clippy::disallowed_methods, reason = "the runner is a program of the guest's")]
fn first_boot_scripts_run_once_in_order_and_are_logged() {
    let tree = system::debian("12");
    tree.put("/host/a script.sh", "#!/bin/sh\necho from a script\nexit 3\n");
    tree.step("[action.firstboot]\ncommand = 'echo \"one   two\"'\n");
    let came =
        tree.step(&format!("[action.firstboot]\nscript = '{}'\n", tree.at("/host/a script.sh").display()));
    assert_eq!(came, ["Write /usr/lib/guestseal/firstboot/scripts/0002-a-script-sh"]);
    assert!(tree.mode("/usr/lib/guestseal/firstboot/scripts/0002-a-script-sh") == 0o755);
    let link = "/etc/systemd/system/multi-user.target.wants/guestseal-firstboot.service";
    let unit = fs::read_link(tree.at(link)).unwrap();
    assert!(tree.text(unit.to_str().unwrap()).contains("ExecStart=/usr/lib/guestseal/firstboot/run start"));
    // As insserv leaves it when a script has it put the services in order.
    let parallel = "/etc/init.d/.depend.start";
    tree.put(parallel, "TARGETS = cron guestseal-firstboot ssh\nINTERACTIVE =\nguestseal-firstboot: cron\n");
    tree.put("/etc/rc2.d/S03guestseal-firstboot", "-> ../init.d/guestseal-firstboot");
    tree.put("/var/log/", "");
    let here = tree.0.path().display().to_string();
    let ours = |text: String, folder: &str| text.replace(folder, &format!("{here}{folder}"));
    let text = tree.text("/usr/lib/guestseal/firstboot/run");
    let text = ["/usr/lib/guestseal", "/var/log/", "/etc/"].into_iter().fold(text, ours);
    for run in 0..2 {
        let ran = std::process::Command::new("sh").args(["-c", &text, "run", "start"]).status().unwrap();
        assert_eq!(ran.code(), Some(if run == 0 { 1 } else { 0 }));
    }
    let log = tree.text("/var/log/guestseal-firstboot.log");
    let lines: Vec<_> = log.lines().map(|line| line.split(',').next().unwrap()).collect();
    let wanted = [
        "=== 0001-echo--one---two- begins",
        "one   two",
        "=== 0001-echo--one---two- ended with 0",
        "=== 0002-a-script-sh begins",
        "from a script",
        "=== 0002-a-script-sh ended with 3",
    ];
    assert_eq!(lines, wanted);
    let unit = "/etc/systemd/system/guestseal-firstboot.service";
    for gone in [link, unit, "/usr/lib/guestseal", "/etc/rc2.d/S03guestseal-firstboot"] {
        assert!(!tree.has(gone), "{gone}");
    }
    assert_eq!(tree.text(parallel), "TARGETS = cron ssh\nINTERACTIVE =\n");
}

#[test]
fn first_boot_has_a_service_of_each_init_system() {
    let command = "[action.firstboot]\ncommand = 'true'\n";
    let debian = Tree::new(&[
        ("/etc/debian_version", "12.1\n"),
        ("/etc/inittab", ""),
        ("/sbin/init", "x"),
        ("/etc/init.d/rc", ""),
        ("/etc/rc2.d/", ""),
        // sshd's package brings it, and nothing of runit is there.
        ("/etc/runit/runsvdir/", ""),
    ]);
    let service = |tree: &Tree| {
        let came = tree.step(command);
        let links = came.iter().filter_map(|line| line.strip_prefix("Link "));
        links
            .map(|path| format!("{path} {}", fs::read_link(tree.at(path)).unwrap().display()))
            .collect::<Vec<_>>()
    };
    let links = service(&debian);
    assert_eq!(links[0], "/etc/init.d/guestseal-firstboot /usr/lib/guestseal/firstboot/run");
    assert_eq!(links[1], "/etc/rc2.d/S99guestseal-firstboot ../init.d/guestseal-firstboot");
    assert_eq!(links.len(), 5);
    debian.put("/etc/rc.d/rc3.d/", "");
    debian.put("/etc/rc.d/init.d/", "");
    assert!(service(&debian)[0].starts_with("/etc/rc.d/rc2.d/"), "{:?}", service(&debian));
    let alpine = Tree::new(&[
        ("/etc/os-release", "ID=alpine\n"),
        ("/sbin/openrc", ""),
        ("/sbin/init", "-> /bin/busybox"),
    ]);
    let wanted = "/etc/runlevels/default/guestseal-firstboot /etc/init.d/guestseal-firstboot";
    assert_eq!(service(&alpine), [wanted]);
    assert!(alpine.text("/etc/init.d/guestseal-firstboot").starts_with("#!/sbin/openrc-run\n"));
    Tree::new(&[("/etc/os-release", "ID=odd\n")]).refuses_step(command, "how this guest starts services");
}

#[test]
fn a_relabelling_is_asked_for_where_there_is_selinux() {
    let tree = system::debian("12");
    assert!(tree.step("[action.selinux-relabel]\n").is_empty());
    tree.put("/etc/selinux/config", "SELINUX=enforcing\n");
    assert_eq!(tree.step("[action.selinux-relabel]\n"), ["Write /.autorelabel"]);
}

#[test]
fn of_steps_a_later_check_is_unsure() {
    let tree = system::debian("12");
    for action in ["[action.mkdir]\npath = '/x'\n", "[action.delete]\npath = '/etc'\n"] {
        let recorded = Settings { recorded: true, ..Settings::default() };
        let findings = tree.look(&verb(action), &recorded).unwrap();
        assert!(findings.unsure && findings.changes.is_empty());
    }
}
