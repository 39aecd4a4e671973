//! In the place of virt-sysprep and virt-customize: no option of theirs without an answer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use guestseal::cli::virt::{REFUSED, reference};
use guestseal::operation::step_text::OPTIONS;
use tempfile::TempDir;

use crate::common::{has_tool, require};
use crate::{PROGRAM, Run, guestseal_in, start};

/// A folder with the program under both names, and what the examples of options need.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["virt-sysprep", "virt-customize"] {
        symlink(PROGRAM, at(name)).unwrap();
    }
    fs::create_dir(at("site")).unwrap();
    for name in ["motd", "setup.sh", "commands"] {
        fs::write(at(name), "mkdir /srv/site\n").unwrap();
    }
    fs::write(at("bob.pub"), "ssh-ed25519 A bob\n").unwrap();
    fs::write(at("site.tar"), [0; 1024]).unwrap();
    folder
}

fn called(name: &str, folder: &Path, args: &[&str]) -> Run {
    start(folder, folder.join(name).as_os_str(), args)
}

fn kept() -> BTreeSet<String> {
    let list = include_str!("virt-options.txt").lines().filter(|line| !line.starts_with('#'));
    list.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The options of a row of the table.
fn answered() -> BTreeSet<String> {
    let table = reference();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let words = rows.flat_map(|(options, rest)| {
        let answer = rest.split(" | ").next().unwrap();
        assert!(
            ["same", "better", "in part", "no effect", "refused"].contains(&answer),
            "{options}: {answer}"
        );
        assert!(answer == "same" || rest.len() > answer.len() + 10, "{options} is {answer}: why?");
        options.split([',', ' ']).filter(|word| word.starts_with('-')).map(str::to_owned)
    });
    words.collect()
}

#[test]
fn every_option_has_an_answer_in_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/virt-sysprep.md");
    #[expect(clippy::disallowed_methods, reason = "the switch that writes documentation")]
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, reference()).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap();
    assert!(
        found == reference(),
        "docs/virt-sysprep.md is old: UPDATE_DOCS=1 cargo test --test cli writes it again"
    );
    let missing: Vec<_> = kept().difference(&answered()).cloned().collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn the_installed_programs_have_no_further_option() {
    for tool in ["virt-sysprep", "virt-customize"] {
        if !require(has_tool(tool), "no virt-sysprep to compare with") {
            return;
        }
        let help = start(Path::new("/"), tool.as_ref(), &["--help"]).stdout;
        let options = help.split_whitespace().map(|word| word.trim_end_matches(','));
        let options = options.filter(|word| word.starts_with('-') && word.len() > 1 && *word != "--options]");
        let options: Vec<_> = options.map(|word| word.trim_end_matches([']', ')'])).collect();
        assert!(options.len() > 40, "{options:?}");
        let answered = answered();
        let known = |option: &&&str| !answered.contains(**option) && option.trim_start_matches('-').len() > 1;
        let missing: Vec<_> = options.iter().filter(known).collect();
        assert!(missing.is_empty(), "{tool}: {missing:?}");
    }
}

/// A good use of each option that is not a step and not refused.
const GENERAL: [&[&str]; 36] = [
    &["--expand", "+1G"],
    &["--run", "setup.sh"],
    &["--mount-options", "/:noatime"],
    &["--color"],
    &["--colors"],
    &["--colour"],
    &["--colours"],
    &["-n"],
    &["--dryrun"],
    &["--dry-run"],
    &["--echo-keys"],
    &["--enable", "logfiles"],
    &["--operation", "defaults,-logfiles"],
    &["--operations", "all,-fs-uuids,-lvm-uuids"],
    &["--format", "auto"],
    &["--key", "all:key:x"],
    &["--keys-from-stdin"],
    &["--network"],
    &["--no-network"],
    &["-q"],
    &["--quiet"],
    &["-v"],
    &["--verbose"],
    &["-x"],
    &["--wrap"],
    &["--script", "setup.sh"],
    &["--scriptdir", "/mnt"],
    &["--keep-user-accounts", "mary"],
    &["--remove-user-accounts", "bob,eve"],
    &["--hostname", "web"],
    &["--timezone", "Europe/London"],
    &["--root-password", "disabled"],
    &["--password", "bob:locked"],
    &["--password-crypto", "sha512"],
    &["--commands-from-file", "commands"],
    &["--no-selinux-relabel"],
];

