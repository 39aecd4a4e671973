use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
    # people\n\
    bob:x:1000:1000:Bob:/home/bob:/bin/bash\n\
    eve:x:1001:1001:Eve:/srv/home/eve/:/bin/sh\n\
    alice:x:1002:100:Alice:/home/alice:/bin/zsh\n\
    high:x:60001:60001::/home/high:/bin/sh\n\
    +::::::\n";
const SHADOW: &str =
    "root:*:1::::::\nbob:$6$a$b:1:0:9:7:::\neve:!:1:0:9:7:::\nalice:!:1:0:9:7:::\nghost:!:1:0:9:7:::\n";
const GROUP: &str =
    "root:x:0:\nsudo:x:27:bob,alice\nusers:x:100:eve\nbob:x:1000:\neve:x:1001:alice\nalice:x:1002:\n";
const GSHADOW: &str = "root:*::\nsudo:*:bob:bob,alice\nbob:!::\neve:!:alice:alice\nalice:!::\n";
const SUBUID: &str = "bob:100000:65536\n1001:165536:65536\nalice:231072:65536\n";

fn files<'a>(passwd: &'a str) -> AccountFiles<'a> {
    AccountFiles {
        passwd: passwd.as_bytes(),
        shadow: Some(SHADOW.as_bytes()),
        group: Some(GROUP.as_bytes()),
        gshadow: Some(GSHADOW.as_bytes()),
        subuid: Some(SUBUID.as_bytes()),
        subgid: None,
    }
}

fn plan(passwd: &str, keep: &[&str], remove: &[&str]) -> Result<RemovalPlan> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    plan_removal(&files(passwd), &LoginDefs::default(), &Who { keep: &owned(keep), remove: &owned(remove) })
}

fn text(plan: &RemovalPlan, path: &str) -> String {
    String::from_utf8(plan.file(path).unwrap_or_else(|| panic!("{path} does not change")).to_vec()).unwrap()
}

fn names(plan: &RemovalPlan) -> Vec<&str> {
    plan.users.iter().map(|user| user.name.as_str()).collect()
}

#[test]
fn without_lists_all_persons_go() {
    let plan = plan(PASSWD, &[], &[]).unwrap();
    assert_eq!(names(&plan), ["bob", "eve", "alice"]);
    let homes: Vec<_> =
        plan.users.iter().map(|user| user.home.as_deref().unwrap().to_str().unwrap()).collect();
    assert_eq!(homes, ["/home/bob", "/srv/home/eve", "/home/alice"]);
    assert!(text(&plan, "/etc/passwd").contains("# people\nhigh:"));
    assert_eq!(text(&plan, "/etc/shadow"), "root:*:1::::::\nghost:!:1:0:9:7:::\n");
    assert_eq!(text(&plan, "/etc/group"), "root:x:0:\nsudo:x:27:\nusers:x:100:\nalice:x:1002:\n");
    assert_eq!(text(&plan, "/etc/gshadow"), "root:*::\nsudo:*::\nalice:!::\n");
    assert_eq!(text(&plan, "/etc/subuid"), "");
    assert!(plan.file("/etc/subgid").is_none());
    assert_eq!(
        plan.warnings,
        [Warning::Group { name: "alice".to_owned(), why: "it is not the user's primary group" }]
    );
}

#[test]
fn lists_choose_and_keep_wins() {
    assert_eq!(names(&plan(PASSWD, &["eve"], &[]).unwrap()), ["bob", "alice"]);
    assert_eq!(names(&plan(PASSWD, &["eve"], &["eve", "alice"]).unwrap()), ["alice"]);
    let one = plan(PASSWD, &[], &["eve"]).unwrap();
    assert_eq!(names(&one), ["eve"]);
    assert_eq!(text(&one, "/etc/group"), GROUP.replace("users:x:100:eve", "users:x:100:"));
    assert_eq!(one.warnings, [Warning::Group { name: "eve".to_owned(), why: "it has other members" }]);
    assert!(one.file("/etc/gshadow").is_none(), "eve is in no list there");
    assert_eq!(text(&one, "/etc/subuid"), "bob:100000:65536\nalice:231072:65536\n");
}

#[test]
fn nothing_to_remove_changes_nothing() {
    let plan = plan(PASSWD, &["bob", "eve", "alice"], &[]).unwrap();
    assert!(plan.users.is_empty() && plan.files.is_empty() && plan.warnings.is_empty());
}

