//! Which operations run: the grammar of `--operations`, `--enable`, `--remove`, and parameters that bring theirs.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::similar::nearest;

use super::catalogue::Catalogue;
use super::schema::{Group, Operation};

/// What the command line says about operations, in its own words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Each use of `--operations`, in order: names to add, `-name` to take away, `defaults`, `all`.
    pub operations: &'a [String],
    /// The value of `--enable`: exactly these names.
    pub enable: Option<&'a str>,
    /// Each use of `--remove`: what runs by default in these groups, and nothing else.
    pub remove: &'a [Group],
    /// The parameters that were given.
    pub given: &'a [Given<'a>],
}

/// A parameter that was given on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The operation it belongs to.
    pub operation: &'a str,
    /// Its name.
    pub parameter: &'a str,
}

/// The operations that run, in their order.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// Those that run.
    pub run: Vec<&'a Operation>,
    /// Those that were selected but have nothing to do.
    pub idle: Vec<Idle<'a>>,
}

/// An operation that does nothing because a parameter it needs was not given.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The parameter that was not given.
    pub parameter: &'a str,
}

/// Resolves a request. Without `--operations`, `--enable` and `--remove` the defaults run. A parameter selects its
/// operation, except one that was taken away by name.
///
/// # Errors
///
/// Usage errors: an unknown operation or parameter, an empty name, options that exclude one another, a parameter of
/// an operation that was taken away.
pub fn select<'a>(catalogue: &'a Catalogue, request: &Request<'_>) -> Result<Selection<'a>> {
    let mut chosen = chosen(catalogue, request)?;
    for given in request.given {
        let operation = catalogue.get(given.operation)?;
        check_parameter(operation, given.parameter)?;
        if let Some(word) = chosen.dropped.get(operation.name.as_str()) {
            let what = format!(
                "`-{word}` takes away the operation `{}`, but its parameter `{}` is given",
                operation.name, given.parameter
            );
            return Err(Error::usage(what).hint("leave out one of the two"));
        }
        chosen.names.insert(&operation.name);
    }
    let mut selection = Selection { run: Vec::new(), idle: Vec::new() };
    let selected =
        catalogue.sorted().into_iter().filter(|operation| chosen.names.contains(operation.name.as_str()));
    for operation in selected {
        match lacks(operation, request.given)? {
            None => selection.run.push(operation),
            Some(parameter) => selection.idle.push(Idle { operation, parameter }),
        }
    }
    Ok(selection)
}

/// The names chosen so far, and those that were taken away by name with the word that did it.
#[derive(Default)]
struct Chosen<'a> {
    names: BTreeSet<&'a str>,
    dropped: BTreeMap<&'a str, String>,
}

impl<'a> Chosen<'a> {
    fn add(&mut self, operations: impl IntoIterator<Item = &'a Operation>) {
        for operation in operations {
            self.names.insert(&operation.name);
            self.dropped.remove(operation.name.as_str());
        }
    }

    fn drop(&mut self, operations: impl IntoIterator<Item = &'a Operation>, word: Option<&str>) {
        for operation in operations {
            self.names.remove(operation.name.as_str());
            if let Some(word) = word {
                self.dropped.insert(&operation.name, word.to_owned());
            }
        }
    }
}

fn chosen<'a>(catalogue: &'a Catalogue, request: &Request<'_>) -> Result<Chosen<'a>> {
    let ways = [!request.operations.is_empty(), request.enable.is_some(), !request.remove.is_empty()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Error::usage("--operations, --enable and --remove exclude one another")
            .hint("say it all with --operations, for example `--operations defaults,-logfiles`"));
    }
    let mut chosen = Chosen::default();
    match request.enable {
        Some(list) => enable(catalogue, list, &mut chosen)?,
        None if !request.remove.is_empty() => chosen.add(of_groups(catalogue, request.remove)),
        None if request.operations.is_empty() => chosen.add(defaults(catalogue)),
        None => request.operations.iter().try_for_each(|list| apply(catalogue, list, &mut chosen))?,
    }
    Ok(chosen)
}

fn enable<'a>(catalogue: &'a Catalogue, list: &str, chosen: &mut Chosen<'a>) -> Result<()> {
    for name in list.split(',') {
        if name.is_empty() {
            return Err(Error::usage("--enable: empty operation name"));
        }
        chosen.add(catalogue.leaves(catalogue.get(name)?));
    }
    Ok(())
}

