//! Arguments that cannot be meant, and what is printed about them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::common::{has_tool, require};
use crate::{PROGRAM, guestseal, guestseal_in, start};

/// What the command line alone decides: arguments, exit code, words of the error, whether it says what to do.
const WRONG: [(&[&str], i32, &str, bool); 71] = [
    (&[], 2, "no image is named", true),
    (&["seal"], 2, "no image is named", true),
    (&["inspect"], 2, "<IMAGE>", false),
    (&["--bogus", "x.img"], 2, "--bogus", false),
    (&["--operations", "nope-nope", "x.img"], 2, "unknown operation `nope-nope`", true),
    (&["--operations", "ssh-hostkey", "x.img"], 2, "did you mean `ssh-hostkeys`?", true),
    (&["inspect", "--operation", "logfile", "x.img"], 2, "did you mean `logfiles`?", true),
    (&["--operations", "", "x.img"], 2, "empty operation name", false),
    (&["--operations", "defaults,,logfiles", "x.img"], 2, "empty operation name", false),
    (&["--operations", "defaults,-", "x.img"], 2, "empty operation name", false),
    (&["--operations", "--logfiles", "x.img"], 2, "unknown operation", true),
    (&["--enable", "defaults", "x.img"], 2, "unknown operation `defaults`", true),
    (&["--enable", "logfiles", "--operations", "logfiles", "x.img"], 2, "exclude one another", true),
    (&["--enable", "logfiles", "--remove", "ssh", "x.img"], 2, "exclude one another", true),
    (&["--remove", "nothing", "x.img"], 2, "ssh, logs, user, device", false),
    (
        &["--operations", "defaults,-hostname", "--hostname", "web", "x.img"],
        2,
        "takes away the operation `hostname`",
        true,
    ),
    (&["--sm-register", "x.img"], 6, "--sm-register is not done: it runs subscription-manager", true),
    (&["-d", "web", "-d", "db"], 2, "one domain at a time", true),
    (&["-d", "web", "x.img"], 2, "either by -d or by its images", false),
    (&["inspect", "-d", "web", "-a", "x.img"], 2, "either by -d or by its images", false),
    (&["verify", "-d", "web", "--format", "raw"], 2, "--format does not go with -d", false),
    (&["-d", ""], 2, "-d needs the name of a domain", true),
    (&["-c", "test:///default", "x.img"], 2, "-c says where a domain is", true),
    (&["-c", "esx://root:secret@host", "-d", "web"], 2, "has a password in it", true),
    (&["--shutdown", "x.img"], 2, "--shutdown is about a domain", true),
    (&["--shutdown-timeout", "9", "-d", "web"], 2, "--shutdown", false),
    (&["-d", "web", "--shutdown", "--shutdown-timeout", "0"], 2, "--shutdown-timeout", false),
    (&["-d", "web", "--no-shutdown"], 2, "--no-shutdown seals a copy", true),
    (&["--tree", "missing", "-d", "web"], 2, "--domain <DOMAIN>", false),
    (&["inspect", "--sm-register", "x.img"], 6, "--sm-register is not done", true),
    (&["--format", "raw", "--format", "qcow2", "x.img"], 2, "--format is given more than once", true),
    (&["-a", "missing.img", "-a", "b.img"], 1, "cannot find the image missing.img", false),
    (&["-a", "a.img", "-a", "b.img", "--output", "new"], 2, "one image at a time", true),
    (&["-a", "a.img", "b.img"], 2, "either with -a or without", true),
    (&["inspect", "-a", "a.img", "b.img"], 2, "either with -a or without", true),
    (&["verify", "-a", "a.img", "b.img"], 2, "either with -a or without", true),
    (&["verify", "--tree", "missing", "-a", "a.img"], 2, "--add names a disk image", false),
    (&["verify", "-a", "missing.img", "-a", "b.img"], 1, "cannot find the image missing.img", false),
    (&["--hostname", "bad_name", "x.img"], 2, "\"bad_name\" is no host name", false),
    (&["--hostname", "", "x.img"], 2, "it is empty", false),
    (&["--hostname", "10.0.0.1", "x.img"], 2, "it is an IP address", false),
    (&["--timezone", "../../etc/passwd", "x.img"], 2, "is no time zone", false),
    (&["--set", "hostname", "x.img"], 2, "OPERATION.PARAMETER=VALUE", false),
    (&["--set", "hostname.nam=x", "x.img"], 2, "no parameter `nam`", false),
    (&["--set", "hostnam.hostname=x", "x.img"], 2, "did you mean `hostname`?", true),
    (&["--script", "missing.sh", "x.img"], 2, "missing.sh", false),
    (&["--output", "new", "a.img", "b.img"], 2, "one image at a time", true),
    (&["--output", "new", "--in-place", "a.img"], 2, "--in-place", false),
    (&["--compress", "a.img"], 2, "--output", false),
    (&["--format", "iso", "a.img"], 2, "qcow2, raw, vmdk, vdi, vhdx", false),
    (&["-n", "inspect", "x.img"], 2, "--dry-run stands before the command `inspect`", true),
    (&["-a", "x.img", "inspect", "y.img"], 2, "stands before the command `inspect`", true),
    (&["x.img", "inspect"], 2, "the command `inspect` stands after other arguments", true),
    (&["x.img", "seal"], 2, "the command `seal` stands after other arguments", true),
    (&["seal", "missing.img"], 1, "missing.img", false),
    (&["verify", "missing.img"], 1, "cannot find the image missing.img", false),
    (&["recover", "missing.img"], 1, "missing.img", false),
    (&["--mount-options", "/:noatime,suid", "missing.img"], 2, "would weaken", true),
    (&["--mount-options", "/:device=/dev/sda", "missing.img"], 2, "names something else", true),
    (&["inspect", "--mount-options", "noatime", "missing.img"], 2, "names no mount point", true),
    (&["verify", "--mount-options", "/:ro;/:rw", "missing.img"], 2, "names / twice", false),
    (&["--tree", "missing", "--mount-options", "/:ro"], 2, "--mount-options <POINT:OPTIONS>", false),
    (&["--tree", "missing"], 1, "cannot find the folder missing", false),
    (&["--tree", "missing", "x.img"], 2, "'--tree <DIR>' cannot be used with '[IMAGE]...'", false),
    (&["--tree", "missing", "-a", "x.img"], 2, "--add names a disk image", false),
    (&["--tree", "missing", "--output", "new"], 2, "--output <NEW>", false),
    (&["--tree", "missing", "--in-place"], 2, "--in-place", false),
    (&["--tree", "missing", "--erase", "full"], 2, "--erase <POLICY>", false),
    (&["--tree", "missing", "--attach", "auto"], 2, "--attach <WAY>", false),
    (&["inspect", "--tree", "missing", "--format", "raw"], 2, "--format <FORMAT>", false),
    (&["verify", "--tree", "missing", "--residue"], 2, "--residue", false),
];

