//! Profiles: what a pipeline says about a seal in a file of its own, so that it is kept with the rest of its source.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check;
use super::form;
use super::schema::{Action, Group, Operation};
use crate::error::{Error, ErrorKind, Result};

/// A profile, as its file says it. The command line comes after it: its lists of operations go on from these, its
/// parameters win, its steps come later.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Profile {
    /// Which operations, each as `--operations` has them: `defaults`, `all`, a name, `-name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// Only what is on by default in these groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Group>,
    /// Parameters, by operation and name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// Passwords; never as they are.
    #[serde(rename = "password", skip_serializing_if = "Vec::is_empty")]
    pub passwords: Vec<Password>,
    /// The customisation, in this order.
    #[serde(rename = "action", skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
}

/// The password of one user.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The user.
    #[serde(deserialize_with = "form::one_line")]
    pub user: String,
    /// file:FILE, random, disabled, locked or locked:SELECTOR.
    #[serde(deserialize_with = "form::one_line")]
    pub selector: String,
}

/// Reads a profile. `origin` names its file in errors.
///
/// # Errors
/// A usage error that names the file, and the line and column where they are known.
pub fn parse(text: &str, origin: &str) -> Result<Profile> {
    let profile: Profile = toml::from_str(text)
        .map_err(|error| Error::new(ErrorKind::Usage, format!("bad profile {origin}")).caused_by(error))?;
    for (index, action) in profile.actions.iter().enumerate() {
        let plain = action.is_step() && !matches!(action, Action::Steps(_));
        let data = matches!(
            action,
            Action::Remove(_)
                | Action::Truncate(_)
                | Action::Write(_)
                | Action::Edit(_)
                | Action::Link(_)
                | Action::User(_)
                | Action::Network(_)
        );
        if !plain && !data {
            let what = format!("bad profile {origin}: action {} is no step of a customisation", index + 1);
            return Err(Error::usage(what).hint("select an operation for it, and set its parameters"));
        }
    }
    if !profile.actions.is_empty() {
        let actions = profile.actions.clone();
        let (name, summary, reason) = ("profile".into(), "profile".into(), "profile".into());
        let operation = Operation { name, summary, reason, actions, ..Operation::default() };
        check::operation(&operation).map_err(|fault| {
            let place = fault.line(text).map(|line| format!(", line {line}")).unwrap_or_default();
            Error::usage(format!("bad profile {origin}{place}: {}", fault.what))
        })?;
    }
    Ok(profile)
}

/// The JSON schema of a profile.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Profile).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "operations = [\"defaults\", \"-logfiles\"]\n[parameters.hostname]\nhostname = \"web\"\n\
        [[password]]\nuser = \"root\"\nselector = \"locked\"\n[[action]]\naction = {}\n";

    #[test]
    fn a_profile_holds_selection_parameters_passwords_and_steps() {
        let text = GOOD.replace("action = {}", "mkdir.path = \"/srv/site\"");
        let profile = parse(&text, "p.toml").expect("a good profile");
        assert_eq!(profile.parameters["hostname"]["hostname"], "web");
        assert!(matches!(&profile.actions[..], [Action::Mkdir(step)] if step.path == "/srv/site"));
        assert_eq!(parse("", "p.toml").expect("an empty one").operations.len(), 0);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, words) in [
            ("operation = [\"defaults\"]\n", "line 1, column 1"),
            ("[[action]]\nmkdir.path = \"srv\"\n", "line 2, column 14"),
            ("[[action]]\nmkdri.path = \"/srv\"\n", "unknown variant"),
            ("[[action]]\nhostname = {}\n", "no step"),
            ("[[action]]\nsteps = {}\n", "no step"),
            ("[[action]]\nfirstboot = {}\n", "line 1: one of"),
            ("[[password]]\nuser = \"root\"\n", "selector"),
        ] {
            let error = parse(text, "p.toml").expect_err(text);
            assert!(error.chain().contains(words) && error.chain().contains("p.toml"), "{}", error.chain());
        }
    }

    #[test]
    fn the_schema_allows_no_other_key() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["$defs"]["Action"]["oneOf"].as_array().is_some_and(|verbs| verbs.len() > 30));
    }
}
