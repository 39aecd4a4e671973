//! Passwords of accounts, hashed the way the guest's own tools would.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{Findings, View, find};
use crate::error::{Context, Error, Result};
use crate::guest::accounts::{LoginDefs, Shadow};
use crate::guest::change::Change;
use crate::guest::password::{CryptClues, Scheme, libcrypt_knows_yescrypt};

const HINT: &str = "look at the file in the guest, or seal without setting passwords";

pub(super) fn set(view: View<'_>) -> Result<Findings> {
    let path = Path::new("/etc/shadow");
    if view.settings.passwords.is_empty() {
        // A later check has the record only, and a record holds no secrets.
        return Ok(Findings { unsure: true, ..Findings::default() });
    }
    let entry = view
        .root
        .resolve(path)?
        .ok_or_else(|| Error::unsupported("the guest has no /etc/shadow to set passwords in").hint(HINT))?;
    let old = view
        .root
        .read(&entry.path)?
        .ok_or_else(|| Error::unsupported("the guest's /etc/shadow is no file").hint(HINT))?;
    let mut shadow = Shadow::parse(&old);
    let scheme = match view.settings.get("crypto") {
        Some(name) => Scheme::named(name)?,
        None => scheme(view, &shadow)?,
    };
    for (user, change) in &view.settings.passwords {
        let account = shadow.find(user).ok_or_else(|| {
            Error::usage(format!("the guest has no user {user:?} in /etc/shadow"))
                .hint("--password USER:SELECTOR sets the password of an existing user")
        })?;
        if !change.is_in(account.expose_field()) {
            shadow.set_password(user, &change.field(scheme)?)?;
        }
    }
    let content = shadow.as_bytes().to_vec();
    if content == old {
        return Ok(Findings::default());
    }
    Ok(vec![Change::rewrite(entry, content)].into())
}

fn scheme(view: View<'_>, shadow: &Shadow) -> Result<Scheme> {
    let mut pam = String::new();
    for file in ["common-password", "system-auth", "password-auth"] {
        pam.push_str(&view.root.read_text(&format!("/etc/pam.d/{file}"))?);
    }
    let defs = view.root.read(Path::new("/etc/login.defs"))?.map(|bytes| LoginDefs::parse(&bytes));
    let libraries =
        ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*"];
    let globs = libraries.map(|folder| format!("{folder}/libcrypt.so.*"));
    let mut libcrypt = None;
    for entry in find(&globs, &[], view)? {
        if let Some(bytes) = view.root.read(&entry.path).context(|| "cannot read the guest's libcrypt")? {
            libcrypt = Some(libcrypt == Some(true) || libcrypt_knows_yescrypt(&bytes));
        }
    }
    let os = &view.guest.os;
    Ok(Scheme::for_guest(&CryptClues {
        libcrypt,
        pam: (!pam.is_empty()).then_some(pam.as_str()),
        login_defs: defs.as_ref(),
        shadow: Some(shadow),
        id: &os.id,
        id_like: &os.id_like,
        version_id: &os.version_id,
    }))
}