#[test]
fn wrong_command_lines_are_refused_with_their_code() {
    for (args, code, words, hint) in WRONG {
        let run = guestseal(args);
        run.exits(code).complains(words);
        run.check(run.stdout.is_empty(), "stdout is for results");
        if hint {
            run.hints();
        }
    }
}

#[test]
fn errors_are_json_too_when_asked_for() {
    let kinds = [(1, "failed"), (2, "usage"), (6, "unsupported"), (7, "host-lacks")];
    for (args, code, _, hint) in WRONG {
        let run = guestseal(&[&["--json"], args].concat());
        let json = run.exits(code).json();
        let error = if json["images"].is_array() { &json["images"][0]["error"] } else { &json["error"] };
        let kind = kinds.iter().find(|(number, _)| *number == code).unwrap().1;
        run.check(error["kind"] == kind && error["exit-code"] == code, "the document must have the kind");
        run.check(error["message"].as_str().is_some_and(|text| !text.is_empty()), "and a message");
        run.check(!hint || error["what-to-do"].is_string(), "and what to do");
    }
}

#[test]
fn general_options_may_stand_before_the_command() {
    for option in ["--json", "-v", "-q", "-x", "--color=never"] {
        let run = guestseal(&[option, "inspect", "missing.img"]);
        run.exits(1).complains("missing.img");
        run.check(!run.stderr.contains("image inspect"), "`inspect` is a command here");
    }
}