fn apply<'a>(catalogue: &'a Catalogue, list: &str, chosen: &mut Chosen<'a>) -> Result<()> {
    for word in list.split(',') {
        let (name, away) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (word, false),
        };
        let (operations, by_name) = match name {
            "" => return Err(Error::usage("--operations: empty operation name")),
            "all" => (everything(catalogue), false),
            "defaults" => (defaults(catalogue), false),
            _ => (catalogue.leaves(catalogue.get(name)?), true),
        };
        if away { chosen.drop(operations, by_name.then_some(name)) } else { chosen.add(operations) }
    }
    Ok(())
}

fn everything(catalogue: &Catalogue) -> Vec<&Operation> {
    catalogue.sorted().into_iter().flat_map(|operation| catalogue.leaves(operation)).collect()
}

fn defaults(catalogue: &Catalogue) -> Vec<&Operation> {
    let on = catalogue.sorted().into_iter().filter(|operation| operation.default);
    on.flat_map(|operation| catalogue.leaves(operation)).collect()
}

fn of_groups<'a>(catalogue: &'a Catalogue, groups: &[Group]) -> Vec<&'a Operation> {
    let wanted = |operation: &&Operation| {
        operation.default && operation.groups.iter().any(|group| groups.contains(group))
    };
    catalogue.sorted().into_iter().filter(wanted).flat_map(|operation| catalogue.leaves(operation)).collect()
}

fn check_parameter(operation: &Operation, parameter: &str) -> Result<()> {
    if operation.parameters.contains_key(parameter) {
        return Ok(());
    }
    let error = Error::usage(format!("operation `{}` has no parameter `{parameter}`", operation.name));
    let near = nearest(parameter, operation.parameters.keys().map(String::as_str));
    Err(match near {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    })
}

