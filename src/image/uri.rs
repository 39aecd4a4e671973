//! Disks that are not on this host, by the URIs that qemu and virt-sysprep's `-a` know: pure. What a URI names becomes a node
//! of qemu's block layer, never words of a command line.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// What a name is that may be a URI.
#[derive(Debug, Clone, PartialEq)]
pub enum Name {
    /// A path of this host.
    Path(PathBuf),
    /// A disk elsewhere.
    Remote(Remote),
}

/// A disk that qemu reaches by one of its drivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// How it is named to people and in records: without what may be a secret.
    pub shown: String,
    /// qemu's node for its bytes.
    pub node: Value,
}

impl Remote {
    /// Whether it is a disk there and no file: then it holds what a guest wrote, and nothing says how to read it.
    pub fn is_device(&self) -> bool {
        matches!(self.driver(), "nbd" | "rbd")
    }

    /// qemu's name of the driver.
    pub fn driver(&self) -> &str {
        self.node["driver"].as_str().unwrap_or_default()
    }
}

/// What is known of a URI.
struct Parts<'a> {
    user: Option<String>,
    host: &'a str,
    port: Option<u16>,
    path: String,
    query: Option<&'a str>,
}

const FORMS: &str = "nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, ssh://[USER@]HOST[:PORT]/PATH, \
    rbd:POOL/IMAGE, rbd://[MONITOR[:PORT]]/POOL/IMAGE, http://… and https://…";

/// Reads what the user wrote. A path that looks like a URI is written with its folder: `./rbd:x`.
///
/// # Errors
/// A usage error for a URI that is none, [`crate::ErrorKind::Unsupported`] for one of an unknown kind. None quotes what
/// may be a password.
pub fn parse(text: &str) -> Result<Name> {
    if text.contains('\0') {
        return Err(wrong("the name has a zero byte, which no name can have"));
    }
    if let Some(rest) = text.strip_prefix("rbd:").filter(|rest| !rest.starts_with("//")) {
        return pool_image(rest).map(Name::Remote);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(Name::Path(text.into())) };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.is_empty() || !scheme.chars().all(is_scheme) {
        return Ok(Name::Path(text.into()));
    }
    let about = |error: Error| error.within(format!("the URI {scheme}://… cannot be used"));
    let remote = match scheme {
        "http" | "https" => web(scheme, rest),
        "file" => return file(rest).map(|path| Name::Path(path.into())).map_err(about),
        "nbd" | "nbd+unix" => parts(rest).and_then(|parts| nbd(scheme, &parts)),
        "ssh" => parts(rest).and_then(|parts| ssh(&parts)),
        "rbd" => parts(rest).and_then(|parts| rbd(&parts)),
        _ => {
            let what = format!("disks of the kind {scheme}:// cannot be opened");
            return Err(Error::unsupported(what).hint(format!(
                "there are {FORMS}; for others copy the disk here, or attach it as a block device"
            )));
        }
    };
    remote.map(Name::Remote).map_err(about)
}

/// Whether an image is named by a URI of a disk that is not on this host.
///
/// # Errors
/// As [`parse`].
pub fn is_remote(path: &Path) -> Result<bool> {
    Ok(matches!(named(path)?, Name::Remote(_)))
}

/// The same as [`parse`] for a name that need not be text.
///
/// # Errors
/// As [`parse`].
pub fn named(path: &Path) -> Result<Name> {
    path.to_str().map_or_else(|| Ok(Name::Path(path.into())), parse)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::usage(what).hint(format!("the forms are {FORMS}"))
}

/// A password that stands in a URI is seen by every user of this host.
fn no_password(user: &str) -> Result<()> {
    if !user.contains(':') {
        return Ok(());
    }
    Err(Error::usage("it has a password, which every user of this host can read").hint(
        "leave the password out: ssh takes keys of an agent or of ~/.ssh, rbd the keyring of its configuration",
    ))
}

