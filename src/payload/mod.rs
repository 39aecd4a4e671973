//! Files of the host that go into a guest: looked at when the run is planned, read piece by piece while the worker writes
//! them. The worker itself sees no path of the host, only numbers; none of them is more than a piece in memory.

#![forbid(unsafe_code)]

mod key;
mod source;
mod tar;
mod tree;

use std::path::Path;

pub use source::Source;

use crate::action::Settings;
use crate::action::brought::{self, Item};
use crate::error::{Context, Error, Result};
use crate::operation::schema::Action;
use crate::operation::step::{Bring, Firstboot};
use crate::operation::user::User;
use crate::plan::{Planned, USERS};

/// The most files, folders and links that one operation brings: their names are to fit in the first message to the
/// worker.
const MOST_ITEMS: usize = 50_000;

/// What is gathered for one operation.
#[derive(Debug, Default)]
struct Gathered {
    items: Vec<Item>,
    sources: Vec<Source>,
}

impl Gathered {
    /// A file's number.
    fn number(&mut self, source: Source) -> Result<u32> {
        self.sources.push(source);
        u32::try_from(self.sources.len() - 1).map_err(|_| too_many())
    }

    fn add(&mut self, item: Item) -> Result<()> {
        self.items.push(item);
        if self.items.len() > MOST_ITEMS { Err(too_many()) } else { Ok(()) }
    }
}

/// Looks at the files that the operation's verbs bring. `home` is where the default SSH key is.
///
/// # Errors
/// Usage errors about files that are missing, or of kinds that cannot be brought.
pub fn gather(planned: &mut Planned, home: Option<&Path>) -> Result<()> {
    let Planned { operation, settings, sources } = planned;
    let mut gathered = Gathered { items: Vec::new(), sources: std::mem::take(sources) };
    let mut total = 0;
    for action in &mut operation.actions {
        let (verb, from) = match action {
            Action::Upload(Bring { from, .. }) => ("upload", from),
            Action::CopyIn(Bring { from, .. }) => ("copy-in", from),
            Action::TarIn(Bring { from, .. }) => ("tar-in", from),
            Action::Firstboot(Firstboot { script: Some(from), .. }) => ("firstboot", from),
            Action::SshInject(step) => {
                key::load(step, home)?;
                continue;
            }
            Action::User(user) => {
                key::load_for_account(user)?;
                continue;
            }
            Action::Users(_) => {
                load_keys(settings)?;
                continue;
            }
            _ => continue,
        };
        let path = Path::new(from.as_str());
        let seen = match verb {
            "copy-in" => tree::look(path, &mut gathered),
            "tar-in" => tar::look(path, &mut gathered),
            _ => tree::look_at_file(path, &mut gathered),
        };
        seen.map_err(|error| error.within(format!("--{verb} cannot take {from}")))?;
        let items = std::mem::take(&mut gathered.items);
        total += items.len();
        if total > MOST_ITEMS {
            return Err(too_many());
        }
        settings.brought.insert(brought::key(verb, from), items);
    }
    *sources = gathered.sources;
    Ok(())
}

/// Puts keys in place of the files of accounts that were given: whoever looks later does not have those.
fn load_keys(settings: &mut Settings) -> Result<()> {
    let Some(text) = settings.values.get_mut(USERS.1) else { return Ok(()) };
    let mut users = User::list(text).map_err(Error::usage)?;
    users.iter_mut().try_for_each(key::load_for_account)?;
    *text = serde_json::to_string(&users).context(|| "cannot write the accounts as JSON")?;
    Ok(())
}

fn too_many() -> Error {
    Error::usage(format!("more than {MOST_ITEMS} files would be brought into the guest"))
        .hint("bring them as one file, with --upload, and unpack that in the guest")
}
