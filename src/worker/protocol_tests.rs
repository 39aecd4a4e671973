use super::super::conversation::{Conversation, Heard};
use super::*;
use crate::apply::{Left, MOST_LEFT, Mode};
use crate::erase::fingerprint::{Coverage, Window};
use crate::error::ErrorKind;
use crate::guest::change::Verb;
use crate::guest::password::PasswordRequest;
use crate::operation::{BUILTIN, Catalogue};
use proptest::prelude::*;
use std::error::Error as _;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

fn bytes_of(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, message).unwrap();
    bytes
}

fn through<T: DeserializeOwned>(message: &impl Serialize) -> T {
    read_message(&mut &bytes_of(message)[..]).unwrap()
}

/// Loaded once: that takes its time in a build for tests.
fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::load(BUILTIN, &[]).unwrap());
    &CATALOGUE
}

fn planned(name: &str, values: &[(&str, &str)], password: Option<&str>) -> Planned {
    let operation = catalogue().get(name).unwrap().clone();
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let passwords = password.map(|text| {
        let request = PasswordRequest::root(text).unwrap();
        (request.user, request.selector.load().unwrap())
    });
    Planned {
        operation,
        settings: Settings { values, passwords: passwords.into_iter().collect(), ..Settings::default() },
        sources: Vec::new(),
    }
}