#[test]
fn wrong_names_are_refused() {
    for (keep, remove, hint) in [
        (&["bobb"][..], &[][..], "did you mean bob?"),
        (&[], &["alcie"], "did you mean alice?"),
        (&[], &[""], ""),
        (&[], &["root"], "UID_MIN"),
        (&[], &["daemon"], "UID_MIN"),
        (&[], &["nobody"], "UID_MIN"),
        (&[], &["bob", "high"], "60000"),
    ] {
        let error = plan(PASSWD, keep, remove).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.what_to_do().unwrap_or_default().contains(hint), "{error:?} {:?}", error.what_to_do());
    }
}

#[test]
fn a_hostile_login_defs_cannot_remove_root_or_nobody() {
    let defs = LoginDefs::parse(b"UID_MIN 0\nUID_MAX 4294967295\n");
    let plan = plan_removal(&files(PASSWD), &defs, &Who::default()).unwrap();
    assert_eq!(names(&plan), ["daemon", "bob", "eve", "alice", "high"]);
    assert!(text(&plan, "/etc/passwd").starts_with("root:x:0:0:"));
}

/// A person's line with the name of a system account would take that one along.
#[test]
fn a_name_that_is_also_a_system_account_is_refused() {
    let error = plan(&format!("{PASSWD}daemon:x:1005:1005::/home/d:/bin/sh\n"), &[], &[]).unwrap_err();
    assert!(error.to_string().contains("daemon"), "{error}");
}

#[test]
fn homes_that_are_not_only_a_home_stay() {
    let stays = [
        ("/", HomeStays::System),
        ("//", HomeStays::System),
        ("/home", HomeStays::System),
        ("/home/", HomeStays::System),
        ("/usr/share/zed", HomeStays::System),
        ("/var/lib", HomeStays::System),
        ("/var/lib/dpkg", HomeStays::System),
        ("/var/lib/dpkg/zed", HomeStays::System),
        ("/root/zed", HomeStays::System),
        ("/etc", HomeStays::System),
        ("/var/home", HomeStays::System),
        ("zed", HomeStays::NoPath),
        ("/home/../etc", HomeStays::NoPath),
        ("/var/lib/data", HomeStays::NotOwnName),
        ("/data", HomeStays::NotOwnName),
        ("/opt/app", HomeStays::NotOwnName),
        ("/home/kept", HomeStays::Shared { with: "kept".to_owned() }),
        ("/home/kept/zed", HomeStays::Shared { with: "kept".to_owned() }),
        ("/srv/people", HomeStays::Shared { with: "deep".to_owned() }),
    ];
    let goes = [
        "/home/zed",
        "/srv/zed",
        "/zed",
        "/var/lib/zed",
        "/opt/zed",
        "/var/home/any",
        "/usr/home/any",
        "/data/home/any",
        "/home/kept2",
    ];
    let with_home = |home: &str| {
        let passwd = format!(
            "root:x:0:0::/root:/bin/sh\nsvc:x:10:10::/:/bin/false\nkept:x:1001:1001::/home/kept:/bin/sh\n\
             deep:x:1002:1002::/srv/people/deep:/bin/sh\nzed:x:1000:1000::{home}:/bin/sh\n"
        );
        plan_removal(
            &AccountFiles { passwd: passwd.as_bytes(), ..AccountFiles::default() },
            &LoginDefs::default(),
            &Who { keep: &[], remove: &["zed".to_owned()] },
        )
        .unwrap()
    };
    for (home, why) in stays {
        let plan = with_home(home);
        assert_eq!(plan.users[0].home, None, "{home}");
        let expected = Warning::Home { user: "zed".to_owned(), home: PathBuf::from(home), why };
        assert_eq!(plan.warnings, [expected], "{home}");
    }
    for home in goes {
        let plan = with_home(home);
        assert_eq!(plan.users[0].home.as_deref(), Some(Path::new(home)));
        assert!(plan.warnings.is_empty(), "{home}: {:?}", plan.warnings);
    }
    for home in ["", "/nonexistent", "/dev/null"] {
        let plan = with_home(home);
        assert!(
            plan.users[0].home.is_none() && plan.warnings.is_empty(),
            "{home}: no home is nothing to warn about"
        );
    }
}