/// A required parameter that was not given. When another one of the same operation was, that is an error.
fn lacks<'a>(operation: &'a Operation, given: &[Given<'_>]) -> Result<Option<&'a str>> {
    let ours: Vec<&str> =
        given.iter().filter(|given| given.operation == operation.name).map(|given| given.parameter).collect();
    let required = operation.parameters.iter().filter(|(_, parameter)| parameter.required);
    let missing = required.map(|(name, _)| name.as_str()).find(|name| !ours.contains(name));
    match (missing, ours.first()) {
        (Some(missing), Some(first)) => {
            let what =
                format!("operation `{}` is given `{first}`, but needs `{missing}` too", operation.name);
            Err(Error::usage(what))
        }
        (missing, _) => Ok(missing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn catalogue() -> Catalogue {
        let head = |name: &str, default: bool| {
            format!("name = \"{name}\"\nsummary = \"s\"\nreason = \"r\"\ndefault = {default}\n")
        };
        let acts = "[[action]]\n[action.remove]\npaths = [\"/x/a\"]\n";
        let named = "[parameters.name]\nsummary = \"s\"\nkind = \"text\"\nrequired = true\n\
            [parameters.more]\nsummary = \"s\"\nkind = \"text\"\n";
        let files = [
            ("late", format!("{}order = 99\ngroups = [\"device\"]\n{acts}", head("late", true))),
            ("keys", format!("{}groups = [\"ssh\", \"user\"]\n{acts}", head("keys", true))),
            ("config", format!("{}groups = [\"ssh\"]\n{acts}", head("config", false))),
            ("dir", format!("{}groups = [\"ssh\"]\nincludes = [\"keys\", \"config\"]\n", head("dir", false))),
            ("naming", format!("{}{named}{acts}", head("naming", false))),
            ("custom", format!("{}includes = [\"naming\"]\n", head("custom", true))),
            ("early", format!("{}order = -1\n{acts}", head("early", true))),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        Catalogue::load(&files, &[]).expect("a good catalogue")
    }

    const NAME: Given<'_> = Given { operation: "naming", parameter: "name" };

    /// What runs for each use of `--operations`, or the error.
    fn run(operations: &[&str], given: &[Given<'_>]) -> Result<String> {
        let operations: Vec<String> = operations.iter().map(|list| (*list).to_owned()).collect();
        names(&Request { operations: &operations, given, ..Request::default() })
    }

    fn names(request: &Request<'_>) -> Result<String> {
        let catalogue = catalogue();
        let selection = select(&catalogue, request)?;
        let run: Vec<&str> = selection.run.iter().map(|operation| operation.name.as_str()).collect();
        let idle: Vec<&str> = selection.idle.iter().map(|idle| idle.operation.name.as_str()).collect();
        Ok(format!("{} ({})", run.join(" "), idle.join(" ")))
    }

    #[test]
    fn operations_are_added_and_taken_away_in_the_order_of_their_words() {
        let cases: [(&[&str], &str); 13] = [
            (&[], "early keys late (naming)"),
            (&["keys"], "keys ()"),
            (&["late,early"], "early late ()"),
            (&["defaults"], "early keys late (naming)"),
            (&["defaults,-keys"], "early late (naming)"),
            (&["defaults", "-keys"], "early late (naming)"),
            (&["-keys,defaults"], "early keys late (naming)"),
            (&["defaults,-custom"], "early keys late ()"),
            (&["dir"], "config keys ()"),
            (&["dir,-config"], "keys ()"),
            (&["defaults,dir,-dir"], "early late (naming)"),
            (&["all"], "early config keys late (naming)"),
            (&["all,-all,keys"], "keys ()"),
        ];
        for (operations, expected) in cases {
            assert_eq!(run(operations, &[]).expect("a good list"), expected, "{operations:?}");
        }
        assert_eq!(run(&["all,-defaults"], &[]).expect("a good list"), "config ()");
    }

    #[test]
    fn enable_means_exactly_these() {
        let enabled = |list| names(&Request { enable: Some(list), ..Request::default() });
        assert_eq!(enabled("late,dir").expect("a good list"), "config keys late ()");
        for (list, reason) in
            [("", "empty"), ("keys,", "empty"), ("defaults", "unknown"), ("-keys", "unknown")]
        {
            let error = enabled(list).expect_err(list);
            assert!(error.kind() == ErrorKind::Usage && error.chain().contains(reason), "{error:?}");
        }
    }

    #[test]
    fn groups_select_what_is_on_by_default_in_them() {
        let removed = |groups: &[Group]| names(&Request { remove: groups, ..Request::default() });
        assert_eq!(removed(&[Group::Ssh]).expect("one group"), "keys ()");
        assert_eq!(removed(&[Group::User, Group::Device]).expect("two groups"), "keys late ()");
        assert_eq!(removed(&[Group::Logs]).expect("an empty group"), " ()");
    }

    #[test]
    fn a_parameter_brings_its_operation_unless_that_was_taken_away_by_name() {
        assert_eq!(run(&[], &[NAME]).expect("defaults"), "early keys naming late ()");
        assert_eq!(run(&["keys"], &[NAME]).expect("one more"), "keys naming ()");
        assert_eq!(run(&["all,-all"], &[NAME]).expect("none but it"), "naming ()");
        assert_eq!(run(&["-naming,custom"], &[NAME]).expect("added again"), "naming ()");
        for list in ["defaults,-naming", "defaults,-custom"] {
            let error = run(&[list], &[NAME]).expect_err(list);
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.chain().contains(&list[9..]) && error.chain().contains("`name`"), "{error:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let cases: [(&[&str], &[Given<'_>], &str); 6] = [
            (&["nothing"], &[], "unknown operation `nothing`"),
            (&["keys,-nothing"], &[], "unknown operation `nothing`"),
            (&["keys,,late"], &[], "empty operation name"),
            (&["keys,-"], &[], "empty operation name"),
            (&[], &[Given { operation: "naming", parameter: "nam" }], "no parameter `nam`"),
            (&[], &[Given { operation: "naming", parameter: "more" }], "needs `name` too"),
        ];
        for (operations, given, reason) in cases {
            let error = run(operations, given).expect_err(reason);
            assert!(error.kind() == ErrorKind::Usage && error.chain().contains(reason), "{error:?}");
        }
        let lists = ["keys".to_owned()];
        let both = Request { operations: &lists, remove: &[Group::Ssh], ..Request::default() };
        assert!(names(&both).expect_err("two ways").chain().contains("exclude one another"));
        let both = Request { enable: Some("keys"), remove: &[Group::Ssh], ..Request::default() };
        assert!(names(&both).expect_err("two ways").chain().contains("exclude one another"));
    }

    proptest! {
        #[test]
        fn no_list_makes_the_selection_panic(list in "[-,a-z]{0,30}", word in "\\PC{0,10}", enable in any::<bool>()) {
            let list = format!("{list},{word}");
            let operations = [list.clone()];
            let way = if enable { Request { enable: Some(&list), ..Request::default() } }
                else { Request { operations: &operations, ..Request::default() } };
            let _ = names(&way);
        }
    }
}
