//! The form of the steps of a customisation: what virt-customize(1) does with a guest's files, one verb each. Unlike
//! the other verbs they are done each time they run, in their order, and each needs what it names to be there.

#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form;

/// Append one line to a text file, which is made when it is missing. A last line without its end gets one first.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppendLine {
    /// The file; a link is followed inside the guest.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
    /// The line without its end, which is that of the file's other lines.
    #[serde(deserialize_with = "form::line")]
    pub line: String,
}

/// Set the permission bits of a file or folder.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chmod {
    /// The file; a link is followed inside the guest.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
    /// In octal.
    #[serde(deserialize_with = "form::octal")]
    pub mode: String,
}

/// Set the owner of a file or folder.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chown {
    /// The file; a link is followed inside the guest.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Copy or move inside the guest.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromTo {
    /// A file, link or folder with all below.
    #[serde(deserialize_with = "form::place")]
    pub from: String,
    /// Its new place; when a folder is there, a place of the same name in it.
    #[serde(deserialize_with = "form::place")]
    pub to: String,
}

/// Bring something of the host into the guest.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bring {
    /// A path of the host, read when the run is planned.
    #[serde(deserialize_with = "form::one_line")]
    pub from: String,
    /// Where it goes.
    #[serde(deserialize_with = "form::place")]
    pub to: String,
}

/// Remove what a glob of the shell matches, folders with all below. Names that begin with a dot must be named so.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The glob; one that matches nothing is no error.
    #[serde(deserialize_with = "form::glob")]
    pub path: String,
}

/// Set the length of a file to 0, or of all files below a folder.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {
    /// The file or folder, which must be there.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
    /// Whether all files below are meant.
    #[serde(default)]
    pub recursive: bool,
}

/// One path of the guest.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnePath {
    /// The path; a link is followed inside the guest.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
}

/// Run something once at the first boot, after what stands before it. One of `script` and `command` is given.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Firstboot {
    /// What it is called in the log; made of what it runs when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_line")]
    pub name: Option<String>,
    /// A script or program of the host.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_line")]
    pub script: Option<String>,
    /// A command for the guest's shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Let a user of the guest log in with this SSH key. Without `key` and `file` it is the newest ~/.ssh/id*.pub of whoever
/// runs guestseal.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshInject {
    /// The user.
    #[serde(deserialize_with = "form::one_line")]
    pub user: String,
    /// A public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A file of the host with public keys.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_line")]
    pub file: Option<String>,
}

/// Edit the lines of a file, which must be there, by an expression of perl; see [`super::perl`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Substitute {
    /// The file; a link is followed inside the guest.
    #[serde(deserialize_with = "form::place")]
    pub path: String,
    /// The expression.
    #[serde(deserialize_with = "form::expression")]
    pub expression: String,
}