#[test]
fn a_real_path_is_asked_about_again() {
    let passwd = "kept:x:1001:1001::/var/home/kept:/bin/sh\nzed:x:1000:1000::/home/kept:/bin/sh\n";
    let files = AccountFiles { passwd: passwd.as_bytes(), ..AccountFiles::default() };
    let remove = ["zed".to_owned()];
    let plan = plan_removal(&files, &LoginDefs::default(), &Who { keep: &[], remove: &remove }).unwrap();
    assert_eq!(plan.users[0].home.as_deref(), Some(Path::new("/home/kept")), "by name alone they differ");
    let real = |path: &Path| {
        Some(Path::new("/var").join(
            path.strip_prefix("/").unwrap().strip_prefix("var").unwrap_or(path.strip_prefix("/").unwrap()),
        ))
    };
    let kept = plan.kept_homes.resolved(real);
    let stays = kept.decide(b"zed", &real(Path::new("/home/kept")).unwrap());
    assert_eq!(stays, Err(HomeStays::Shared { with: "kept".to_owned() }));
    assert_eq!(kept.decide(b"zed", Path::new("/etc")), Err(HomeStays::System));
}

#[test]
fn numbers_shared_with_somebody_who_stays_keep_their_ranges() {
    let passwd = "bob:x:1000:1000::/home/bob:/bin/sh\ntwin:x:1000:1000::/home/twin:/bin/sh\n";
    let files = AccountFiles {
        passwd: passwd.as_bytes(),
        group: Some(b"bob:x:1000:\n"),
        subuid: Some(b"1000:1:1\nbob:2:2\n"),
        ..AccountFiles::default()
    };
    let plan = plan_removal(&files, &LoginDefs::default(), &Who { keep: &["twin".to_owned()], remove: &[] })
        .unwrap();
    assert_eq!(text(&plan, "/etc/subuid"), "1000:1:1\n");
    assert_eq!(
        plan.warnings,
        [Warning::Group { name: "bob".to_owned(), why: "it is another account's primary group" }]
    );
}

#[test]
fn names_that_are_no_file_names_are_told() {
    let passwd = "../../etc:x:1000:1000::/home/a:/bin/sh\nok:x:1001:1001::/home/ok:/bin/sh\nbroken\n";
    let plan = plan(passwd, &[], &[]).unwrap();
    assert_eq!(plan.users.iter().map(RemovedUser::file_name).collect::<Vec<_>>(), [None, Some("ok")]);
    assert!(plan.warnings.contains(&Warning::BrokenLines { count: 1, first: 3 }));
}

#[test]
fn nothing_shows_a_hash() {
    let passwd = "bob:$1$secret$hash:1000:1000::/home/bob:/bin/sh\nroot:$1$secret$hash:0:0::/root:/bin/sh\n";
    let shown = format!("{:?} {:?}", plan(passwd, &[], &[]).unwrap(), files(passwd));
    assert!(!shown.contains("secret"), "{shown}");
}

proptest! {
    #[test]
    fn any_files_do_no_harm(passwd: Vec<u8>, other: Vec<u8>) {
        let files = AccountFiles {
            passwd: &passwd, shadow: Some(&other), group: Some(&other), gshadow: Some(&other), subuid: Some(&other), subgid: Some(&other),
        };
        let _ = plan_removal(&files, &LoginDefs::default(), &Who::default());
    }

    #[test]
    fn who_goes_is_gone_and_who_stays_is_untouched(
        people in prop::collection::btree_map("[a-z]{1,3}", (990_u32..1010, "(/home|/srv|/var)?/[a-z.]{0,3}"), 0..12),
        kept in prop::collection::vec(0_usize..12, 0..4),
    ) {
        let line = |name: &String, uid: u32, home: &String| format!("{name}:x:{uid}:{uid}::{home}:/bin/sh\n");
        let passwd: String = people.iter().map(|(name, (uid, home))| line(name, *uid, home)).collect();
        let keep: Vec<String> = kept.iter().filter_map(|&index| people.keys().nth(index).cloned()).collect();
        let files = AccountFiles { passwd: passwd.as_bytes(), shadow: Some(passwd.as_bytes()), ..AccountFiles::default() };
        let plan = plan_removal(&files, &LoginDefs::default(), &Who { keep: &keep, remove: &[] }).unwrap();
        let stays = |name: &String, uid: u32| uid < 1000 || keep.contains(name);
        let expected: String = people.iter().filter(|(name, (uid, _))| stays(name, *uid)).map(|(name, (uid, home))| line(name, *uid, home)).collect();
        prop_assert_eq!(plan.file("/etc/passwd").unwrap_or(passwd.as_bytes()), expected.as_bytes());
        for home in plan.users.iter().filter_map(|user| user.home.as_ref()) {
            prop_assert!(!is_system_folder(home));
            for (name, (uid, other)) in &people {
                prop_assert!(!(stays(name, *uid) && Path::new(other).starts_with(home)), "{:?} holds {}", home, other);
            }
        }
    }
}
