//! The sense of one operation, beyond the form of its values: what must come together and what excludes another.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use regex::Regex;

use super::form;
use super::schema::{Action, Edit, Operation, Parameter, ParameterKind, Replace};
use super::step::{Firstboot, SshInject};

/// What is wrong with an operation, and what to look for to find the place in its text.
pub(super) struct Fault {
    pub(super) what: String,
    place: Place,
}

enum Place {
    File,
    Text(String),
    Action(usize),
}

impl Fault {
    fn file(what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Place::File }
    }

    fn at(text: impl Into<String>, what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Place::Text(text.into()) }
    }

    fn action(index: usize, what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Place::Action(index) }
    }

    /// The line of the place, counted from 1.
    pub(super) fn line(&self, text: &str) -> Option<usize> {
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with('#'));
        let found = match &self.place {
            Place::File => None,
            Place::Text(needle) => lines.find(|(line, _)| line.contains(needle.as_str())),
            Place::Action(index) => lines.filter(|(line, _)| line.trim() == "[[action]]").nth(*index),
        };
        found.map(|(_, number)| number)
    }
}

/// Checks one operation by itself; whether the operations it includes exist is for the catalogue to say.
pub(super) fn operation(operation: &Operation) -> Result<(), Fault> {
    body(operation)?;
    for (name, value) in &operation.parameters {
        parameter(name, value)?;
    }
    for (index, value) in operation.actions.iter().enumerate() {
        action(operation, index, value)?;
    }
    Ok(())
}

fn body(operation: &Operation) -> Result<(), Fault> {
    match (operation.includes.is_empty(), operation.actions.is_empty()) {
        (true, true) => return Err(Fault::file("an operation has actions, or includes other operations")),
        (false, false) => {
            return Err(Fault::at("includes", "an operation that includes others has no actions"));
        }
        (true, false) => return Ok(()),
        (false, true) => {}
    }
    if !operation.parameters.is_empty() || !operation.when.is_empty() {
        return Err(Fault::at(
            "includes",
            "an operation that includes others has no parameters and no condition",
        ));
    }
    let mut seen = BTreeSet::new();
    let twice = operation.includes.iter().find(|name| !seen.insert(*name) || **name == operation.name);
    match twice {
        Some(name) => Err(Fault::at("includes", format!("`{name}` is included twice or by itself"))),
        None => Ok(()),
    }
}

fn parameter(name: &str, parameter: &Parameter) -> Result<(), Fault> {
    let place = format!("parameters.{name}");
    form::check_name(name).map_err(|what| Fault::at(&place, format!("parameter `{name}`: {what}")))?;
    let Some(default) = &parameter.default else { return Ok(()) };
    if parameter.required {
        return Err(Fault::at(place, format!("parameter `{name}` is required, so a default is of no use")));
    }
    parameter
        .kind
        .check(default)
        .map_err(|what| Fault::at(place, format!("default of parameter `{name}` {what}")))
}

fn action(operation: &Operation, index: usize, action: &Action) -> Result<(), Fault> {
    for (name, kind) in takes(action) {
        if operation.parameters.get(*name).map(|parameter| parameter.kind) != Some(*kind) {
            let what = format!("this verb takes its value from a parameter `{name}` of kind {kind}");
            return Err(Fault::action(index, what));
        }
    }
    match action {
        Action::Write(write) => placeholders(operation, &write.content),
        Action::Edit(value) => edit(operation, index, value),
        Action::Packages(packages)
            if !packages.update && packages.install.is_empty() && packages.remove.is_empty() =>
        {
            Err(Fault::action(index, "packages without `update`, `install` and `remove` do nothing"))
        }
        Action::Firstboot(Firstboot { script, command, .. }) if script.is_some() == command.is_some() => {
            Err(Fault::action(index, "one of `script` and `command` is needed"))
        }
        Action::User(user) => user.check().map_err(|what| Fault::action(index, what)),
        Action::Network(network) => network.check().map_err(|what| Fault::action(index, what)),
        Action::SshInject(SshInject { key: Some(_), file: Some(_), .. }) => {
            Err(Fault::action(index, "only one of `key` and `file` can be given"))
        }
        _ => Ok(()),
    }
}

/// The parameters from which a verb takes its values.
fn takes(action: &Action) -> &'static [(&'static str, ParameterKind)] {
    match action {
        Action::Hostname(_) => &[("hostname", ParameterKind::Hostname)],
        Action::Timezone(_) => &[("timezone", ParameterKind::Timezone)],
        Action::Passwords(_) => &[("passwords", ParameterKind::Secret)],
        Action::UserAccounts(_) => &[("keep", ParameterKind::List), ("remove", ParameterKind::List)],
        Action::Script(_) => &[("scripts", ParameterKind::List)],
        Action::RegenerateSshHostKeys(_) => &[("regenerate", ParameterKind::Flag)],
        Action::Users(_) => &[("users", ParameterKind::Users)],
        Action::Networks(_) => &[("networks", ParameterKind::Networks)],
        Action::Steps(_) => &[("steps", ParameterKind::Steps)],
        _ => &[],
    }
}