fn parts(rest: &str) -> Result<Parts<'_>> {
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, other)| (rest, Some(other)));
    if fragment.is_some() {
        return Err(wrong("it has a #, which is written %23 in a name"));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    user.map_or(Ok(()), no_password)?;
    let user = user.map(decoded).transpose()?.filter(|user| !user.is_empty());
    user.as_deref().map_or(Ok(()), no_password)?;
    let (host, port) = host_and_port(host)?;
    Ok(Parts { user, host, port, path: decoded(path)?, query })
}

/// An IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| wrong("its host has no closing bracket"))?;
            (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some("?")))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let number =
        |port: &str| port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("its port is no number"));
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if !host.chars().all(good) {
        return Err(wrong("its host has characters that no host name has"));
    }
    Ok((host, port.filter(|port| !port.is_empty()).map(number).transpose()?))
}

/// Percent signs resolved (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<String> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let (Some(high), Some(low)) = (high, low) else {
            return Err(wrong("it has a % without two hexadecimal digits behind it"));
        };
        bytes.push(high << 4 | low);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(wrong("it has bytes that are no text")),
    }
}

/// The only parameter that is known, and no others.
fn only_socket(query: Option<&str>) -> Result<Option<String>> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let value = query.strip_prefix("socket=").filter(|value| !value.contains('&'));
    value
        .map(decoded)
        .transpose()?
        .map_or_else(|| Err(wrong("it has parameters that are unknown here")), |path| Ok(Some(path)))
}

fn no_parameters(parts: &Parts<'_>) -> Result<()> {
    match parts.query {
        None | Some("") => Ok(()),
        Some(_) => Err(wrong("it has parameters that are unknown here")),
    }
}

fn a_host<'a>(parts: &Parts<'a>) -> Result<&'a str> {
    if parts.host.is_empty() { Err(wrong("it names no host")) } else { Ok(parts.host) }
}

/// An address of qemu's `InetSocketAddress`, which wants the port as text.
fn address(host: &str, port: u16) -> Value {
    json!({ "host": host, "port": port.to_string() })
}