#[test]
fn each_good_use_comes_as_far_as_the_image() {
    let folder = folder();
    let steps = OPTIONS.iter().map(|step| {
        let name = format!("--{}", step.name);
        if step.form.is_empty() { vec![name] } else { vec![name, step.example.to_owned()] }
    });
    let general = GENERAL.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let mut seen =
        BTreeSet::from(["--help", "--version", "--list-operations", "-a", "--add", "-V"].map(str::to_owned));
    for words in general.chain(steps) {
        seen.insert(words[0].clone());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let args = [&words[..], &["-a", "missing.img"]].concat();
        called("virt-sysprep", folder.path(), &args).exits(1).complains("missing.img");
        let args = [&["seal"], &words[..], &["missing.img"]].concat();
        guestseal_in(folder.path(), &args).exits(1).complains("missing.img");
    }
    for words in [&["-m", "2048"][..], &["--memsize", "2048"], &["--smp", "4"], &["--hostna", "web"]] {
        seen.insert(words[0].to_owned());
        let args = [words, &["-a", "missing.img"]].concat();
        called("virt-customize", folder.path(), &args).exits(1).complains("missing.img");
    }
    for refused in REFUSED {
        let value = if refused.takes_value { &["x"][..] } else { &[] };
        let long = format!("--{}", refused.name);
        let args = [&[long.as_str()], value, &["-a", "missing.img"]].concat();
        let run = called("virt-customize", folder.path(), &args);
        run.exits(6).complains(&long).complains(refused.reason).hints();
        if !refused.elsewhere {
            called("virt-sysprep", folder.path(), &args).exits(6).hints();
            guestseal_in(folder.path(), &args).exits(6).hints();
        }
        seen.insert(long);
    }
    // What they do is shown with a real libvirt, in tests/domains.
    for option in ["-c", "--connect"] {
        let args = [option, "test:///default", "-a", "missing.img"];
        called("virt-sysprep", folder.path(), &args).exits(1).complains("missing.img");
        seen.insert(option.to_owned());
    }
    for option in ["-d", "--domain"] {
        let args = [option, "web", "-a", "missing.img"];
        called("virt-sysprep", folder.path(), &args).exits(2).complains("either by -d or by its images");
        seen.insert(option.to_owned());
    }
    let unused: Vec<_> = kept().difference(&seen).cloned().collect();
    assert!(unused.is_empty(), "no use of {unused:?}");
}

#[test]
fn the_other_programs_take_what_they_took_and_no_more() {
    let folder = folder();
    let sysprep = |args: &[&str]| called("virt-sysprep", folder.path(), args);
    sysprep(&["--version"]).exits(0).says("virt-sysprep (guestseal");
    sysprep(&["--help"]).exits(0).says("Usage: virt-sysprep");
    let listed = sysprep(&["--list-operations"]);
    listed.exits(0).says("\nmachine-id * ");
    // Its first column goes back into --enable.
    let names: Vec<_> = listed.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    sysprep(&["--enable", &names.join(","), "-a", "missing.img"]).exits(1).complains("missing.img");
    sysprep(&["image.img"]).exits(2).complains("image.img").hints();
    sysprep(&["inspect", "x.img"]).exits(2).complains("inspect");
    sysprep(&[]).exits(2).complains("no image is named");
    sysprep(&["-a", "nbd://host/disk"]).exits(6).complains("not on this host").hints();
    sysprep(&["--scriptdir", "mnt", "-a", "x.img"]).exits(2).complains("absolute path").hints();
    sysprep(&["--scrub", "/x", "--erase", "none", "-a", "x.img"]).exits(2).complains("--scrub").hints();
    sysprep(&["--password-crypto", "md5", "-a", "x.img"]).exits(6).complains("broken").hints();
    sysprep(&["--password-crypto", "rot13", "-a", "x.img"]).exits(2).complains("rot13").hints();
    // The last of two counts, as there.
    sysprep(&["--hostname", "a_b", "--hostname", "web", "-a", "missing.img"]).exits(1);
    let customize = |args: &[&str]| called("virt-customize", folder.path(), args);
    customize(&["--operations", "logfiles", "-a", "x.img"]).exits(2).complains("no operations").hints();
    customize(&["-a", "missing.img"]).exits(1).complains("missing.img");
}

