//! Every operation that is built in, on a Debian-like tree that holds something for each of them.

use guestseal::action::user_accounts::ADDED;
use guestseal::apply::{Mode, apply};
use guestseal::guest::password::PasswordRequest;
use guestseal::operation::{BUILTIN, Catalogue};
use guestseal::plan::{PASSWORDS, Planned};
use guestseal::report::Outcome;
use guestseal::report::Silent;

use super::*;

/// A path that the glob matches.
fn example(glob: &str) -> String {
    let mut path = glob.replacen('~', "/home/bob", usize::from(glob.starts_with('~')));
    while let Some(open) = path.rfind('{') {
        let close = open + path[open..].find('}').unwrap();
        let first = path[open + 1..close].split(',').next().unwrap().to_owned();
        path.replace_range(open..=close, &first);
    }
    while let Some(open) = path.find('[') {
        let close = open + path[open..].find(']').unwrap();
        let inside = &path[open + 1..close];
        let letter =
            if inside.starts_with(['!', '^']) { "z".to_owned() } else { inside.chars().take(1).collect() };
        path.replace_range(open..=close, &letter);
    }
    path.replace("**", "deep/deeper").replace(['*', '?'], "0").replace('\\', "")
}

fn populated() -> Tree {
    let tree = system::debian("12");
    for (path, content) in [
        ("/etc/shadow", "root:*:19000:0:99999:7:::\nbob:!:19000:0:99999:7:::\n"),
        ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("/etc/hostname", "template\n"),
        ("/etc/hosts", "127.0.1.1 template\n"),
        ("/etc/group", "root:x:0:\nbob:x:1000:\n"),
        ("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "-> /x"),
        ("/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("/usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D\n"),
    ] {
        tree.put(path, content);
    }
    let catalogue = Catalogue::load(BUILTIN, &[]).unwrap();
    let actions = catalogue.sorted().into_iter().flat_map(|operation| &operation.actions);
    for glob in actions.flat_map(|action| match action {
        Action::Remove(remove) => &remove.paths[..],
        Action::Truncate(truncate) => &truncate.paths[..],
        _ => &[],
    }) {
        let path = tree.at(example(glob));
        // Two globs may want a file and a folder of the same name: the first has it.
        if path.symlink_metadata().is_err() && fs::create_dir_all(path.parent().unwrap()).is_ok() {
            fs::write(path, "left behind").unwrap();
        }
    }
    tree
}

fn planned() -> Vec<Planned> {
    let catalogue = Catalogue::load(BUILTIN, &[]).unwrap();
    // hostname-unset is the opposite of hostname, and a seed that of its removal; new UUIDs need volumes.
    let opposites = ["hostname-unset", "random-seed-new", "random-seed-place"];
    let doing = catalogue.sorted().into_iter().filter(|operation| {
        operation.new_uuids().next().is_none() && !opposites.contains(&operation.name.as_str())
    });
    let plan = |operation: &guestseal::operation::Operation| {
        let given = [
            ("hostname", "web"),
            ("timezone", "Europe/Berlin"),
            ("users", "[{\"name\":\"mary\"}]"),
            ("networks", "[{\"address\":\"dhcp\"}]"),
        ];
        let values = operation.parameters.iter().filter_map(|(name, parameter)| {
            let given = given.iter().find(|(given, _)| given == name).map(|(_, value)| (*value).to_owned());
            Some((name.clone(), given.or_else(|| parameter.default.clone())?))
        });
        let mut settings = Settings { values: values.collect(), ..Settings::default() };
        if operation.name == "user-account" {
            settings.values.insert(ADDED.to_owned(), "mary".to_owned());
        }
        if operation.name == PASSWORDS.0 {
            let request = PasswordRequest::root("password:correct horse").unwrap();
            settings.passwords = vec![(request.user, request.selector.load().unwrap())];
        }
        Planned { operation: operation.clone(), settings, sources: Vec::new() }
    };
    doing.map(plan).collect()
}

#[test]
fn every_operation_does_its_work_once() {
    let tree = populated();
    let root = GuestRoot::open(tree.0.path()).unwrap();
    let guest = Guest::examine(&root).unwrap();
    let planned = planned();
    let run = |mode| apply(&planned, (&root, &guest), mode, &mut Silent).unwrap();
    let before = run(Mode::Look);
    let first = run(Mode::Change);
    let changed = |reports: &[guestseal::report::OperationReport]| {
        let of = reports.iter().filter(|report| report.outcome == Outcome::Changed);
        of.map(|report| format!("{}: {:?}", report.name, report.files)).collect::<Vec<_>>()
    };
    assert!(changed(&first).len() > 100, "only {} operations had something to do", changed(&first).len());
    assert!(changed(&before).len() >= changed(&first).len());
    let again = changed(&run(Mode::Look));
    assert!(again.is_empty(), "done again, these would still change something:\n{}", again.join("\n"));
    // What every guest needs is still there.
    for path in
        ["/etc/passwd", "/etc/shadow", "/etc/os-release", "/usr/sbin/sshd", "/usr/lib/systemd/systemd"]
    {
        assert!(tree.has(path), "{path}");
    }
    let touched = |path: &str| {
        let by = first.iter().filter(|report| report.files.iter().any(|file| file.path == Path::new(path)));
        by.map(|report| report.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(touched("/etc/machine-id"), ["machine-id"]);
    assert_eq!(
        fs::read_to_string(tree.at("/etc/machine-id")).ok().as_deref(),
        Some(""),
        "{:?} {:?}",
        guest.init,
        first.last()
    );
    assert!(
        !tree.text("/etc/passwd").contains("bob:")
            && tree.text("/etc/passwd").contains("\nmary:x:1000:1000:")
    );
    assert!(tree.has("/etc/systemd/network/00-guestseal.network"));
}

#[test]
fn looking_changes_nothing() {
    let tree = populated();
    let list = || {
        let all =
            walkdir::WalkDir::new(tree.0.path()).sort_by_file_name().into_iter().map(|entry| entry.unwrap());
        all.map(|entry| {
            let stat = entry.metadata().unwrap();
            (entry.path().to_owned(), stat.len(), stat.mode(), stat.mtime_nsec(), stat.ctime_nsec())
        })
        .collect::<Vec<_>>()
    };
    let before = list();
    let root = GuestRoot::open(tree.0.path()).unwrap();
    let guest = Guest::examine(&root).unwrap();
    apply(&planned(), (&root, &guest), Mode::Look, &mut Silent).unwrap();
    assert!(list() == before);
}
