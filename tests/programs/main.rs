//! The guest's own programs, run on real guests by the built program: on this host and in a machine. What they must not
//! reach is looked for from inside. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../common/kernel.rs"]
mod kernel;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, fingerprint, on_path, ready, require, run};
use crate::guests::guest;
use crate::kernel::kernel;

/// What the programs look for. Nothing is written to what is the host's: it is opened for writing, and closed.
const INSIDE: &str = r#"#!/bin/bash
test "$(id -u)" = 0 || echo WRONG user
test "$(hostname)" = localhost || echo WRONG host name
test "$(pwd)" = / || echo WRONG folder
test "$(ls -d /proc/[0-9]* | wc -l)" -lt 9 || echo WRONG processes of the host
test "$(ls /proc/self/net/ | wc -l)" -gt 0 && test "$(grep -c : /proc/self/net/dev)" = 1 || echo WRONG network
for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/self/oom_score_adj; do
    (true >>$file) 2>/dev/null && echo WRONG $file can be written
done
mount -t tmpfs none /mnt 2>/dev/null && echo WRONG mount
mount -o remount,rw /proc 2>/dev/null && echo WRONG remount
unshare -U true 2>/dev/null && echo WRONG namespace
mknod /root/device c 1 3 2>/dev/null && echo WRONG device
chroot / /bin/true || echo WRONG chroot
chown 1234:1234 /root/made 2>/dev/null || { touch /root/made && chown 1234:1234 /root/made; } || echo WRONG owner
test -e @HOST@ && echo WRONG a file of the host
test -s /proc/keys && echo WRONG keys
printf 'red \033[31m\n' >&2
echo all was looked at
"#;

struct Guest {
    folder: TempDir,
    image: PathBuf,
    before: String,
}

impl Guest {
    /// A copy of the Debian guest, and these operations beside it.
    fn new(operations: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-programs-").tempdir_in("/var/tmp").unwrap();
        let image = folder.path().join("guest.qcow2");
        fs::copy(guest("debian12").image, &image).unwrap();
        fs::create_dir(folder.path().join("ops")).unwrap();
        for (name, action) in operations {
            let head =
                format!("name = \"{name}\"\nsummary = \"s\"\nreason = \"r\"\ndefault = false\norder = -20\n");
            fs::write(folder.path().join(format!("ops/{name}.toml")), format!("{head}[[action]]\n{action}"))
                .unwrap();
        }
        let before = fingerprint(&image);
        Self { folder, image, before }
    }

    #[track_caller]
    fn run(&self, words: &str) -> Ran {
        let words = words.split_whitespace().map(PathBuf::from);
        let rest = ["--operations-dir".into(), self.folder.path().join("ops"), self.image.clone()];
        run(GUESTSEAL, words.chain(rest))
    }

    #[track_caller]
    fn refuses(&self, words: &str, code: i32, says: &[&str]) {
        self.run(words).expect(code).says(says);
        assert_eq!(fingerprint(&self.image), self.before, "the image changed");
    }

    fn recorded(&self) -> Value {
        let record = fs::read(self.folder.path().join("guest.qcow2.seal.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["predicate"]["operations"][0]["programs"].clone()
    }
}

fn can_run() -> bool {
    ready() && require(on_path("bwrap"), "needs bwrap")
}

fn script(text: &str, terms: &str) -> String {
    format!("[action.run]\nscript = '''{text}'''\nterms = {{ {terms} }}\n")
}

fn shut_in(words: &str, place: &str) {
    let host = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let inside = INSIDE.replace("@HOST@", host.path().to_str().unwrap());
    let guest = Guest::new(&[("look", &script(&inside, ""))]);
    let ran = guest.run(&format!("seal -v {words} --enable look")).expect(0);
    assert!(!ran.stderr.contains("WRONG"), "{ran:#?}");
    ran.says(&["| all was looked at", "| red \\u{1b}[31m"]);
    assert_eq!(guest.recorded(), serde_json::json!({ "scripts": 1, "place": place, "network": false }));
    // Nobody can tell from the guest, so this is no finding.
    guest.run("verify").expect(0);
    // What it did is in the image: the second run finds the file with its owner.
    let again = script("stat -c 'made by %u' /root/made; sed -n 's/^NAME=/made for /p' /etc/os-release", "");
    fs::write(
        guest.folder.path().join("ops/look.toml"),
        format!("name = \"look\"\nsummary = \"s\"\nreason = \"r\"\ndefault = false\n[[action]]\n{again}"),
    )
    .unwrap();
    guest.run("seal -v --enable look").expect(0).says(&["| made by 1234", "| made for \"Debian GNU/Linux\""]);
}

#[test]
fn programs_on_this_host_reach_nothing_of_it() {
    if can_run() {
        shut_in("--isolate never", "host");
    }
}

#[test]
fn programs_in_a_machine_are_shut_in_too() {
    if can_run() && require(kernel().exists(), "no kernel for virtual machines") {
        shut_in(&format!("--isolate vm --kernel {}", kernel().display()), "vm");
    }
}

#[test]
fn what_fails_or_takes_too_long_changes_nothing() {
    if !can_run() {
        return;
    }
    let guest = Guest::new(&[
        ("fails", &script("echo one; echo two >&2; exit 3", "")),
        ("hangs", &script("(setsid sleep 98765 &); echo begun; sleep 98765", "seconds = 2")),
    ]);
    guest.refuses("seal --enable fails", 1, &["the operation fails failed", "exit status: 3", "one | two"]);
    guest.refuses("seal --enable hangs", 1, &["did not end within 2 s", "begun"]);
    let left = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    assert_eq!(left.filter(|line| line == b"sleep\098765\0").count(), 0, "it goes on");
    // A dry run runs nothing.
    guest.run("seal --dry-run --enable fails").expect(0);
}

/// A server of this host's loopback that only says hello; its port.
fn server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            peer.unwrap().write_all(b"hello\n").unwrap();
        }
    });
    port
}

