//! The program as its users meet it: what it prints, where, and with which exit code. No image is changed and no
//! privilege is needed; what only root gets to see is asked of root only.
//!
//! `SNAPSHOTS=overwrite cargo test --test cli` writes the snapshots again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arguments;
#[path = "../common/mod.rs"]
mod common;
mod images;
mod virt;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// One run of the program and all that can be known about it afterwards.
struct Run {
    command: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn check(&self, good: bool, wanted: &str) -> &Self {
        let Self { command, code, stdout, stderr } = self;
        assert!(
            good,
            "{wanted}\n$ {command}\nstatus: {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---"
        );
        self
    }

    #[track_caller]
    fn exits(&self, code: i32) -> &Self {
        self.check(self.code == Some(code), &format!("the exit code must be {code}"))
    }

    /// Something on stderr, and no more than that: a panic is no error message.
    #[track_caller]
    fn complains(&self, text: &str) -> &Self {
        self.check(self.stderr.contains(text), &format!("stderr must have {text:?}"));
        self.check(!self.stderr.contains("panicked"), "nothing may panic")
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        self.check(self.stdout.contains(text), &format!("stdout must have {text:?}"))
    }

    #[track_caller]
    fn hints(&self) -> &Self {
        self.check(self.stderr.contains("what to do: "), "the error must say what to do")
    }

    #[track_caller]
    fn never_shows(&self, secret: &str) -> &Self {
        self.check(
            !self.stdout.contains(secret) && !self.stderr.contains(secret),
            "the secret must not be shown",
        )
    }

    #[track_caller]
    fn json(&self) -> Value {
        let value = serde_json::from_str(&self.stdout);
        self.check(value.is_ok(), "stdout must be one JSON document");
        value.unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests start the program itself")]
fn start(folder: &Path, program: &OsStr, args: &[&str]) -> Run {
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .current_dir(folder)
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C"), ("COLUMNS", "100")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Run {
        command: format!("{} {}", program.to_string_lossy(), args.join(" ")),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_guestseal");

fn guestseal_in(folder: &Path, args: &[&str]) -> Run {
    start(folder, OsStr::new(PROGRAM), args)
}

/// In an empty folder: no argument of these runs may be a file.
fn guestseal(args: &[&str]) -> Run {
    guestseal_in(TempDir::new().unwrap().path(), args)
}

#[track_caller]
fn snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    let expected = snapbox::Data::read_from(&path, Some(snapbox::data::DataFormat::Text)).raw();
    snapbox::Assert::new().action_env("SNAPSHOTS").eq(text.to_owned(), expected);
}

const COMMANDS: [&[&str]; 19] = [
    &[],
    &["seal"],
    &["inspect"],
    &["verify"],
    &["recover"],
    &["clone"],
    &["template"],
    &["template", "create"],
    &["template", "list"],
    &["template", "show"],
    &["template", "verify"],
    &["template", "delete"],
    &["operations"],
    &["operations", "list"],
    &["operations", "show"],
    &["operations", "validate"],
    &["operations", "schema"],
    &["completions"],
    &["man"],
];

#[test]
fn help_of_every_command_is_what_it_was_and_fits_a_line() {
    for command in COMMANDS {
        let run = guestseal(&[command, &["--help"]].concat());
        run.exits(0).says("Usage: guestseal");
        let longest = run.stdout.lines().map(|line| line.chars().count()).max();
        run.check(longest <= Some(100), "no line may be longer than 100 columns");
        let name = [&["help"], command].concat().join("-");
        snapshot(&name, &run.stdout);
    }
}

#[test]
fn every_subcommand_is_in_the_table_of_this_test() {
    let named = |words: &[&str], within: usize| {
        let help = guestseal(&[words, &["--help"]].concat()).stdout;
        let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        let names: Vec<String> =
            list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
        assert!(names.len() > within, "{names:?}");
        names
    };
    for name in named(&[], 6).iter().filter(|name| *name != "help") {
        assert!(COMMANDS.contains(&&[name.as_str()][..]), "{name}");
    }
    for command in ["operations", "template"] {
        for name in named(&[command], 3).iter().filter(|name| *name != "help") {
            assert!(COMMANDS.contains(&&[command, name.as_str()][..]), "{command} {name}");
        }
    }
}

/// virt-sysprep's: scripts split these lines at blanks.
#[test]
fn operations_are_listed_as_virt_sysprep_does() {
    let run = guestseal(&["--list-operations"]);
    run.exits(0).check(run.stderr.is_empty(), "stderr must be empty");
    for line in run.stdout.lines() {
        let parts: Vec<&str> = line.splitn(2, ' ').collect();
        let good = parts.len() == 2 && (parts[1].starts_with("* ") || parts[1].starts_with("  "));
        let name = parts[0]
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
        run.check(
            good && name && line.len() > parts[0].len() + 10,
            &format!("the line {line:?} must be NAME, * or blank, SUMMARY"),
        );
    }
    let names: Vec<&str> = run.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    run.check(names.is_sorted(), "the names must be sorted");
    run.says("\nmachine-id * ").says("\nhostname   ").says("ssh-hostkeys * ").says("lvm-uuids   ");
    for same in [&["operations", "list"][..], &["seal", "--list-operations"], &["-q", "operations", "list"]] {
        let other = guestseal(same);
        other.check(other.stdout == run.stdout, "all ways to list must print the same");
    }
    let json = guestseal(&["operations", "list", "--json"]).json();
    assert_eq!(json.as_array().unwrap().len(), names.len());
}

const OPERATION: &str = "name = \"our-tool\"\nsummary = \"Remove the identity of our tool\"\nreason = \"On: it names the machine\"\n\
    default = true\n\n[[action]]\n[action.remove]\npaths = [\"/var/lib/our-tool/id\"]\n";

#[test]
fn one_operation_is_shown_whole() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("our.toml"), OPERATION).unwrap();
    let args = ["operations", "show", "our-tool", "--operations-dir", "."];
    let run = guestseal_in(folder.path(), &args);
    run.exits(0);
    snapshot("show-our-tool", &run.stdout);
    let json = guestseal_in(folder.path(), &[&args[..], &["--json"]].concat()).json();
    assert_eq!(json["action"][0]["remove"]["paths"][0], "/var/lib/our-tool/id");
    guestseal(&["operations", "show", "ssh-hostkey"]).exits(2).complains("did you mean `ssh-hostkeys`?");
    // What is shown is an operation file again.
    let shown = guestseal(&["operations", "show", "ssh-hostkeys"]).stdout;
    fs::write(folder.path().join("shown.toml"), shown).unwrap();
    guestseal_in(folder.path(), &["operations", "validate", "shown.toml"]).exits(0).says("shown.toml: good");
}