fn place(host: &str, port: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

fn nbd(scheme: &str, parts: &Parts<'_>) -> Result<Remote> {
    const PORT: u16 = 10809;
    let export = parts.path.strip_prefix('/').unwrap_or(&parts.path);
    if parts.user.is_some() {
        return Err(wrong("it names a user, and NBD knows none"));
    }
    let (server, shown) = match only_socket(parts.query)? {
        Some(path) if parts.host.is_empty() && path.starts_with('/') => {
            let shown = format!("nbd+unix:///{export}?socket={path}");
            (json!({ "type": "unix", "path": path }), shown)
        }
        Some(_) => return Err(wrong("its socket is no absolute path, or it names a host too")),
        None if scheme == "nbd+unix" => return Err(wrong("it names no socket")),
        None => {
            let mut server = address(a_host(parts)?, parts.port.unwrap_or(PORT));
            server["type"] = "inet".into();
            (server, format!("nbd://{}/{export}", place(parts.host, parts.port)))
        }
    };
    Ok(Remote { shown, node: json!({ "driver": "nbd", "server": server, "export": export }) })
}

fn ssh(parts: &Parts<'_>) -> Result<Remote> {
    const PORT: u16 = 22;
    no_parameters(parts)?;
    if parts.path.len() < 2 {
        return Err(wrong("it names no file"));
    }
    let mut node = json!({
        "driver": "ssh", "server": address(a_host(parts)?, parts.port.unwrap_or(PORT)), "path": parts.path,
        "host-key-check": { "mode": "known_hosts" },
    });
    let mut at = String::new();
    if let Some(user) = &parts.user {
        node["user"] = user.clone().into();
        at = format!("{user}@");
    }
    Ok(Remote { shown: format!("ssh://{at}{}{}", place(parts.host, parts.port), parts.path), node })
}

fn rbd(parts: &Parts<'_>) -> Result<Remote> {
    const PORT: u16 = 6789;
    no_parameters(parts)?;
    let mut remote = pool_image(parts.path.trim_start_matches('/'))?;
    if !parts.host.is_empty() {
        remote.node["server"] = json!([address(parts.host, parts.port.unwrap_or(PORT))]);
    }
    if let Some(user) = &parts.user {
        remote.node["user"] = user.clone().into();
    }
    Ok(remote)
}

/// `POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:id=USER][:conf=FILE]` (qemu's block/rbd.c); a backslash takes the next character
/// as it is.
fn pool_image(text: &str) -> Result<Remote> {
    let mut words = split_unescaped(text, ':')?.into_iter();
    let name = words.next().unwrap_or_default();
    let names = split_unescaped(&name, '/')?;
    let (pool, namespace, image) = match names.as_slice() {
        [pool, image] => (pool, None, image),
        [pool, namespace, image] => (pool, Some(namespace), image),
        _ => return Err(wrong("it is not of the form POOL/IMAGE")),
    };
    let image = split_unescaped(image, '@')?;
    let (image, snapshot) = match image.as_slice() {
        [image] => (unescaped(image), None),
        [image, snapshot] => (unescaped(image), Some(unescaped(snapshot))),
        _ => return Err(wrong("it has more than one snapshot")),
    };
    let pool = unescaped(pool);
    if pool.is_empty() || image.is_empty() {
        return Err(wrong("it is not of the form POOL/IMAGE"));
    }
    let shown = format!("rbd:{}", unescaped(&name));
    let mut node = json!({ "driver": "rbd", "pool": pool, "image": image });
    let mut set = |field: &str, value: Option<String>| {
        if let Some(value) = value {
            node[field] = value.into();
        }
    };
    set("namespace", namespace.map(|text| unescaped(text)));
    set("snapshot", snapshot);
    for word in words {
        match word.split_once('=') {
            Some(("id", user)) => set("user", Some(unescaped(user))),
            Some(("conf", file)) => set("conf", Some(unescaped(file))),
            Some(("key", _)) => {
                return Err(Error::usage("it has a key, which every user of this host can read")
                    .hint("leave it out: ceph.conf(5) says where the keyring is"));
            }
            _ => {
                return Err(wrong(
                    "of rbd's settings only id= and conf= are known here; others stand in ceph.conf",
                ));
            }
        }
    }
    Ok(Remote { shown, node })
}

/// The pieces between a character, with their backslashes.
fn split_unescaped(text: &str, at: char) -> Result<Vec<String>> {
    let (mut pieces, mut rest) = (vec![String::new()], text.chars());
    while let Some(c) = rest.next() {
        let last = pieces.last_mut();
        match (c, last) {
            ('\\', Some(piece)) => {
                piece.push(c);
                piece.push(rest.next().ok_or_else(|| wrong("it ends in a backslash"))?);
            }
            (c, _) if c == at => pieces.push(String::new()),
            (c, Some(piece)) => piece.push(c),
            (_, None) => {}
        }
    }
    Ok(pieces)
}

fn unescaped(text: &str) -> String {
    let mut rest = text.chars();
    let mut plain = String::new();
    while let Some(c) = rest.next() {
        plain.extend(if c == '\\' { rest.next() } else { Some(c) });
    }
    plain
}

/// What stands behind `?` is often a key to the file, and would be shown wherever the image is named.
fn web(scheme: &str, rest: &str) -> Result<Remote> {
    /// How long one piece may take, in seconds; qemu's own 5 are for a network that is near.
    const TIMEOUT: u32 = 30;
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if let Some((user, _)) = authority.rsplit_once('@') {
        no_password(user)?;
        return Err(wrong("it names a user, and a user of a web server needs a password"));
    }
    let (host, port) = host_and_port(authority)?;
    if host.is_empty() || rest.chars().any(|c| c.is_control() || c == ' ') {
        return Err(wrong("it names no host, or has blanks or control characters"));
    }
    if path.contains(['?', '#']) {
        return Err(Error::usage("it has parameters (?…), which may be a key to the file")
            .hint("fetch the image first, or serve it without them"));
    }
    let url = format!("{scheme}://{}{path}", place(host, port));
    Ok(Remote { shown: url.clone(), node: json!({ "driver": scheme, "url": url, "timeout": TIMEOUT }) })
}

fn file(rest: &str) -> Result<String> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(wrong("a file of this host is file:///PATH"));
    }
    decoded(path)
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
