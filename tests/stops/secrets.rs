//! Passwords: nowhere to be seen, and wiped from memory once they are set.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use guestseal::guest::password::{Scheme, verify};
use guestseal::guest::secret::Secret;
use nix::sys::signal::Signal::{SIGCONT, SIGTERM};
use nix::unistd::Pid;

use crate::common::{ready, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::stage::Stage;
use crate::stopped::{Run, children};

/// Long, so that a freed copy of it is not all overwritten by whoever frees it; the last letters are looked for.
const PASSWORD: &str = "correct-horse-battery-staple-0123456789-tail-of-the-secret";
const TAIL: &str = "9-tail-of-the-secret";

/// A guest and its password in a file of the host.
fn stage(variant: &str) -> (Stage, String) {
    let stage = Stage::copy(&guest(variant).image);
    let file = stage.write("password", 0o600, &format!("{PASSWORD}\n"));
    let selector = format!("--root-password file:{}", file.display());
    (stage, selector)
}

/// The process and all that it started, and they started.
fn family(pid: Pid) -> Vec<Pid> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        family.extend(children(pid));
        next += 1;
    }
    family
}

/// In which of a process's writable memory these bytes are.
fn in_memory_of(pid: Pid, needle: &[u8]) -> Vec<String> {
    const BLOCK: usize = 1 << 20;
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = Vec::new();
    for line in
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|perms| perms.starts_with("rw")))
    {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, end) = (number(start), number(end));
        while at < end {
            let mut block = vec![0; BLOCK.min(usize::try_from(end - at).unwrap())];
            let Ok(read) = memory.read_at(&mut block, at) else { break };
            if block[..read].windows(needle.len()).any(|bytes| bytes == needle) {
                found.push(format!("{pid}: {line}"));
            }
            // The next one begins a little before the end of this one, where the needle may lie across.
            at += if read == BLOCK { (BLOCK - needle.len()) as u64 } else { read.max(1) as u64 };
        }
    }
    found
}

#[test]
fn wiped_from_memory_once_it_is_set() {
    if !ready() {
        return;
    }
    // The one guest hashes by yescrypt, the other by sha512crypt.
    for variant in ["arch", "alpine"] {
        let (stage, selector) = stage(variant);
        let words = format!("seal {selector}");
        let before = Run::stop_at("mounted", &words, &[&stage.image]);
        assert!(!in_memory_of(before.pid(), TAIL.as_bytes()).is_empty(), "the search finds what is there");
        before.go_on_with(SIGTERM).by(SIGTERM, &[]);
        for point in ["applied", "detached"] {
            let run = Run::stop_at(point, &words, &[&stage.image]);
            let family = family(run.pid());
            assert!(family.len() > 1 || point == "detached", "the daemon is there");
            let found: Vec<_> = family.iter().flat_map(|pid| in_memory_of(*pid, TAIL.as_bytes())).collect();
            assert!(found.is_empty(), "{variant} at {point}: {found:#?}");
            run.go_on_with(SIGTERM).by(SIGTERM, &[]);
        }
        nothing_left(stage.folder(), std::time::Duration::ZERO);
    }
}

/// Whether the stack of this thread has the end of the password.
fn on_the_stack() -> bool {
    let marker = 0_u8;
    let here = u64::try_from(std::ptr::from_ref(&marker).addr()).unwrap();
    // On the heap, as all that the search itself needs.
    let found = in_memory_of(Pid::this(), &TAIL.bytes().collect::<Vec<u8>>());
    found.iter().any(|line| {
        let (start, end) = line.split(' ').nth(1).unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&here)
    })
}

/// Searched right after the work: later calls would overwrite by chance what was left.
#[test]
fn hashing_leaves_nothing_on_the_stack() {
    let secret = Secret::new(PASSWORD);
    let mut copy = [0_u8; PASSWORD.len()];
    copy.copy_from_slice(secret.expose().as_bytes());
    assert!(on_the_stack(), "the search finds what is there: {}", copy.len());
    std::hint::black_box(&mut copy).fill(0);
    assert!(!on_the_stack());
    for scheme in [Scheme::Sha512Crypt, Scheme::Yescrypt] {
        let field = scheme.hash(&secret).unwrap();
        assert!(!on_the_stack(), "{scheme:?}");
        assert!(verify(&secret, field.expose().as_bytes()));
        assert!(!on_the_stack(), "{scheme:?}");
    }
}

#[test]
fn no_core_dumps() {
    if !ready() {
        return;
    }
    let (stage, selector) = stage("arch");
    let run = Run::stop_at("applied", &format!("seal {selector}"), &[&stage.image]);
    for pid in family(run.pid()) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{pid}");
        let filter = fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap();
        assert_eq!(u64::from_str_radix(filter.trim(), 16), Ok(0), "{pid}");
    }
    run.go_on_with(SIGTERM).by(SIGTERM, &[]);
}

/// root's field of /etc/shadow in a raw image that is one filesystem.
fn hash(image: &Path) -> String {
    let shadow = tool("debugfs", ["-R", "cat /etc/shadow", image.to_str().unwrap()]);
    let line = shadow.lines().find(|line| line.starts_with("root:")).unwrap();
    line.split(':').nth(1).unwrap().to_owned()
}

