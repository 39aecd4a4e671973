//! For which guests something is done: the form of conditions.

#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form;

/// A condition on the guest: every key that is given must hold; a list holds when one of its items does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct When {
    /// os-release `ID` or one of `ID_LIKE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distro: Vec<String>,
    /// The guest's package manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub package_manager: Vec<PackageManager>,
    /// The guest's init system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<Init>,
    /// Globs of which one must match something in the guest.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub exists: Vec<String>,
    /// Globs of which none may match anything in the guest.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub missing: Vec<String>,
    /// Lines of which none may be found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unless_line: Vec<Lines>,
}

/// Lines of text files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    /// Globs of the files to read; a missing file holds no line.
    #[serde(deserialize_with = "form::some_globs")]
    pub files: Vec<String>,
    /// The expression that a line matches, see [`super::schema::Edit`].
    #[serde(deserialize_with = "form::regex")]
    pub matches: String,
}

impl When {
    /// True when nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The package managers that guestseal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum PackageManager {
    Apk,
    Apt,
    Dnf,
    Pacman,
    Portage,
    Xbps,
    Yum,
    Zypper,
}

/// The init systems that guestseal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Init {
    Openrc,
    Runit,
    Systemd,
    Sysvinit,
}