#[test]
fn the_schema_allows_no_unknown_key() {
    let run = guestseal(&["operations", "schema"]);
    let schema = run.exits(0).json();
    assert_eq!(schema["additionalProperties"], false);
    let verbs = schema["$defs"]["Action"]["oneOf"].as_array().unwrap();
    assert!(verbs.len() >= 15, "{}", verbs.len());
    for verb in verbs {
        assert_eq!(verb["additionalProperties"], false, "{verb}");
        let properties = verb["properties"].as_object().unwrap();
        for (name, value) in properties {
            let inner = value["$ref"].as_str().and_then(|to| to.strip_prefix("#/$defs/")).unwrap();
            assert_eq!(schema["$defs"][inner]["additionalProperties"], false, "{name}");
        }
    }
}

#[test]
fn operation_files_are_checked_and_errors_say_where() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("good.toml"), OPERATION).unwrap();
    let bad = [
        (
            "key.toml",
            OPERATION.replace("default = true", "default = true\ndefualt = false"),
            "defualt",
            "line 5, column 1",
        ),
        ("verb.toml", OPERATION.replace("action.remove", "action.remov"), "remov", "line 7, column 9"),
        ("option.toml", format!("{OPERATION}recursiv = true\n"), "recursiv", "line 9, column 1"),
        ("glob.toml", OPERATION.replace("/var/lib", "/var/../lib"), "..", "line 8, column 10"),
        ("toml.toml", OPERATION.replace("[[action]]", "[[action]"), "", "line 6, column 10"),
        (
            "type.toml",
            OPERATION.replace("default = true", "default = \"yes\""),
            "boolean",
            "line 4, column 11",
        ),
    ];
    for (name, text, word, place) in &bad {
        fs::write(folder.path().join(name), text).unwrap();
        let run = guestseal_in(folder.path(), &["operations", "validate", name]);
        run.exits(2).complains(name).complains(word).complains(place);
    }
    // The others are checked as well, and a folder with a bad file in it is refused by every command.
    let run = guestseal_in(folder.path(), &["operations", "validate", "key.toml", "good.toml", "verb.toml"]);
    run.exits(2).complains("defualt").complains("`remov`").says("good.toml: good");
    let json =
        guestseal_in(folder.path(), &["operations", "validate", "--json", "good.toml", "key.toml"]).json();
    assert_eq!(json["images"][1]["error"]["kind"], "usage", "{json}");
    guestseal_in(folder.path(), &["inspect", "--operations-dir", ".", "x.img"]).exits(2).complains("line ");
    guestseal(&["operations", "validate", "missing.toml"]).exits(2).complains("missing.toml");
    guestseal(&["operations", "list", "--operations-dir", "missing"]).exits(2).complains("missing");
}
