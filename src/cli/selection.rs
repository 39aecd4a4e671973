//! The options that say which operations run, with which parameters.

use std::path::PathBuf;

use clap::Args;

use super::args::CatalogueArgs;
use super::steps::StepArgs;
use crate::guest::secret::Secret;
use crate::operation::schema::Group;

/// Which operations, with which parameters.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Operations")]
pub struct SelectionArgs {
    /// Choose operations: names to add, -name to take away, `defaults`, `all`; separated by commas.
    #[arg(long, visible_alias = "operation", value_name = "LIST", allow_hyphen_values = true)]
    pub operations: Vec<String>,
    /// Run exactly these operations.
    #[arg(long, value_name = "LIST")]
    pub enable: Option<String>,
    /// Run only what is on by default in this group. May be repeated.
    #[arg(long, value_name = "GROUP")]
    pub remove: Vec<Group>,
    /// Take operations, parameters, passwords and steps from this file; options come after it.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Steps of the customisation.
    #[command(flatten)]
    pub steps: StepArgs,
    /// Let the guest's programs use this host's network.
    #[arg(long, overrides_with = "no_network")]
    pub network: bool,
    /// The guest's programs have no network: that is so without this option too.
    #[arg(long, overrides_with = "network")]
    pub no_network: bool,
    /// Set the guest's host name.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Set the guest's time zone, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Set root's password: password:TEXT, file:FILE, random, disabled, locked or locked:SELECTOR.
    #[arg(long, value_name = "SELECTOR")]
    pub root_password: Option<Secret>,
    /// Set a user's password, as --root-password does. May be repeated.
    #[arg(long, value_name = "USER:SELECTOR")]
    pub password: Vec<Secret>,
    /// Hash passwords in this way: sha256, sha512 or yescrypt; as the guest itself does when left out.
    #[arg(long, value_name = "SCHEME")]
    pub password_crypto: Option<String>,
    /// Run this script of the host in the guest's root folder. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub script: Vec<PathBuf>,
    /// Remove these users' accounts; separated by commas.
    #[arg(long, value_name = "USERS")]
    pub remove_user_accounts: Vec<String>,
    /// Keep these users' accounts; separated by commas.
    #[arg(long, value_name = "USERS")]
    pub keep_user_accounts: Vec<String>,
    /// Do not see to it that the guest makes new SSH host keys.
    #[arg(long)]
    pub no_regenerate: bool,
    /// Set any parameter of an operation. May be repeated.
    #[arg(long, value_name = "OPERATION.PARAMETER=VALUE")]
    pub set: Vec<String>,
    /// What `--add user:` named.
    #[arg(skip)]
    pub users: Vec<Secret>,
    /// What `--add network:` named.
    #[arg(skip)]
    pub networks: Vec<String>,
    /// Where operations come from.
    #[command(flatten)]
    pub catalogue: CatalogueArgs,
}

impl SelectionArgs {
    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            operations,
            enable,
            remove,
            profile,
            steps,
            network,
            no_network: _,
            hostname,
            timezone,
            root_password,
            password,
            password_crypto: _,
            script,
            remove_user_accounts,
            keep_user_accounts,
            no_regenerate,
            set,
            users,
            networks,
            catalogue: _,
        } = self;
        let lists = [operations, remove_user_accounts, keep_user_accounts, set, networks];
        let secrets = [password, users];
        let texts = [enable, hostname, timezone];
        lists.iter().all(|list| list.is_empty())
            && secrets.iter().all(|list| list.is_empty())
            && texts.iter().all(|text| text.is_none())
            && remove.is_empty()
            && script.is_empty()
            && steps.is_empty()
            && profile.is_none()
            && root_password.is_none()
            && !network
            && !no_regenerate
    }

    /// Wipes the passwords that were typed, as far as they are ours: the kernel keeps the command line itself, which
    /// every user of the host can read.
    pub fn forget_passwords(&mut self) {
        self.root_password = None;
        self.password.clear();
        self.users.clear();
    }
}