#[test]
fn passwords_are_never_shown() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    let wrong: [&[&str]; 8] = [
        &["--root-password", "pasword:hunter2"],
        &["--root-password", "random:hunter2"],
        &["--root-password", "locked:hunter2"],
        &["--password", "hunter2"],
        &["--password", "bob:hunter2"],
        &["--password", "password:hunter2"],
        &["--set", "root-password.passwords=hunter2"],
        &["--password", "bob:password:hunter2", "--password", "bob:password:hunter2"],
    ];
    for args in wrong {
        for json in [&["x.img"][..], &["--json", "x.img"]] {
            guestseal_in(folder.path(), &[args, json].concat()).exits(2).never_shows("hunter2");
        }
    }
    for right in ["hunter2", "password:hunter2", "locked:password:hunter2"] {
        let run = guestseal_in(folder.path(), &["--root-password", right, "missing.img"]);
        run.exits(1).complains("every user of this host can read it").never_shows("hunter2");
    }
    guestseal_in(folder.path(), &["--root-password", "file:empty", "x.img"]).exits(2);
    guestseal_in(folder.path(), &["--root-password", "file:missing", "x.img"]).exits(2).complains("missing");
    guestseal_in(folder.path(), &["--root-password", "", "x.img"]).exits(2).complains("is empty");
}

#[test]
fn a_random_password_needs_a_terminal() {
    if !require(has_tool("setsid"), "no setsid to run without a terminal") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let run = start(
        folder.path(),
        OsStr::new("setsid"),
        &["--wait", PROGRAM, "--root-password", "random", "x.img"],
    );
    run.exits(2).complains("terminal").hints();
}

#[test]
fn completions_and_manual_name_what_there_is() {
    for (shell, mark) in
        [("bash", "complete -F _guestseal"), ("zsh", "#compdef guestseal"), ("fish", "complete -c guestseal")]
    {
        let run = guestseal(&["completions", shell]);
        run.exits(0).says(mark).says("list-operations").says("no-regenerate");
        run.check(run.stderr.is_empty(), "stderr must be empty");
    }
    guestseal(&["completions", "basic"]).exits(2);
    let run = guestseal(&["man"]);
    run.exits(0).says(".TH guestseal 1").says("\\-\\-list\\-operations").says("Exit codes");
    let folder = TempDir::new().unwrap();
    guestseal_in(folder.path(), &["man", "--dir", "."]).exits(0);
    for page in ["guestseal.1", "guestseal-seal.1", "guestseal-operations-show.1"] {
        assert!(folder.path().join(page).is_file(), "{page}");
    }
    guestseal(&["man", "--dir", "missing"]).exits(1).complains("missing");
}

/// `| head` closes the pipe in the middle: no panic, no error.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for command in ["completions bash", "man", "operations schema", "--list-operations", "--help"] {
        let line = format!("{PROGRAM} {command} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}");
        let run = start(Path::new("/"), OsStr::new("bash"), &["-c", &line]);
        run.exits(0).check(run.stderr.is_empty(), "stderr must be empty");
    }
}

#[test]
fn colours_are_off_in_a_pipe_and_on_when_asked_for() {
    let plain = guestseal(&["seal", "missing.img"]);
    plain.check(!plain.stderr.contains('\u{1b}'), "no colours in a pipe");
    let coloured = guestseal(&["--color", "seal", "missing.img"]);
    coloured.exits(1).check(coloured.stderr.contains('\u{1b}'), "colours when asked for");
}
