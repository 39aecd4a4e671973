//! `guestseal operations`: list, show and check them.

use std::fs;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::args::CatalogueArgs;
use super::exit::Exit;
use super::print::Printer;
use super::request::catalogue;
use super::run::each;
use crate::error::{Context, ErrorKind, Result};
use crate::operation::{json_schema, parse, profile};

/// What `operations` can do.
#[derive(Debug, Subcommand)]
pub enum OperationsCommand {
    /// List all: name, `*` when on by default, summary.
    List(CatalogueArgs),
    /// Show one, with the reason for its default and all it does.
    Show {
        /// Its name.
        name: String,
        /// Where operations come from.
        #[command(flatten)]
        catalogue: CatalogueArgs,
    },
    /// Check operation files.
    Validate {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of operation files.
    Schema {
        /// That of profiles.
        #[arg(long)]
        profile: bool,
    },
}

/// `--list-operations`, and `operations list`.
///
/// # Errors
/// Usage errors of operation files.
pub(super) fn list(args: &CatalogueArgs, printer: &Printer) -> Result<Exit> {
    let catalogue = catalogue(args)?;
    if printer.is_json() {
        printer.document(&catalogue.sorted())?;
        return Ok(Exit::Done);
    }
    let mut operations = catalogue.sorted();
    operations.sort_by(|a, b| a.name.cmp(&b.name));
    for operation in operations {
        printer.result(&format!(
            "{} {} {}",
            operation.name,
            if operation.default { "*" } else { " " },
            operation.summary
        ));
    }
    Ok(Exit::Done)
}

/// `operations`.
///
/// # Errors
/// Usage errors of operation files.
pub(super) fn operations(command: OperationsCommand, printer: &mut Printer) -> Result<Exit> {
    match command {
        OperationsCommand::List(args) => return list(&args, printer),
        OperationsCommand::Show { name, catalogue: args } => {
            let catalogue = catalogue(&args)?;
            let operation = catalogue.get(&name)?;
            if printer.is_json() {
                printer.document(operation)?;
            } else {
                printer.result(
                    toml::to_string_pretty(operation)
                        .context(|| "cannot write the operation as TOML")?
                        .trim_end(),
                );
            }
        }
        OperationsCommand::Validate { files } => return each(&files, printer, validate),
        OperationsCommand::Schema { profile: false } => printer.document(&json_schema())?,
        OperationsCommand::Schema { profile: true } => printer.document(&profile::json_schema())?,
    }
    Ok(Exit::Done)
}

fn validate(file: &std::path::PathBuf, printer: &mut Printer) -> Result<(Exit, Value)> {
    let text = fs::read_to_string(file)
        .context_kind(ErrorKind::Usage, || format!("cannot read {}", file.display()))?;
    let operation = parse(&text, &file.display().to_string())?;
    printer.line(&format!("{}: good", file.display()));
    Ok((Exit::Done, json!({ "file": file, "operation": operation.name })))
}
