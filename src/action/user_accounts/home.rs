//! Whether a removed account's home folder may go. The account files are the guest's word, so a home there can be `/`,
//! a system folder, or somebody else's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::guest::accounts::{Account, clean_path};

/// Why a home folder stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeStays {
    /// It is no absolute path without `..`.
    NoPath,
    /// The system needs it.
    System,
    /// It could be more than a home, since its last name is not the account's.
    NotOwnName,
    /// An account that stays lives in it, below it or above it.
    Shared {
        /// Whose home it is too.
        with: String,
    },
}

impl fmt::Display for HomeStays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath => f.write_str("it is no absolute path"),
            Self::System => f.write_str("it is a system folder"),
            Self::NotOwnName => {
                f.write_str("it does not bear the account's name, so it may hold more than a home")
            }
            Self::Shared { with } => write!(f, "{} lives there too", with.escape_debug()),
        }
    }
}

/// System folders, each with all below it.
const SYSTEM: [&str; 18] = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/nix",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
];

/// System folders of which single parts may be homes.
const PARENTS: [&str; 10] =
    ["/", "/export", "/home", "/media", "/mnt", "/opt", "/srv", "/sysroot", "/tmp", "/var"];

/// Where services keep their data beside homes: a home there goes only when it bears the account's name.
const MIXED: [&str; 2] = ["/opt", "/var"];

/// The state of package managers and of the init system, each with all below it.
const STATE: [&str; 8] = [
    "/var/lib/apk",
    "/var/lib/apt",
    "/var/lib/dnf",
    "/var/lib/dpkg",
    "/var/lib/pacman",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/spool/cron",
];

/// Folders in /var that services share.
const SHARED: [&str; 19] = [
    "/var/backups",
    "/var/cache",
    "/var/db",
    "/var/empty",
    "/var/home",
    "/var/lib",
    "/var/local",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/roothome",
    "/var/run",
    "/var/spool",
    "/var/spool/mail",
    "/var/srv",
    "/var/tmp",
    "/var/usrlocal",
    "/var/www",
];

/// What stands in passwd(5) for no home.
const NONE: [&str; 3] = ["", "/nonexistent", "/dev/null"];

/// Where homes may be below the system's folders.
const HOMES_BELOW: [&str; 2] = ["/usr/home", "/var/home"];

/// Whether removing this clean absolute path would take away what the system needs.
pub fn is_system_folder(path: &Path) -> bool {
    let below_homes = HOMES_BELOW.iter().any(|homes| path.starts_with(homes) && path != Path::new(homes));
    let is_one_of = |folders: &[&str]| folders.iter().any(|folder| path == Path::new(folder));
    let is_below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    !below_homes && (is_one_of(&PARENTS) || is_one_of(&SHARED) || is_below(&SYSTEM) || is_below(&STATE))
}

/// The homes of the accounts that stay, and whose they are: what no removal may take along.
// Paths sort by their parts, so what is below a folder comes right after it: a guest may have a million accounts.
#[derive(Debug, Clone, Default)]
pub struct KeptHomes(BTreeMap<PathBuf, String>);

impl KeptHomes {
    /// The homes of these accounts that are paths at all.
    pub(super) fn of(staying: &[Account<'_>]) -> Self {
        let homes = staying.iter().filter_map(|one| Some((clean_path(one.home())?, one.name().into_owned())));
        Self(homes.collect())
    }

    /// The same homes by their real paths; `real` resolves a path's links in the guest and gives None when it leads
    /// nowhere. /home may be a link to /var/home, and then two names are one folder.
    #[must_use]
    pub fn resolved(&self, mut real: impl FnMut(&Path) -> Option<PathBuf>) -> Self {
        Self(
            self.0
                .iter()
                .map(|(home, who)| (real(home).unwrap_or_else(|| home.clone()), who.clone()))
                .collect(),
        )
    }

    /// Who that stays lives in this folder, below it, or in a home above it. A home above that is a system folder, as
    /// the `/` of many services, says nothing.
    fn lives_there(&self, home: &Path) -> Option<&String> {
        let below = self.0.range(home.to_path_buf()..).next().filter(|(other, _)| other.starts_with(home));
        let above = || {
            let homes = home.ancestors().skip(1).filter(|other| !is_system_folder(other));
            homes.filter_map(|other| self.0.get(other)).next()
        };
        below.map(|(_, name)| name).or_else(above)
    }

    /// The home folder that goes with the account of this name, made clean; none when it has none.
    ///
    /// # Errors
    /// Why it stays.
    pub fn decide(&self, name: &[u8], home: &Path) -> Result<Option<PathBuf>, HomeStays> {
        if NONE.iter().any(|none| home == Path::new(none)) {
            return Ok(None);
        }
        let home = clean_path(home).ok_or(HomeStays::NoPath)?;
        if is_system_folder(&home) {
            return Err(HomeStays::System);
        }
        let top_level = home.components().count() == 2;
        let mixed = MIXED.iter().any(|folder| home.starts_with(folder)) && !home.starts_with("/var/home");
        let own_name = home.file_name().is_some_and(|last| last.as_encoded_bytes() == name);
        if (top_level || mixed) && !own_name {
            return Err(HomeStays::NotOwnName);
        }
        match self.lives_there(&home) {
            Some(with) => Err(HomeStays::Shared { with: with.clone() }),
            None => Ok(Some(home)),
        }
    }
}