#[test]
fn each_wrong_value_is_refused_before_the_image_is_opened() {
    let folder = folder();
    let wrong: [(&[&str], &str); 21] = [
        (&["--add", "user:"], "--add user:NAME"),
        (&["--add", "user:bob:key=bob.pub"], "file:FILE or string:KEY"),
        (&["--add", "user:bob:key=file:missing.pub"], "missing.pub"),
        (&["--add", "user:bob:password=hunter2"], "selector"),
        (&["-a", "network:10.0.0.1"], "--add network:dhcp|ADDRESS/PREFIX"),
        (&["--add", "network:dhcp", "--add", "network:dhcp:interface=eth0"], "each needs its interface"),
        (&["--append-line", "/etc/hosts"], "--append-line needs FILE:LINE"),
        (&["--chmod", "755:/x"], "write 0755"),
        (&["--edit", "/x:system(\"ls\")"], "`system`"),
        (&["--mkdir", "relative"], "starts with `/`"),
        (&["--upload", "missing:/x"], "missing"),
        (&["--copy-in", "missing:/x"], "missing"),
        (&["--tar-in", "motd:/x"], "tar file"),
        (&["--firstboot", "missing.sh"], "missing.sh"),
        (&["--ssh-inject", "bob:file:missing.pub"], "missing.pub"),
        (&["--commands-from-file", "missing"], "missing"),
        (&["--profile", "missing.toml"], "missing.toml"),
        (&["--link", "/x"], "--link needs"),
        (&["--run", "missing.sh"], "missing.sh"),
        (&["--run-command", " "], "--run-command needs"),
        (&["--uninstall", "a;b"], "--uninstall needs"),
    ];
    for (args, words) in wrong {
        let args = [args, &["-a", "missing.img"]].concat();
        let run = called("virt-sysprep", folder.path(), &args);
        run.exits(2).complains(words).never_shows("missing.img").never_shows("hunter2");
    }
    for (line, code, words) in [
        ("mkdir /x\nfrobnicate y\n", 2, "line 2 of commands: frobnicate is no command"),
        ("run-command true\nsm-register\n", 6, "line 2 of commands: --sm-register is not done"),
        ("install vim,-y\n", 2, "line 1 of commands: --install needs"),
        ("run missing.sh\n", 2, "line 1 of commands: --run cannot read missing.sh"),
        ("chmod 755:/x\n", 2, "line 1 of commands: --chmod"),
        ("commands-from-file commands\n", 2, "cannot name another"),
        ("hostname a_b\n", 2, "a_b"),
        ("password bob:hunter2\n", 2, "selector"),
    ] {
        fs::write(folder.path().join("commands"), line).unwrap();
        let args = ["--commands-from-file", "commands", "-a", "missing.img"];
        let run = called("virt-sysprep", folder.path(), &args);
        run.exits(code).complains(words).never_shows("hunter2");
    }
}