fn guest() -> Guest {
    let home = PathBuf::from(OsString::from_vec(b"/home/\xff\n".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::examine(&crate::guest::GuestRoot::open(folder.path()).unwrap()).unwrap();
    guest.homes = vec![home, "/root".into()];
    guest.architecture = Some("x86_64".into());
    guest
}

fn start(operations: &[Planned]) -> ToWorker<'static> {
    let start = Start {
        version: VERSION,
        mode: Mode::Change,
        at_once: true,
        fingerprints: true,
        guest: Cow::Owned(guest()),
        mount_points: vec!["/boot".into()],
        operations: operations.iter().map(Into::into).collect(),
    };
    through(&ToWorker::Start(Box::new(start)))
}

#[test]
fn every_operation_crosses_whole() {
    let all: Vec<_> = catalogue()
        .sorted()
        .into_iter()
        .map(|operation| planned(&operation.name, &[("a", "b,\"\n")], None))
        .collect();
    assert!(all.len() > 100);
    let ToWorker::Start(heard) = start(&all) else { panic!("no start") };
    assert_eq!(serde_json::to_value(heard.guest.as_ref()).unwrap(), serde_json::to_value(guest()).unwrap());
    assert_eq!(heard.guest.homes, guest().homes);
    for (heard, said) in heard.operations.into_iter().map(Planned::from).zip(&all) {
        let json = |planned: &Planned| serde_json::to_value(&planned.operation).unwrap();
        assert_eq!(json(&heard), json(said));
        assert_eq!(heard.settings.values, said.settings.values);
    }
}

#[test]
fn a_password_crosses_and_is_not_to_be_read_on_the_way() {
    for text in ["password:one\"\\two\t ☃", "locked:password:x", "disabled", "locked"] {
        let said = planned("root-password", &[], Some(text));
        let message = ToWorker::Start(Box::new(Start {
            version: VERSION,
            mode: Mode::Change,
            at_once: false,
            fingerprints: false,
            guest: Cow::Owned(guest()),
            mount_points: Vec::new(),
            operations: vec![(&said).into()],
        }));
        let on_the_way = String::from_utf8_lossy(&bytes_of(&message)[4..]).into_owned();
        assert!(!on_the_way.contains("one\\\"") && !on_the_way.contains('☃'), "{on_the_way}");
        let ToWorker::Start(heard) = through(&message) else { panic!("no start") };
        let heard = Planned::from(heard.operations.into_iter().next().unwrap());
        let field = |planned: &Planned| {
            let (user, change) = &planned.settings.passwords[0];
            let field = change.field(crate::guest::password::Scheme::Sha512Crypt).unwrap();
            (user.clone(), field.expose().to_owned())
        };
        let (user, field) = field(&heard);
        assert_eq!(user, "root");
        assert!(said.settings.passwords[0].1.is_in(field.as_bytes()), "{text}");
    }
}

#[test]
fn errors_keep_kind_hint_and_causes() {
    let error = Error::usage("no such zone")
        .hint("say another")
        .caused_by(Error::failed("middle").caused_by(io::Error::other("deep")))
        .within("the operation timezone failed")
        .and_also(Error::failed("and that").caused_by(io::Error::other("why")));
    let back = through::<WireError>(&WireError::from(&error)).into_error();
    assert_eq!(back.kind(), ErrorKind::Usage);
    assert_eq!(back.chain(), "the operation timezone failed: no such zone: middle: deep");
    assert_eq!(back.chain(), error.chain());
    assert_eq!(back.what_to_do(), Some("say another"));
    assert_eq!(back.also()[0].chain(), "and that: why");
    assert!(back.source().is_some());
}

#[test]
fn a_worker_cannot_speak_for_the_image() {
    for kind in [ErrorKind::Busy, ErrorKind::Interrupted, ErrorKind::Found] {
        assert_eq!(
            through::<WireError>(&WireError::from(&Error::new(kind, "x"))).into_error().kind(),
            ErrorKind::Failed
        );
    }
}

#[test]
fn long_texts_are_cut() {
    let error = Error::failed("é".repeat(1 << 20)).caused_by(io::Error::other("x".repeat(1 << 20)));
    assert!(bytes_of(&WireError::from(&error)).len() < 300_000);
}

#[test]
fn lengths_and_ends_are_told_apart() {
    let read = |bytes: &[u8]| read_message::<FromWorker>(&mut &bytes[..]).unwrap_err();
    let whole = bytes_of(&FromWorker::Done);
    for cut in 0..whole.len() {
        assert!(matches!(read(&whole[..cut]), Broken::Ended), "{cut}");
    }
    let mut lying = whole;
    lying[..4].copy_from_slice(&(MESSAGE_LIMIT + 1).to_le_bytes());
    assert!(matches!(read(&lying), Broken::Protocol(_)));
    assert!(matches!(read(b"\x02\0\0\0{}"), Broken::Protocol(_)));
    let secret = read(b"\x0e\0\0\0{\"hunter2\": 1}").to_string();
    assert!(!secret.contains("hunter2"), "{secret}");
    let long = FromWorker::Script("x".repeat(MESSAGE_LIMIT as usize).into());
    assert_eq!(write_message(&mut Vec::new(), &long).unwrap_err().kind(), ErrorKind::Unsupported);
}

fn link() -> crate::guest::labels::LinkLabel {
    serde_json::from_str(r#"{"path":"/etc/link","label":[120]}"#).unwrap()
}

fn confinement() -> Confinement {
    Confinement { landlock: Some(7), seccomp: true, capabilities: vec!["CHOWN".into()] }
}

fn ending(name: &str) -> FromWorker {
    let (outcome, tally) = (Outcome::Changed, Tally::default());
    FromWorker::Operation(Ending { name: name.into(), outcome, tally, milliseconds: 1 })
}

/// What a worker may say at some time, right or wrong.
fn word() -> impl Strategy<Value = FromWorker> {
    let path =
        prop::collection::vec(1_u8.., 1..20).prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    let name = prop::sample::select(vec!["logfiles", "script", "machine-id", "x"]);
    let script = prop::sample::select(vec!["/a", "/b", "/etc/passwd"]);
    prop_oneof![
        2 => Just(FromWorker::Ready { version: VERSION, confinement: confinement() }),
        1 => Just(FromWorker::Ready { version: 9, confinement: confinement() }),
        4 => path.clone().prop_map(|path| FromWorker::File(FileReport { action: Verb::Remove, path, bytes: 1 })),
        2 => path.prop_map(|path| FromWorker::Note(Note { path: Some(path), message: "m".into() })),
        1 => (0..3_u32, any::<u64>()).prop_map(|(source, offset)| FromWorker::Piece { source, offset }),
        3 => script.prop_map(|script| FromWorker::Script(script.into())),
        1 => (0..3_usize).prop_map(|action| FromWorker::Program { action, script: "true".into() }),
        1 => Just(FromWorker::Label(link())),
        1 => Just(FromWorker::Output("line".into())),
        6 => name.prop_map(ending),
        2 => Just(FromWorker::Done),
        1 => Just(left("logfiles")),
        1 => prop::collection::vec(any::<Window>(), 0..9).prop_map(|windows| prints(&windows)),
        1 => Just(FromWorker::Failed((&Error::failed("x")).into())),
    ]
}

fn left(operation: &str) -> FromWorker {
    FromWorker::Left(Left { operation: operation.into(), path: "/tmp/x".into() })
}

#[test]
fn what_is_left_is_told_when_all_is_done_and_not_without_end() {
    let plan = plan();
    let after = |words: &[FromWorker], mode| {
        let mut conversation = Conversation::new(&plan, mode);
        conversation.hear(FromWorker::Ready { version: VERSION, confinement: confinement() }).unwrap();
        words.iter().for_each(|word| drop(conversation.hear(word.clone()).unwrap()));
        conversation
    };
    let all = [ending("logfiles"), ending("script"), ending("machine-id")];
    let mut good = after(&all, Mode::Change);
    for _ in 0..MOST_LEFT {
        assert!(matches!(good.hear(left("script")), Ok(Heard::Left(_))));
    }
    assert!(matches!(good.hear(left("script")), Err(Broken::Protocol(_))));
    good.hear(FromWorker::Done).unwrap();
    assert_eq!(good.end().unwrap().left.len(), MOST_LEFT);
    for (mut early, operation) in [
        (after(&all[..2], Mode::Change), "logfiles"),
        (after(&all, Mode::Look), "logfiles"),
        (after(&all, Mode::Change), "x"),
    ] {
        assert!(matches!(early.hear(left(operation)), Err(Broken::Protocol(_))));
    }
}

fn prints(windows: &[Window]) -> FromWorker {
    FromWorker::Fingerprints(WirePrints::new(windows, Coverage { sampled: 1, ..Coverage::default() }))
}

#[test]
fn fingerprints_cross_unseen_and_only_when_they_are_wanted() {
    const WINDOW: &Window = b"Nov 22 08:17:01 sshd[99]: secret";
    let on_the_way = String::from_utf8(bytes_of(&prints(&[*WINDOW, *WINDOW]))[4..].to_vec()).unwrap();
    assert!(
        !on_the_way.contains("secret") && on_the_way.contains("4e6f762032322030383a31373a30"),
        "{on_the_way}"
    );
    let shown = format!("{:?}", prints(&[*WINDOW]));
    assert!(!shown.contains("secret") && !shown.contains("78, 111"), "{shown}");
    let plan = plan();
    let hear = |conversation: &mut Conversation<'_>, windows: &[Window]| {
        conversation.hear(FromWorker::Ready { version: VERSION, confinement: confinement() }).unwrap();
        conversation.hear(through(&prints(windows))).map(drop)
    };
    let mut good = Conversation::new(&plan, Mode::Change).with_fingerprints();
    hear(&mut good, &[*WINDOW; 3]).unwrap();
    for word in [ending("logfiles"), ending("script"), ending("machine-id"), FromWorker::Done] {
        good.hear(word).unwrap();
    }
    assert!(good.hear(prints(&[])).is_err());
    let fingerprints = good.end().unwrap().fingerprints;
    assert_eq!((fingerprints.count(), fingerprints.coverage().sampled), (3, 1));
    for (windows, conversation) in [
        (vec![*WINDOW], Conversation::new(&plan, Mode::Change)),
        (vec![*WINDOW], Conversation::new(&plan, Mode::Look).with_fingerprints()),
        (vec![[0; 32]], Conversation::new(&plan, Mode::Change).with_fingerprints()),
        (vec![*WINDOW; (1 << 16) + 1], Conversation::new(&plan, Mode::Change).with_fingerprints()),
    ] {
        let mut conversation = conversation;
        assert!(matches!(hear(&mut conversation, &windows), Err(Broken::Protocol(_))));
    }
    for odd in ["0", "zz", "é"] {
        let text = format!(r#"{{"fingerprints":{{"windows":"{odd}","coverage":{{}}}}}}"#);
        let framed = [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
        assert!(matches!(read_message::<FromWorker>(&mut &framed[..]), Err(Broken::Protocol(_))));
    }
}

fn plan() -> Vec<Planned> {
    vec![
        planned("logfiles", &[], None),
        planned("script", &[("scripts", "/a,/b,/a")], None),
        planned("machine-id", &[], None),
    ]
}

/// Hears all words up to the first that is refused; which scripts are run.
fn hear_all(conversation: &mut Conversation<'_>, words: Vec<FromWorker>) -> (Vec<PathBuf>, bool) {
    let mut scripts = Vec::new();
    for word in words {
        match conversation.hear(word) {
            Err(_) => return (scripts, true),
            Ok(Heard::Script(planned, path)) => {
                assert_eq!(planned.operation.name, "script");
                scripts.push(path);
            }
            Ok(_) => {}
        }
    }
    (scripts, false)
}

#[test]
fn a_good_conversation_ends_well() {
    let plan = plan();
    let file = FileReport { action: Verb::Truncate, path: "/var/log/x".into(), bytes: 3 };
    let words = vec![
        FromWorker::Ready { version: VERSION, confinement: confinement() },
        FromWorker::File(file.clone()),
        ending("logfiles"),
        FromWorker::Script("/a".into()),
        FromWorker::Script("/b".into()),
        FromWorker::Script("/a".into()),
        ending("script"),
        ending("machine-id"),
        FromWorker::Done,
    ];
    let mut conversation = Conversation::new(&plan, Mode::Change);
    assert_eq!(hear_all(&mut conversation, words), (vec!["/a".into(), "/b".into(), "/a".into()], false));
    let edited = conversation.end().unwrap();
    assert_eq!(edited.operations[0].files, [file]);
    assert!(edited.operations[1].files.is_empty());
}

#[test]
fn links_are_labelled_only_where_something_is_to_change() {
    let plan = plan();
    for (mode, may) in [(Mode::Change, true), (Mode::Look, false)] {
        let mut conversation = Conversation::new(&plan, mode);
        conversation.hear(FromWorker::Ready { version: VERSION, confinement: confinement() }).unwrap();
        assert_eq!(conversation.hear(FromWorker::Label(link())).is_ok(), may);
    }
}

#[test]
fn scripts_are_those_of_the_plan_at_their_time_and_once() {
    let plan = plan();
    let ready = || FromWorker::Ready { version: VERSION, confinement: confinement() };
    let script = |path: &str| FromWorker::Script(path.into());
    for (mode, words, run) in [
        (Mode::Change, vec![ready(), script("/a")], 0),
        (Mode::Change, vec![script("/a")], 0),
        (Mode::Change, vec![ready(), ending("logfiles"), script("/etc/passwd")], 0),
        (Mode::Change, vec![ready(), ending("logfiles"), script("/b"), script("/b")], 1),
        (Mode::Change, vec![ready(), ending("logfiles"), script("/b"), ending("script"), script("/a")], 1),
        (Mode::Look, vec![ready(), ending("logfiles"), script("/a")], 0),
    ] {
        let mut conversation = Conversation::new(&plan, mode);
        let (scripts, refused) = hear_all(&mut conversation, words);
        assert_eq!((scripts.len(), refused), (run, true));
        assert!(conversation.end().is_err());
    }
}

#[test]
fn programs_are_those_of_the_plan_once_and_only_a_machine_tells_what_they_print() {
    let mut plan = plan();
    let run = "name = \"run\"\nsummary = \"s\"\nreason = \"r\"\ndefault = false\n[[action]]\n\
        [action.remove]\npaths = [\"/a/b\"]\n[[action]]\n[action.run]\nscript = \"true\"\nterms.network = true\n";
    plan[0].operation = crate::operation::parse(run, "run.toml").unwrap();
    let ready = || FromWorker::Ready { version: VERSION, confinement: confinement() };
    let program = |action| FromWorker::Program { action, script: "true".into() };
    let output = || FromWorker::Output("line".into());
    for (mode, machine, words, refused) in [
        (Mode::Change, false, vec![ready(), program(1), ending("run")], false),
        (Mode::Change, false, vec![ready(), program(1), output()], true),
        (Mode::Change, true, vec![ready(), program(1), output()], false),
        (Mode::Change, true, vec![ready(), output()], true),
        (Mode::Change, false, vec![ready(), program(0)], true),
        (Mode::Change, false, vec![ready(), program(1), program(1)], true),
        (Mode::Change, false, vec![ready(), ending("run"), program(1)], true),
        (Mode::Look, false, vec![ready(), program(1)], true),
    ] {
        let conversation = Conversation::new(&plan, mode);
        let mut conversation = if machine { conversation.in_machine() } else { conversation };
        let said = format!("{mode:?} {machine} {words:?}");
        assert_eq!(hear_all(&mut conversation, words).1, refused, "{said}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], &bytes].concat();
        for bytes in [&bytes, &framed] {
            let _ = read_message::<FromWorker>(&mut &bytes[..]);
            let _ = read_message::<ToWorker<'_>>(&mut &bytes[..]);
        }
    }

    #[test]
    fn words_cross_whole(words in prop::collection::vec(word(), 0..20)) {
        let mut bytes = Vec::new();
        words.iter().for_each(|word| write_message(&mut bytes, word).unwrap());
        let mut input = &bytes[..];
        for word in words {
            prop_assert_eq!(read_message::<FromWorker>(&mut input).unwrap(), word);
        }
        prop_assert!(matches!(read_message::<FromWorker>(&mut input), Err(Broken::Ended)));
    }

    #[test]
    fn nothing_that_a_worker_says_is_more_than_the_plan(mut words in prop::collection::vec(word(), 0..12), ready: bool) {
        if ready {
            words.insert(0, FromWorker::Ready { version: VERSION, confinement: confinement() });
        }
        static PLAN: LazyLock<Vec<Planned>> = LazyLock::new(plan);
        let mut conversation = Conversation::new(&PLAN, Mode::Change);
        let (mut scripts, _) = hear_all(&mut conversation, words);
        scripts.sort();
        for (script, times) in [("/a", 2), ("/b", 1), ("/etc/passwd", 0)] {
            prop_assert!(scripts.iter().filter(|path| path.as_os_str() == script).count() <= times);
        }
        if let Ok(edited) = conversation.end() {
            let names: Vec<_> = edited.operations.iter().map(|report| report.name.as_str()).collect();
            prop_assert_eq!(names, ["logfiles", "script", "machine-id"]);
        }
    }
}
