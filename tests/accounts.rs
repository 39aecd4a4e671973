//! The account files and the hashes against the tools that guests use: crypt(3) of this system's libcrypt, and
//! shadow-utils' userdel, usermod and passwd. Without a tool a test is skipped and says so; with
//! GUESTSEAL_REQUIRE_ALL=1 that is a failure.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use guestseal::action::user_accounts::{AccountFiles, Who, plan_removal};
use guestseal::guest::accounts::{LoginDefs, Shadow};
use guestseal::guest::password::{PasswordChange, Scheme, Selector, libcrypt_knows_yescrypt, verify};
use guestseal::guest::secret::Secret;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

#[expect(clippy::disallowed_methods, reason = "the tests ask the system's own tools")]
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

#[expect(clippy::disallowed_methods, reason = "the switch of the whole test suite")]
fn skip(why: &str) {
    assert!(
        std::env::var_os("GUESTSEAL_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "cannot be skipped: {why}"
    );
    println!("SKIPPED: {why}");
}

/// crypt(3) of every pair of password and setting; None when neither Perl nor Python is there to call it.
fn crypt(pairs: &[(&[u8], &str)]) -> Option<Vec<String>> {
    let perl = "while (<STDIN>) { chomp; my ($p, $s) = split / /; print crypt(pack('H*', $p), $s) // '*0', qq(\\n); }";
    let python = "import crypt, sys\n\
        for line in sys.stdin: p, s = line.split(); print(crypt.crypt(bytes.fromhex(p).decode(), s) or '*0')";
    let lines: String = pairs
        .iter()
        .map(|(password, setting)| {
            let hex: String = password.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex} {setting}\n")
        })
        .collect();
    [("perl", ["-e", perl]), ("python3", ["-c", python])].iter().find_map(|(program, script)| {
        let mut child = command(program)
            .args(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // A child that ends early closes the pipe; its status says so.
        let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
        let output = child.wait_with_output().unwrap();
        let hashes: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        (output.status.success() && hashes.len() == pairs.len()).then_some(hashes)
    })
}

fn system_knows_yescrypt() -> Option<bool> {
    crypt(&[(b"a", "$y$j9T$abcdefgh$")]).map(|hashes| hashes[0].starts_with("$y$"))
}

/// Passwords of all sorts: short and long ones, one at the limit, blanks, and every printable character.
fn passwords() -> Vec<String> {
    let mut runner = TestRunner::default();
    let mut sample = |pattern: &'static str| {
        let strategy = proptest::string::string_regex(pattern).unwrap();
        strategy.new_tree(&mut runner).unwrap().current()
    };
    let mut passwords: Vec<String> =
        ["a", " ", "pässwörd ☃ 🔒", "tab\there", "a:b:c", "$6$x$y", "\u{301}"].map(str::to_owned).into();
    passwords.extend([63, 64, 65, 127, 128, 129, 256, 511].map(|length| "x".repeat(length)));
    passwords.push("é".repeat(255));
    passwords.extend((0..12).map(|_| sample("\\PC{1,40}")));
    passwords.extend((0..6).map(|_| sample("[ -~]{1,120}")));
    passwords
}

fn change(password: &str) -> PasswordChange {
    Selector::Text(Secret::new(password)).load().unwrap_or_else(|error| panic!("{password:?}: {error:?}"))
}

/// The salt trap: a hash that our own code verifies may be one that crypt(3) refuses.
#[test]
fn every_hash_is_what_crypt_makes_of_the_password() {
    let Some(yescrypt) = system_knows_yescrypt() else { return skip("no perl or python3 to call crypt(3)") };
    if !yescrypt {
        skip("this system's crypt(3) has no yescrypt");
    }
    let schemes = [Scheme::Sha512Crypt, Scheme::Yescrypt];
    for scheme in schemes.into_iter().filter(|&scheme| yescrypt || scheme == Scheme::Sha512Crypt) {
        let passwords = passwords();
        let hashes: Vec<_> =
            passwords.iter().map(|password| change(password).field(scheme).unwrap()).collect();
        let pairs: Vec<(&[u8], &str)> = passwords
            .iter()
            .zip(&hashes)
            .map(|(password, hash)| (password.as_bytes(), hash.expose()))
            .collect();
        for ((password, ours), theirs) in pairs.iter().zip(crypt(&pairs).unwrap()) {
            assert_eq!(*ours, theirs, "{scheme:?} of {:?}", String::from_utf8_lossy(password));
        }
    }
}

#[test]
fn hashes_that_crypt_makes_are_verified() {
    let Some(yescrypt) = system_knows_yescrypt() else { return skip("no perl or python3 to call crypt(3)") };
    let settings = [
        "$6$short$",
        "$6$sixteen.letters/$",
        "$6$rounds=1000$abc$",
        "$y$j9T$abcdefgh$",
        "$y$j75$6Vfm2Bz5aVOVDWcHbDBLR1$",
    ];
    for setting in settings.iter().filter(|setting| yescrypt || !setting.starts_with("$y$")) {
        let passwords = passwords();
        let pairs: Vec<(&[u8], &str)> =
            passwords.iter().map(|password| (password.as_bytes(), *setting)).collect();
        for (password, hash) in passwords.iter().zip(crypt(&pairs).unwrap()) {
            assert!(verify(&Secret::new(password.as_str()), hash.as_bytes()), "{setting} {password:?}");
            assert!(!verify(&Secret::new(format!("{password}.")), hash.as_bytes()), "{setting} {password:?}");
        }
    }
}

