//! Which connections to libvirt will do: those whose disks are this host's.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Refuses a connection that will not do.
///
/// # Errors
/// A usage error for a URI with a password, and [`crate::ErrorKind::Unsupported`] for one to another host.
pub fn check(uri: &str) -> Result<()> {
    without_password(uri)?;
    of_this_host(uri)
}

/// Refuses a URI with a password: it would stand in the process list, and in the record.
fn without_password(uri: &str) -> Result<()> {
    let user = authority(uri).and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    if user.is_some_and(|user| user.contains(':')) {
        // Not quoted: it has a secret.
        return Err(Error::usage("the URI of -c has a password in it")
            .hint("keep it in libvirt's own authentication file, see https://libvirt.org/auth.html"));
    }
    Ok(())
}

/// Refuses a connection to another host: its paths are those of that host, and would be taken for files of this one.
fn of_this_host(uri: &str) -> Result<()> {
    let Some(authority) = authority(uri).filter(|authority| !authority.is_empty()) else { return Ok(()) };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Err(Error::unsupported(format!("libvirt runs on the host {host}, which has the domain's disks"))
        .hint("run guestseal there; for this host leave the host's name out, such as -c qemu:///system"))
}

/// What stands between `//` and the next `/` (RFC 3986, 3.2).
fn authority(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    rest.split(['/', '?', '#']).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn only_this_hosts_disks_will_do() {
        for uri in ["qemu:///system", "test:///default", "qemu+unix:///session?socket=/run/a@b:c/s", "xen:"] {
            check(uri).unwrap();
        }
        for uri in [
            "qemu+ssh://host/system",
            "qemu+ssh://root@host/system",
            "qemu+tcp://localhost",
            "esx://h?no_verify=1",
        ] {
            assert_eq!(check(uri).unwrap_err().kind(), ErrorKind::Unsupported, "{uri}");
        }
        let error = check("esx://root:hunter2@h/").unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && !format!("{error:?}").contains("hunter2"));
    }
}