#[test]
fn options_of_older_notes_come_as_far_as_the_image() {
    let folder = folder();
    let missing = |args: &[&str]| {
        guestseal_in(folder.path(), args).exits(1).complains("missing.img").never_shows("hunter2");
    };
    for words in [
        &["--image", "missing.img", "--remove", "ssh", "--remove", "device"][..],
        &["--delete", "--image", "missing.img"],
        &["--image", "missing.img", "--delete"],
        &["--add", "user:bob:key=file:bob.pub:password=password:hunter2", "--add", "missing.img"],
        &["inspect", "--add", "network:dhcp", "missing.img"],
        &["--add", "network:10.0.0.2/24:gateway=10.0.0.1", "missing.img"],
        &["verify", "--image", "missing.img"],
        &["--root-password", "hunter2-notes", "missing.img"],
        &["--add", "user:bob", "--set", "add-user.users=[{\"name\":\"eve\"}]", "missing.img"],
    ] {
        missing(words);
    }
    // A file of such a name is a disk again.
    guestseal_in(folder.path(), &["-a", "./user:x"]).exits(1).complains("user:x");
    guestseal_in(folder.path(), &["--add", "user:bob"]).exits(2).complains("no image is named");
    guestseal_in(folder.path(), &["verify", "--add", "user:bob", "missing.img"])
        .exits(2)
        .complains("verify adds");
    guestseal_in(folder.path(), &["--tree", ".", "--add", "disk.img"]).exits(2).complains("--tree").hints();
    guestseal_in(folder.path(), &["--add", "user:bob", "--add", "user:bob", "x.img"])
        .exits(2)
        .complains("named twice");
    guestseal_in(folder.path(), &["--add", "user:bob:password=locked", "--password", "bob:random", "x.img"])
        .exits(2)
        .complains("set twice");
    guestseal_in(folder.path(), &["--set", "network.networks=dhcp", "x.img"])
        .exits(2)
        .complains("network.networks");
    called("virt-customize", folder.path(), &["--delete", "-a", "x.img"]).exits(2).complains("no operations");
}

#[test]
fn a_profile_says_the_same_as_options() {
    let folder = folder();
    let with = |text: &str, args: &[&str]| {
        fs::write(folder.path().join("p.toml"), text).unwrap();
        guestseal_in(folder.path(), &[&["--profile", "p.toml"], args, &["missing.img"]].concat())
    };
    let text = "operations = [\"defaults\"]\n[parameters.hostname]\nhostname = \"web\"\n[[password]]\nuser = \"root\"\n\
        selector = \"disabled\"\n[[action]]\nupload = { from = \"motd\", to = \"/etc/motd\" }\n";
    with(text, &["--write", "/x:y"]).exits(1).complains("missing.img");
    with(&text.replace("\"web\"", "\"a_b\""), &[]).exits(2).complains("a_b");
    with(&text.replace("\"web\"", "\"a_b\""), &["--hostname", "web"]).exits(1).complains("missing.img");
    with(&text.replace("from = \"motd\"", "from = \"none\""), &[]).exits(2).complains("none");
    with(&text.replace("disabled", "password:hunter2"), &[])
        .exits(2)
        .complains("profile")
        .never_shows("hunter2");
    with(text, &["--root-password", "locked"]).exits(2).complains("set twice");
    with("operations = [\"nothing\"]\n", &[]).exits(2).complains("unknown operation `nothing`");
    let accounts = "[parameters.add-user]\nusers = '[{\"name\": \"bob\"}]'\n[[action]]\nnetwork = { address = \"dhcp\" }\n";
    with(accounts, &["--add", "user:eve"]).exits(1).complains("missing.img");
    with(accounts, &["--add", "user:bob"]).exits(2).complains("named twice");
    with(&accounts.replace("dhcp", "10.0.0.1"), &[]).exits(2).complains("line 4, column");
    with("opertions = []\n", &[]).exits(2).complains("line 1, column 1");
    with("operations = [\"defaults,-customize\"]\n", &["--mkdir", "/x"])
        .exits(2)
        .complains("customize-steps");
    let run = guestseal_in(folder.path(), &["operations", "schema", "--profile"]);
    assert_eq!(run.exits(0).json()["additionalProperties"], false);
}
