//! The walls between the rooms of this program, checked in the source itself. A room that needs a door is added here
//! with its reason, in the same commit.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

/// Path below src/ and text of every source file, tests at its end left out.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&src).sort_by_file_name().into_iter().map(Result::unwrap);
    let sources: Vec<_> = files
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"))
        .map(|entry| {
            let name = entry.path().strip_prefix(&src).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    sources
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("testing.rs")
}

/// The lines of a file's program: no tests, no comments.
fn program(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    body.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Every line outside the `open` rooms and files that has one of the words.
#[track_caller]
fn only_in(open: &[&str], words: &[&str]) {
    let mut found = Vec::new();
    for (name, text) in
        sources().iter().filter(|(name, _)| !is_test(name) && !open.iter().any(|room| name.starts_with(room)))
    {
        let lines = program(text).filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(number, line)| format!("src/{name}:{number}: {}", line.trim())));
    }
    assert!(found.is_empty(), "only {open:?} may have {words:?}:\n{}", found.join("\n"));
    let used = sources().iter().any(|(name, text)| {
        open.iter().any(|room| name.starts_with(room))
            && program(text).any(|(_, line)| words.iter().any(|word| line.contains(word)))
    });
    assert!(used || open.is_empty(), "nothing in {open:?} has {words:?}: is this wall of use?");
}

#[test]
fn only_sys_starts_processes() {
    only_in(&["sys/"], &["process::Command", "Command::new(", "fork(", "execv", "posix_spawn"]);
}

#[test]
fn only_the_command_line_prints() {
    only_in(&["cli/"], &["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()"]);
}

#[test]
fn only_the_command_line_reads_the_environment() {
    only_in(&["cli/"], &["env::var", "env::args", "env::set_var", "env::vars"]);
}

#[test]
fn nothing_ends_the_process_or_sleeps() {
    only_in(&[], &["process::exit", "process::abort", "thread::sleep"]);
}

/// What shuts this process in stands in one file, and system calls by number in that and in the filter of the guest's programs.
#[test]
fn only_one_file_confines() {
    only_in(&["sys/confine.rs"], &["landlock::", "set_capabilities", "set_no_new_privs"]);
    only_in(&["sys/confine.rs", "sys/refusals.rs"], &["seccompiler::"]);
}

/// Guest files are edited in the confined worker, and nowhere else.
#[test]
fn only_the_worker_applies() {
    only_in(&["worker/mod.rs"], &["apply::apply", "Mode, apply}"]);
}

#[test]
fn unsafe_stands_where_requests_to_the_kernel_do() {
    only_in(
        &[
            "sys/grow.rs",
            "sys/ioctl.rs",
            "sys/exec.rs",
            "sys/interface.rs",
            "sys/partitions.rs",
            "sys/reflink.rs",
        ],
        &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code", "expect(unsafe_code"],
    );
}

/// Paths of the host are nothing for rooms that see the guest or bytes.
#[test]
fn pure_rooms_do_not_open_files_of_the_host() {
    let rooms = ["action/", "disk/", "guest/", "inspect/", "operation/", "plan.rs", "apply.rs", "worker/"];
    // The catalogue reads folders of operations; a password may stand in a file of the host.
    let doors = ["operation/catalogue.rs", "guest/password/change.rs"];
    let words = [
        "std::fs",
        "fs::read",
        "fs::write",
        "fs::remove",
        "File::open",
        "File::create",
        "OpenOptions",
        "File::options",
    ];
    let mut found = Vec::new();
    for (name, text) in sources() {
        if is_test(&name)
            || doors.contains(&name.as_str())
            || !rooms.iter().any(|room| name.starts_with(room))
        {
            continue;
        }
        let lines = program(&text).filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        // The type is fine: GuestRoot hands out open files as such.
        let lines = lines
            .filter(|(_, line)| !["use std::fs::File;", "use std::fs::FileType;"].contains(&line.trim()));
        found.extend(lines.map(|(number, line)| format!("src/{name}:{number}: {}", line.trim())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn rooms_forbid_unsafe_at_their_heads() {
    let rooms = [
        "action/mod.rs",
        "apply.rs",
        "disk/mod.rs",
        "guest/mod.rs",
        "inspect/mod.rs",
        "mount/mod.rs",
        "operation/mod.rs",
        "plan.rs",
        "record/mod.rs",
        "report.rs",
        "seal.rs",
        "session.rs",
        "survey.rs",
        "sys/confine.rs",
        "vm/mod.rs",
        "worker/mod.rs",
    ];
    let sources = sources();
    let lacking = |name: &&str| {
        let text =
            &sources.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no src/{name}")).1;
        !text.contains("#![forbid(unsafe_code)]")
    };
    let lacking: Vec<_> = rooms.iter().copied().filter(lacking).collect();
    assert!(lacking.is_empty(), "{lacking:?} lack #![forbid(unsafe_code)]");
}

#[test]
fn no_file_is_longer_than_500_lines_and_each_says_what_it_is_for() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "src/{name} has {lines} lines");
        assert!(is_test(&name) || text.starts_with("//!"), "src/{name} does not begin with what it is for");
    }
}

#[test]
fn the_program_itself_decides_nothing() {
    let main = sources().into_iter().find(|(name, _)| name == "main.rs").unwrap().1;
    assert!(main.lines().count() < 40);
}

#[test]
fn nothing_is_left_to_do() {
    // Written apart, or this line would be found by others that look for them.
    only_in(
        &[],
        &[
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("X", "XX"),
            concat!("to", "do!("),
            "unimplemented!(",
        ],
    );
}