/// Programs that are given the network reach this host's; resolv.conf of the guest is a link that leads to its own /run, as
/// systemd-resolved has it.
fn online(words: &str, (host, place, resolver): (&str, &str, &str)) {
    let guest = Guest::new(&[]);
    let ask = guest.folder.path().join("ask");
    let hello = format!("exec 3<>/dev/tcp/{host}/{}; echo \"the host says $(cat <&3)\"", server());
    fs::write(&ask, format!("#!/bin/bash\nset -e\n{hello}\ncat /etc/resolv.conf\n")).unwrap();
    let link = "--delete /etc/resolv.conf --link ../run/systemd/resolve/stub-resolv.conf:/etc/resolv.conf";
    let ran = guest.run(&format!("seal -v {words} {link} --run {} --network", ask.display())).expect(0);
    ran.says(&["| the host says hello", &format!("| {resolver}")]);
    let recorded = serde_json::json!({ "scripts": 1, "place": place, "network": true });
    let record = fs::read(guest.folder.path().join("guest.qcow2.seal.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let operations = record["predicate"]["operations"].as_array().unwrap();
    assert!(operations.iter().any(|one| one["programs"] == recorded), "{operations:#?}");
}

#[test]
fn programs_have_the_network_when_they_are_given_it() {
    if !can_run() {
        return;
    }
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    online("--isolate never", ("127.0.0.1", "host", own.lines().next().unwrap_or_default()));
    if require(kernel().exists(), "no kernel for virtual machines") {
        let words = format!("--isolate vm --kernel {}", kernel().display());
        online(&words, ("10.0.2.2", "vm", "nameserver 10.0.2.3"));
    }
}

/// What programs leave of themselves goes once more, what the customisation brought stays, and `verify` knows both.
#[test]
fn traces_of_programs_go_and_what_was_brought_stays() {
    if !can_run() {
        return;
    }
    let guest = Guest::new(&[]);
    let run = guest.folder.path().join("run");
    fs::write(&run, "useradd visitor && ssh-keygen -q -A && echo new >>/var/log/dpkg.log\n").unwrap();
    let ran = guest.run(&format!("seal --write /tmp/brought:hello --run {} --json", run.display())).expect(0);
    ran.says(&["/tmp/brought stays as the customisation made it: tmp-files would"]);
    let operations = ran.result()["operations"].as_array().unwrap().clone();
    let files = |name: &str| {
        let runs = operations.iter().filter(|one| one["name"] == name);
        runs.map(|one| one["files"].to_string()).collect::<Vec<_>>()
    };
    for (name, path) in
        [("passwd-backups", "/etc/shadow-"), ("ssh-hostkeys", "/etc/ssh/ssh_host_ed25519_key")]
    {
        let runs = files(name);
        assert!(runs.len() == 2 && runs.iter().all(|files| files.contains(path)), "{name}: {runs:?}");
    }
    let left = serde_json::json!([{ "operation": "tmp-files", "path": "/tmp/brought" }]);
    assert_eq!(ran.result()["left"], left);
    guest.run("verify").expect(0);
    // By now it is nobody's.
    fs::write(&run, "test -e /tmp/brought && ! test -e /etc/ssh/ssh_host_ed25519_key && touch /tmp/other\n")
        .unwrap();
    guest.run(&format!("seal --operations customize --run {}", run.display())).expect(0);
    let seen = guest.run("inspect --operations tmp-files").expect(0).stdout;
    assert!(seen.contains("would have removed 2"), "{seen}");
}

/// Files of the host come to the worker in pieces, over the channel of the machine.
#[test]
fn files_of_this_host_come_whole_into_a_guest_in_a_machine() {
    if !can_run() || !require(kernel().exists(), "no kernel for virtual machines") {
        return;
    }
    let guest = Guest::new(&[]);
    let folder = guest.folder.path();
    let mut bytes = vec![0; (5 << 20) + 4321];
    getrandom::fill(&mut bytes).unwrap();
    fs::write(folder.join("large"), &bytes).unwrap();
    run("tar", ["-cf".into(), folder.join("files.tar"), "-C".into(), folder.into(), "large".into()])
        .expect(0);
    let steps = format!("--upload {0}/large:/srv/large --tar-in {0}/files.tar:/opt", folder.display());
    fs::write(folder.join("sums"), "sha256sum /srv/large /opt/large\n").unwrap();
    let words =
        format!("seal -v --operations customize --isolate vm --kernel {} {steps}", kernel().display());
    let ran = guest.run(&format!("{words} --run {}/sums", folder.display())).expect(0);
    let sum = run("sha256sum", [folder.join("large")]).expect(0).stdout;
    let sum = sum.split(' ').next().unwrap();
    ran.says(&[&format!("| {sum}  /srv/large"), &format!("| {sum}  /opt/large")]);
}

#[test]
fn packages_are_removed_by_the_guests_own_manager() {
    if !can_run() {
        return;
    }
    let guest = Guest::new(&[
        ("less", "[action.packages]\nremove = ['cron']\n"),
        ("look", &script("dpkg-query -W -f '${Status}\\n' cron; test ! -e /usr/sbin/cron && echo gone", "")),
        ("none", "[action.packages]\nremove = ['no-such-package-at-all']\n"),
    ]);
    guest.refuses("seal --enable none", 1, &["the operation none failed", "Unable to locate package"]);
    guest.run("seal -v --enable less").expect(0).says(&["Removing cron"]);
    guest.run("seal -v --enable look").expect(0).says(&["| deinstall ok config-files", "| gone"]);
}

#[test]
fn options_of_virt_sysprep_run_programs_in_their_order() {
    if !can_run() {
        return;
    }
    let guest = Guest::new(&[]);
    let script = guest.folder.path().join("setup.sh");
    fs::write(&script, "#!/usr/bin/perl\nopen F, '>>', '/srv/order'; print F \"perl\\n\";\n").unwrap();
    let words = ["-v", "--operations", "customize", "--write", "/srv/order:first\n", "--run"];
    let more = ["--run-command", "echo second >>/srv/order", "--append-line", "/srv/order:third"];
    let last =
        ["--uninstall", "cron", "--run-command", "cat /srv/order; test ! -e /usr/sbin/cron && echo gone"];
    let words = words.map(PathBuf::from).into_iter().chain([script]);
    let words = words.chain(more.into_iter().chain(last).map(PathBuf::from)).chain([guest.image.clone()]);
    let ran = run(GUESTSEAL, words).expect(0);
    let said: Vec<&str> = ran.stderr.lines().filter_map(|line| line.trim().strip_prefix("| ")).collect();
    assert_eq!(said[said.len() - 5..], ["first", "perl", "second", "third", "gone"], "{ran:#?}");
    assert_eq!(guest.recorded()["scripts"], 4);
}

/// A folder with a shell for this machine, or for another.
fn tree(machine: u8) -> TempDir {
    let folder = tempfile::Builder::new().prefix("guestseal-programs-").tempdir_in("/var/tmp").unwrap();
    for name in ["etc", "bin", "usr", "dev", "proc", "var"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("etc/os-release"), "ID=test\n").unwrap();
    fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let mut shell = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    shell.resize(18, 0);
    shell.extend([machine, 0]);
    fs::write(folder.path().join("bin/sh"), shell).unwrap();
    let text = "name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = false\n[[action]]\n[action.run]\nscript = \"true\"\n";
    fs::create_dir(folder.path().join("var/ops")).unwrap();
    fs::write(folder.path().join("var/ops/x.toml"), text).unwrap();
    folder
}

#[test]
fn other_machines_programs_and_links_in_the_way_are_refused() {
    if !can_run() {
        return;
    }
    let refused = |folder: &TempDir, says: &[&str]| {
        let ops = folder.path().join("var/ops");
        let words = ["seal".into(), "--enable".into(), "x".into(), "--operations-dir".into(), ops];
        let ran = run(GUESTSEAL, words.into_iter().chain(["--tree".into(), folder.path().to_path_buf()]));
        ran.expect(6).says(says);
    };
    refused(&tree(183), &["the operation x cannot run", "for aarch64"]);
    // The sandbox would make its own files where the link leads.
    let folder = tree(62);
    symlink("/var/tmp", folder.path().join("run")).unwrap();
    refused(&folder, &["the guest's /run is no folder"]);
}