fn edit(operation: &Operation, index: usize, edit: &Edit) -> Result<(), Fault> {
    if edit.delete.is_empty() && edit.replace.is_empty() {
        return Err(Fault::action(index, "an edit without `delete` and `replace` does nothing"));
    }
    for replace in &edit.replace {
        groups(replace)?;
        placeholders(operation, &replace.with)?;
    }
    Ok(())
}

/// Every `{{name}}` is a declared parameter.
fn placeholders(operation: &Operation, text: &str) -> Result<(), Fault> {
    for rest in text.split("{{").skip(1) {
        let Some((name, _)) = rest.split_once("}}") else {
            return Err(Fault::at("{{", "`{{` without `}}`"));
        };
        if !operation.parameters.contains_key(name) {
            return Err(Fault::at(format!("{{{{{name}}}}}"), format!("there is no parameter `{name}`")));
        }
    }
    Ok(())
}

/// Every `$1` and `${name}` is a group of the expression: the crate `regex` would put nothing there in silence.
fn groups(replace: &Replace) -> Result<(), Fault> {
    let fault = |what: String| Fault::at(&replace.with, what);
    let pattern = Regex::new(&replace.pattern).map_err(|error| fault(error.to_string()))?;
    let reference = Regex::new(r"\$\$|\$\{(?<braced>[^}]*)\}|\$(?<plain>[0-9A-Za-z_]*)")
        .map_err(|error| fault(error.to_string()))?;
    for found in reference.captures_iter(&replace.with) {
        let Some(name) = found.name("braced").or_else(|| found.name("plain")) else { continue };
        let known = match name.as_str().parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            Err(_) => pattern.capture_names().flatten().any(|group| group == name.as_str()),
        };
        if !known {
            return Err(fault(format!("`{}` has no group `{}`", replace.pattern, name.as_str())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::operation::parse;

    /// A file with these lines after its head of four lines, and the text of the error that it gives.
    fn refusal(rest: &str) -> String {
        let text = format!("name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n{rest}");
        parse(&text, "x.toml").expect_err(rest).chain()
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        let action = "[[action]]\naction.script = {}\n";
        let cases = [
            ("", "x.toml: ", "has actions, or includes"),
            ("includes = [\"a\"]\n[[action]]\n[action.remove]\npaths = [\"/a/b\"]\n", "line 5", "no actions"),
            ("includes = [\"a\", \"a\"]\n", "line 5", "`a` is included twice"),
            ("includes = [\"x\"]\n", "line 5", "`x` is included"),
            ("includes = [\"a\"]\nwhen.distro = [\"debian\"]\n", "line 5", "no condition"),
            ("[[action]]\n[action.script]\n", "line 5", "parameter `scripts` of kind list"),
            ("[[action]]\n[action.hostname]\n", "line 5", "parameter `hostname` of kind hostname"),
            (
                "[parameters.Bad]\nsummary = \"s\"\nkind = \"text\"\n[[action]]\n[action.sshd-host-keys]\n",
                "line 5",
                "lower case",
            ),
            (
                "[parameters.p]\nsummary = \"s\"\nkind = \"flag\"\ndefault = \"yes\"\n[[action]]\n[action.sshd-host-keys]\n",
                "line 5",
                "must be `true`",
            ),
            (
                "[parameters.p]\nsummary = \"s\"\nkind = \"text\"\ndefault = \"a\"\nrequired = true\n[[action]]\n[action.sshd-host-keys]\n",
                "line 5",
                "of no use",
            ),
            (
                "# {{p}} in a comment\n[[action]]\n[action.write]\npath = \"/a\"\ncontent = \"{{p}}\"\n",
                "line 9",
                "no parameter `p`",
            ),
            ("[[action]]\n[action.write]\npath = \"/a\"\ncontent = \"{{p\"\n", "line 8", "without"),
            ("[[action]]\n[action.edit]\npaths = [\"/a/b\"]\n", "line 5", "does nothing"),
            (
                "[[action]]\n[action.edit]\npaths = [\"/a/b\"]\nreplace = [{ match = \"(a)\", with = \"$1b\" }]\n",
                "line 8",
                "no group `1b`",
            ),
        ];
        for (rest, place, reason) in cases {
            let error = refusal(rest);
            assert!(error.contains(place) && error.contains(reason), "{rest}: {error}");
        }
        assert!(refusal(action).contains("line 6"));
    }

    #[test]
    fn groups_and_parameters_that_exist_are_taken() {
        let text = "name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n\
            [parameters.p]\nsummary = \"s\"\nkind = \"text\"\n[[action]]\n[action.edit]\npaths = [\"/a/b\"]\n\
            replace = [{ match = \"(a)(?<n>b)\", with = \"$$${1}$n{{p}}\" }]\n";
        parse(text, "x.toml").expect("a good file");
    }
}
