use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

/// The steps as TOML, on one line each.
fn parsed(name: &str, value: &str) -> Result<String> {
    let actions = StepOption::named(name).expect(name).actions(value)?;
    let told = |action: &Action| serde_json::to_string(action).expect("an action");
    Ok(actions.iter().map(told).collect::<Vec<_>>().join("\n"))
}

#[test]
fn each_example_is_good_and_its_steps_are_those_of_operation_files() {
    for option in OPTIONS {
        let actions = option.actions(option.example).unwrap_or_else(|error| panic!("{error:?}"));
        for action in actions {
            let body = toml::to_string(&serde_json::json!({ "action": [action] })).expect("as TOML");
            let head = "name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n";
            let read = crate::operation::parse(&format!("{head}{body}"), "x.toml");
            let read = read.unwrap_or_else(|error| panic!("{}\n{body}", error.chain()));
            assert!(
                action.is_step()
                    || option.name == "write"
                    || option.name == "link"
                    || option.name == "no-logfile"
            );
            assert_eq!(format!("{:?}", read.actions[0]), format!("{action:?}"));
        }
    }
    assert!(OPTIONS.is_sorted_by_key(|option| option.name));
}

#[test]
fn values_are_read_as_virt_customize_reads_them() {
    for (name, value, words) in [
        ("append-line", "/etc/hosts:10.0.0.1 a:b", r#""path":"/etc/hosts","line":"10.0.0.1 a:b""#),
        ("append-line", "/etc/hosts:", r#""line":"""#),
        ("chmod", "0700:/x", r#""mode":"0700""#),
        ("chmod", "0o4711:/x", r#""mode":"4711""#),
        ("chmod", "493:/x", r#""mode":"0755""#),
        ("chown", "1:2:/a:b", r#""path":"/a:b","uid":1,"gid":2"#),
        ("copy-in", "a b:/", r#""from":"a b","to":"/""#),
        ("mkdir", "//srv//x/", r#""path":"/srv/x""#),
        ("link", "../t:/a:/b", "\"path\":\"/a\",\"target\":\"../t\",\"into\":true}}\n"),
        ("edit", "/x:s/a:b/c/", r#""expression":"s/a:b/c/""#),
        ("firstboot-install", "vim, htop", "set -- vim htop"),
        ("ssh-inject", "bob", r#""user":"bob"}"#),
        ("ssh-inject", "bob:string:ssh-rsa A:B me", r#""key":"ssh-rsa A:B me""#),
        ("ssh-inject", "bob:file:/k:x", r#""file":"/k:x""#),
        ("write", "/x:a\nb:c", r#""content":"a\nb:c""#),
    ] {
        let text = parsed(name, value).unwrap_or_else(|error| panic!("{value}: {error:?}"));
        assert!(text.contains(words), "{value}: {text}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_the_option_the_reason_and_an_example() {
    for (name, value, reason) in [
        ("append-line", "/etc/hosts", "no colon"),
        ("append-line", "/x:a\nb", "one line"),
        ("chmod", "755:/x", "write 0755"),
        ("chmod", "0888:/x", "no mode"),
        ("chmod", "u+x:/x", "no mode"),
        ("chmod", "010000:/x", "no mode"),
        ("chown", "root:root:/x", "no number"),
        ("chown", "0:/x", "no colon"),
        ("copy", "x:/y", "starts with `/`"),
        ("copy-in", ":/y", "is empty"),
        ("delete", "/*", "whole guest"),
        ("delete", "x", "starts with `/`"),
        ("edit", "/x:s/a/b/e", "flag `e`"),
        ("firstboot", "", "is empty"),
        ("firstboot-install", "a;b", "no name"),
        ("firstboot-install", "--force", "no name"),
        ("link", ":/x", "target is empty"),
        ("mkdir", "/a/../b", "`..`"),
        ("ssh-inject", "", "name is missing"),
        ("ssh-inject", "bob:key", "file:FILE or string:KEY"),
        ("upload", "x:relative", "starts with `/`"),
        ("write", "/x", "no colon"),
    ] {
        let error = parsed(name, value).expect_err(value);
        let hint = error.what_to_do().unwrap_or_default();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.chain().contains(reason) && error.chain().contains(&format!("--{name}")), "{error:?}");
        assert!(hint.contains(&format!("--{name} '")), "{hint}");
    }
}

#[test]
fn commands_are_lines_of_a_file() {
    let text = "# a comment\n\n  delete /some/file\nedit /some/file:\\\n  s/^OPT=.*/OPT=ok/\nupdate\npassword bob:file:x y\n";
    let wanted = [
        (3, "delete", "/some/file"),
        (4, "edit", "/some/file:s/^OPT=.*/OPT=ok/"),
        (6, "update", ""),
        (7, "password", "bob:file:x y"),
    ];
    let wanted = wanted.map(|(number, name, value)| (number, name.to_owned(), value.to_owned()));
    assert_eq!(commands(text), wanted);
    assert_eq!(commands("mkdir /x\\").len(), 1);
}

proptest! {
    #[test]
    fn any_value_is_read_or_refused(value in "\\PC{0,30}", path in "/[a-z/.*:{}]{0,20}") {
        let _ = commands(&value);
        for option in OPTIONS {
            for value in [value.clone(), path.clone(), format!("{path}:{value}"), format!("{value}:{path}")] {
                // Paths of the guest only: those of the host, scripts and content are the user's own.
                let names_the_guest_only = |action: &Action| {
                    matches!(
                        action,
                        Action::Chmod(_) | Action::Chown(_) | Action::Copy(_) | Action::Delete(_) | Action::Empty(_)
                            | Action::Mkdir(_) | Action::Move(_) | Action::Scrub(_) | Action::Touch(_)
                    )
                };
                for action in option.actions(&value).into_iter().flatten().filter(names_the_guest_only) {
                    let text = serde_json::to_string(&action).unwrap();
                    prop_assert!(!text.contains("/../") && !text.contains("/..\""), "{}", text);
                }
            }
        }
    }
}