/// Fails when a text has the password or something of its hash.
#[track_caller]
fn is_clean(what: &str, text: &str, hash: &str) {
    let digest = hash.rsplit('$').next().unwrap();
    assert!(digest.len() > 20, "{hash}");
    for secret in [TAIL, digest, "$y$", "$6$"] {
        assert!(!text.contains(secret), "{what} shows {secret}:\n{text}");
    }
}

#[test]
fn in_nothing_that_is_said_or_recorded() {
    if !ready() {
        return;
    }
    let typed = format!("--root-password password:{PASSWORD}");
    for (volume, typed) in
        [("", None), ("-v", None), ("-x", None), ("--json", None), ("-v -x", Some(&typed)), ("-q", None)]
    {
        let (stage, selector) = stage("arch");
        let selector = typed.unwrap_or(&selector);
        let said = stage.guestseal(&format!("seal {volume} {selector}")).expect(0);
        let hash = hash(&stage.image);
        is_clean(volume, &said.stdout, &hash);
        is_clean(volume, &said.stderr, &hash);
        let record = fs::read_to_string(stage.path("arch.raw.seal.json"))
            .unwrap_or_else(|_| fs::read_to_string(format!("{}.seal.json", stage.image.display())).unwrap());
        assert!(record.contains("root-password"), "{record}");
        is_clean("the record", &record, &hash);
        // Once more: nothing to do, and that is seen without being said.
        let again = stage.guestseal(&format!("inspect {volume} {selector}")).expect(0);
        is_clean("inspect", &(again.stdout + &again.stderr), &hash);
    }
}

#[test]
fn in_no_error() {
    if !ready() {
        return;
    }
    let (stage, selector) = stage("arch");
    let image = stage.image.display().to_string();
    let lines = [
        (2, format!("seal --password nobody-here:password:{PASSWORD} {image}")),
        (2, format!("seal --password {PASSWORD} {image}")),
        (2, format!("seal --password root:{PASSWORD} {image}")),
        (2, format!("seal --root-password pasword:{PASSWORD} {image}")),
        (2, format!("seal --pasword=root:password:{PASSWORD} {image}")),
        (2, format!("seal --rootpassword=password:{PASSWORD} {image}")),
        (2, format!("seal --root-password password:{PASSWORD} --password root:password:{PASSWORD} {image}")),
        (2, format!("seal --root-password password:{PASSWORD}\u{7} {image}")),
        (2, format!("--root-password password:{PASSWORD} inspect {image}")),
        (2, format!("seal --set root-password.passwords={PASSWORD} {image}")),
        (2, format!("seal --set {PASSWORD} {image}")),
        (2, format!("verify --root-password password:{PASSWORD} {image}")),
        (1, format!("seal {selector} {image}.missing")),
    ];
    for (code, line) in lines {
        for volume in ["", " --json", " -v", " -x"] {
            let ended = Run::start(None, &format!("{line}{volume}"), &[]).end().with(code, &["error: "]);
            let said = ended.stdout + &ended.stderr;
            assert!(!said.contains(TAIL), "{line}{volume}\n{said}");
        }
    }
    // Half way.
    let mut failing = crate::common::command(crate::common::GUESTSEAL);
    failing
        .args(["seal", "-v", "-x"])
        .args(selector.split(' '))
        .arg(&stage.image)
        .env("GUESTSEAL_FAULT", "applied=fail");
    let ended = Run::spawn(failing, None).end().with(1, &["failed on purpose"]);
    let said = ended.stdout + &ended.stderr;
    assert!(!said.contains(TAIL) && !said.contains("$y$"), "{said}");
}

#[test]
fn in_no_command_line_or_environment_of_a_child() {
    if !ready() {
        return;
    }
    let (stage, selector) = stage("arch");
    let script = "#!/bin/sh\ncat /proc/$PPID/cmdline >/dev/null\nenv >\"$OUT\"\n"
        .replace("$OUT", stage.path("env").to_str().unwrap());
    stage.write("env.sh", 0o755, &script);
    for (point, words) in [
        ("applied", selector.clone()),
        (
            "applied",
            format!("--root-password password:{PASSWORD} --script {}", stage.path("env.sh").display()),
        ),
        ("overlay-named", selector),
    ] {
        let run = Run::stop_at(point, &format!("seal {words}"), &[&stage.image]);
        let children = family(run.pid()).split_off(1);
        assert!(!children.is_empty() || point == "overlay-named");
        for child in children {
            for file in ["cmdline", "environ"] {
                let text = fs::read(format!("/proc/{child}/{file}")).unwrap();
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(!text.contains(TAIL) && !text.contains("$y$"), "{child} {file}: {text}");
            }
        }
        if words.contains("env.sh") {
            let env = fs::read_to_string(stage.path("env")).unwrap();
            assert!(env.contains("PATH=") && !env.contains(TAIL), "{env}");
        }
        if point == "applied" {
            run.go_on_with(SIGTERM).by(SIGTERM, &[]);
        } else {
            run.go_on_with(SIGCONT).with(0, &[]);
        }
    }
}
