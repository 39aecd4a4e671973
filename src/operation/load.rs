//! From the text of one operation file to an [`Operation`] that may be relied on: its form by serde, its sense by
//! the checks beside this file.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};

use super::check::{self, Fault};
use super::schema::Operation;

/// Reads one operation from the text of its file. `origin` names the file in errors.
///
/// ```
/// let text = r#"
/// name = "acme-agent"
/// summary = "Remove the identity of the Acme agent"
/// reason = "On: clones must not share one identity"
/// default = true
///
/// [[action]]
/// [action.remove]
/// paths = ["/var/lib/acme/agent.id"]
/// "#;
/// let operation = guestseal::operation::parse(text, "acme-agent.toml")?;
/// assert!(operation.default);
///
/// let mistyped = guestseal::operation::parse(&text.replace("paths", "pahts"), "acme-agent.toml");
/// assert!(mistyped.unwrap_err().to_string().contains("acme-agent.toml"));
/// # Ok::<(), guestseal::Error>(())
/// ```
///
/// # Errors
///
/// A usage error that names the file, and the line and column where they are known.
pub fn parse(text: &str, origin: &str) -> Result<Operation> {
    let operation: Operation = toml::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("bad operation file {origin}")).caused_by(error)
    })?;
    check::operation(&operation).map_err(|fault| explain(text, origin, &fault))?;
    Ok(operation)
}

/// The JSON schema of an operation file, for editors and for `guestseal operations schema`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Operation).to_value()
}

fn explain(text: &str, origin: &str, fault: &Fault) -> Error {
    let place = fault.line(text).map(|line| format!(", line {line}")).unwrap_or_default();
    Error::usage(format!("bad operation file {origin}{place}: {}", fault.what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with this action, and the text of the error that it gives.
    fn refusal(action: &str) -> String {
        let text =
            format!("name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n\n[[action]]\n{action}");
        parse(&text, "x.toml").expect_err(action).chain()
    }

    #[test]
    fn a_mistyped_key_is_refused_where_it_stands_in_every_verb() {
        let verbs = [
            "remove",
            "truncate",
            "write",
            "edit",
            "link",
            "detect",
            "machine-id",
            "sshd-host-keys",
            "regenerate-ssh-host-keys",
            "hostname",
            "timezone",
            "passwords",
            "user-accounts",
            "user",
            "users",
            "network",
            "networks",
            "script",
            "new-uuids",
            "steps",
            "append-line",
            "chmod",
            "chown",
            "copy",
            "copy-in",
            "delete",
            "empty",
            "firstboot",
            "mkdir",
            "move",
            "scrub",
            "selinux-relabel",
            "ssh-inject",
            "substitute",
            "tar-in",
            "touch",
            "upload",
        ];
        for verb in verbs {
            let error = refusal(&format!("[action.{verb}]\nmistyped = 1\n"));
            assert!(error.contains("x.toml") && error.contains("line 8, column 1"), "{verb}: {error}");
            assert!(error.contains("unknown field `mistyped`"), "{verb}: {error}");
        }
        assert!(refusal("[action.remov]\npaths = [\"/x/a\"]\n").contains("line 7"));
    }

    #[test]
    fn a_bad_value_is_refused_where_it_stands() {
        let cases = [
            ("[action.remove]\npaths = [\n\"/x/a\",\n\"x/b\",\n]\n", "line 10, column 1", "starts with `/`"),
            ("[action.remove]\npaths = []\n", "line 8, column 9", "does nothing"),
            ("[action.truncate]\npaths = [\"/x/../y\"]\n", "line 8, column 10", "no `..`"),
            ("[action.remove]\npaths = [\"/x/[a\"]\n", "line 8, column 10", "character class"),
            ("[action.edit]\npaths = [\"/x/a\"]\ndelete = [\"(\"]\n", "line 9, column 11", "unclosed group"),
            ("[action.write]\npath = \"/x/*\"\ncontent = \"\"\n", "line 8, column 8", "not a glob"),
            ("[action.touch]\npath = \"x\"\n", "line 8, column 8", "starts with `/`"),
            ("[action.delete]\npath = \"/*\"\n", "line 8, column 8", "whole guest"),
            (
                "[action.substitute]\npath = \"/x\"\nexpression = \"s/a/b/e\"\n",
                "line 9, column 14",
                "flag `e`",
            ),
            ("[action.append-line]\npath = \"/x\"\nline = \"a\\nb\"\n", "line 9, column 8", "one line"),
            ("[action.firstboot]\n", "line 6", "one of `script`"),
            ("[action.user]\nname = \"b b\"\n", "line 8, column 8", "a name"),
            ("[action.user]\nname = \"bob\"\nkey = \"a\"\nfile = \"b\"\n", "line 6", "only one of"),
            ("[action.network]\naddress = \"192.0.2.1\"\n", "line 8, column 11", "with its prefix"),
            ("[action.network]\naddress = \"dhcp\"\ngateway = \"192.0.2.1\"\n", "line 6", "leave it out"),
            ("[action.write]\npath = \"/x\"\ncontent = \"\"\nmode = \"rw\"\n", "line 10, column 8", "octal"),
            ("[action.machine-id]\npolicy = \"none\"\n", "line 8, column 10", "unknown variant `none`"),
            (
                "[action.remove]\npaths = [\"/x/a\"]\nwhen.exists = [\"x\"]\n",
                "line 9, column 16",
                "starts with `/`",
            ),
        ];
        for (action, place, reason) in cases {
            let error = refusal(action);
            assert!(error.contains(place) && error.contains(reason), "{action}: {error}");
        }
    }

    #[test]
    fn two_verbs_in_one_action_are_refused() {
        let error = refusal("[action.remove]\npaths = [\"/x/a\"]\n[action.truncate]\npaths = [\"/x/a\"]\n");
        assert!(error.contains("wanted exactly 1"), "{error}");
    }

    #[test]
    fn the_schema_names_every_verb_and_allows_no_other_key() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], false);
        let verbs = schema["$defs"]["Action"]["oneOf"].as_array().expect("one schema a verb");
        assert_eq!(verbs.len(), 40);
        assert_eq!(schema["$defs"]["Remove"]["additionalProperties"], false);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = parse(&text, "x.toml");
        }

        #[test]
        fn no_damage_to_a_good_file_makes_the_parser_panic(
            pick in 0..super::super::BUILTIN.len(), at in any::<prop::sample::Index>(), noise in "[\\[\\]{}\"'=.,\\\\$*~/a-z0-9\n]{0,8}",
        ) {
            let text = super::super::BUILTIN[pick].1;
            let marks: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
            let index = marks[at.index(marks.len())];
            let _ = parse(&format!("{}{noise}{}", &text[..index], &text[index..]), "x.toml");
            let _ = parse(&text[..index], "x.toml");
        }
    }
}