#[test]
fn passwords_that_crypt_refuses_are_refused() {
    for password in [String::new(), "x".repeat(512), "é".repeat(256)] {
        assert!(Selector::Text(Secret::new(password.as_str())).load().is_err(), "{}", password.len());
    }
    let Some(true) = system_knows_yescrypt() else { return skip("no libxcrypt to ask") };
    let longest = "x".repeat(512);
    assert!(
        crypt(&[(longest.as_bytes(), "$y$j9T$abcdefgh$")]).unwrap()[0].starts_with('*'),
        "the limit has moved"
    );
}

#[test]
fn the_clue_in_libcrypt_is_true() {
    let folders =
        ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    let files =
        folders.iter().flat_map(|folder| [1, 2].map(|version| format!("{folder}/libcrypt.so.{version}")));
    let (Some(library), Some(truth)) =
        (files.filter_map(|file| std::fs::read(file).ok()).next(), system_knows_yescrypt())
    else {
        return skip("no libcrypt.so to read");
    };
    assert_eq!(libcrypt_knows_yescrypt(&library), truth);
}

const FILES: [(&str, &str); 7] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1000:Bob,,,:/home/bob:/bin/bash\n\
         eve:x:1001:1001:Eve:/home/eve:/bin/sh\nalice:x:1002:100:Alice:/home/alice:/bin/zsh\n\
         mallory:x:1003:1003::/home/mallory:/bin/sh\nfriend:x:1004:1003::/home/friend:/bin/sh\n",
    ),
    (
        "shadow",
        "root:*:19000:0:99999:7:::\nbob:$6$a$b:19000:0:99999:7:::\neve:!:19000:0:99999:7:::\n\
         alice:!*:19000:0:99999:7:::\nmallory:*:19000:0:99999:7:::\nfriend:*:19000:0:99999:7:::\n",
    ),
    (
        "group",
        "root:x:0:\nsudo:x:27:bob,alice,friend\nusers:x:100:eve\nbob:x:1000:\neve:x:1001:friend\nalice:x:1002:\nmallory:x:1003:\n",
    ),
    (
        "gshadow",
        "root:*::\nsudo:*:bob:bob,alice,friend\nusers:*::eve\nbob:!::\neve:!:alice:friend\nalice:!::\nmallory:!::\n",
    ),
    ("subuid", "bob:100000:65536\neve:165536:65536\nalice:231072:65536\nfriend:300000:1\n"),
    ("subgid", "bob:100000:65536\nfriend:300000:1\n"),
    ("login.defs", "UID_MIN 1000\nUID_MAX 60000\nUSERGROUPS_ENAB yes\n"),
];

/// A folder with account files below its etc, for shadow-utils' option --prefix.
fn prefix() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    for (name, content) in FILES {
        std::fs::write(folder.path().join("etc").join(name), content).unwrap();
    }
    folder
}

/// Runs a tool of shadow-utils on the folder; None when it is not there or may not.
fn shadow_utils(program: &str, folder: &Path, arguments: &[&str]) -> Option<()> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let output = command(program).arg("--prefix").arg(folder).args(arguments).output().ok()?;
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {message}", output.status);
    Some(())
}

fn content(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join("etc").join(name)).unwrap()
}

/// Which accounts go, so that shadow-utils and the plan can be asked the same.
fn compare_with_userdel(users: &[&str]) -> Option<()> {
    let folder = prefix();
    for user in users {
        shadow_utils("userdel", folder.path(), &[user])?;
    }
    let old: BTreeMap<_, _> = FILES.into_iter().collect();
    let bytes = |name| Some(str::as_bytes(old[name]));
    let files = AccountFiles {
        passwd: old["passwd"].as_bytes(),
        shadow: bytes("shadow"),
        group: bytes("group"),
        gshadow: bytes("gshadow"),
        subuid: bytes("subuid"),
        subgid: bytes("subgid"),
    };
    let remove: Vec<String> = users.iter().map(|&user| user.to_owned()).collect();
    let defs = LoginDefs::parse(old["login.defs"].as_bytes());
    let plan = plan_removal(&files, &defs, &Who { keep: &[], remove: &remove }).unwrap();
    for name in ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"] {
        let ours = plan.file(format!("/etc/{name}")).unwrap_or(old[name].as_bytes());
        assert_eq!(
            std::str::from_utf8(ours).unwrap(),
            content(folder.path(), name),
            "{name} without {users:?}"
        );
    }
    Some(())
}

#[test]
fn removal_leaves_what_userdel_leaves() {
    for users in
        [&["bob"][..], &["eve"], &["alice"], &["mallory"], &["bob", "eve", "alice"], &["friend", "mallory"]]
    {
        if compare_with_userdel(users).is_none() {
            return skip("not root, or no userdel");
        }
    }
}

/// What is locked here must be open after one `usermod -U`, which is `passwd -u`, and never without a password.
#[test]
fn shadow_utils_unlock_what_is_locked_here() {
    let folder = prefix();
    let locked = |text: &str| Selector::parse(text).unwrap().load().unwrap();
    let mut shadow = Shadow::parse(content(folder.path(), "shadow").as_bytes());
    for (user, selector) in [("bob", "locked:password:hunter2"), ("eve", "locked")] {
        let field = locked(selector).field(Scheme::Sha512Crypt).unwrap();
        assert!(!verify(&Secret::new("hunter2"), field.expose().as_bytes()));
        assert!(shadow.set_password(user, &field).unwrap());
    }
    std::fs::write(folder.path().join("etc/shadow"), shadow.as_bytes()).unwrap();
    for user in ["bob", "eve"] {
        if shadow_utils("usermod", folder.path(), &["--unlock", user]).is_none() {
            return skip("not root, or no usermod");
        }
    }
    let unlocked = Shadow::parse(content(folder.path(), "shadow").as_bytes());
    assert!(verify(&Secret::new("hunter2"), unlocked.find("bob").unwrap().expose_field()));
    assert_eq!(unlocked.find("eve").unwrap().expose_field(), b"*");
}
