//! The form of the verb that gives a guest its random seed.

#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form;
use super::when::When;

/// See [`super::schema::Action::RandomSeed`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomSeed {
    /// The file that the guest reads its seed from; its folder is there.
    #[serde(deserialize_with = "form::path")]
    pub path: String,
    /// What is in it.
    pub content: SeedContent,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// What is in the file of a random seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeedContent {
    /// 512 bytes of the system's entropy, others each time.
    New,
    /// A known text of that length, where a clone gets its own.
    Place,
}
