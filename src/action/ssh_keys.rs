//! SSH host keys: removing those that sshd is configured to use elsewhere, and making sure that something in the
//! guest makes new ones at the next boot. Nothing does on Debian up to 12, nor on 13 unless it counts as a first boot.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{Findings, View, find, put};
use crate::error::{Error, Result};
use crate::guest::FileKind;
use crate::guest::change::{Change, NewFile};
use crate::operation::schema::Init;

const UNIT: &str = "/etc/systemd/system/guestseal-ssh-keygen.service";
const UNIT_LINK: &str = "/etc/systemd/system/multi-user.target.wants/guestseal-ssh-keygen.service";
/// Runs once, before sshd checks its keys (ssh.service has `ExecStartPre=sshd -t`), makes the keys that are missing
/// and removes itself. cloud-init goes first: it deletes host keys and makes its own.
const UNIT_TEXT: &str = "\
[Unit]
Description=Make new SSH host keys for this clone of a sealed template
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service cloud-init.service cloud-init-network.service
Before=ssh.service sshd.service ssh.socket sshd.socket shutdown.target
Conflicts=shutdown.target
ConditionPathIsReadWrite=/etc

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
ExecStartPost=/bin/rm -f /etc/systemd/system/multi-user.target.wants/guestseal-ssh-keygen.service
ExecStartPost=/bin/rm -f /etc/systemd/system/guestseal-ssh-keygen.service

[Install]
WantedBy=multi-user.target
";
/// Read by Debian's /etc/init.d/ssh before it checks for keys; takes itself out again.
const SYSVINIT_DEFAULTS: &str = "/etc/default/ssh";
const SYSVINIT_LINE: &str = "/usr/bin/ssh-keygen -A >/dev/null && sed -i '/guestseal-ssh-keygen$/d' /etc/default/ssh # guestseal-ssh-keygen";

/// Removes the files that `HostKey` and `HostCertificate` of sshd_config(5) name, wherever they are.
pub(super) fn remove_configured(view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    for file in sshd_configurations(view)? {
        let text = view.root.read_text(&file)?;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let keyword = words.next().unwrap_or_default();
            if !keyword.eq_ignore_ascii_case("HostKey") && !keyword.eq_ignore_ascii_case("HostCertificate") {
                continue;
            }
            let Some(key) =
                words.next().map(|word| word.trim_matches('"')).filter(|key| key.starts_with('/'))
            else {
                continue;
            };
            for path in [key.to_owned(), format!("{key}.pub")] {
                findings.changes.extend(key_file(Path::new(&path), view)?);
            }
        }
    }
    Ok(findings)
}

fn sshd_configurations(view: View<'_>) -> Result<Vec<String>> {
    let globs = ["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf", "/usr/etc/ssh/sshd_config"]
        .map(String::from);
    let files = find(&globs, &[], view)?;
    Ok(files.into_iter().map(|entry| entry.path.to_string_lossy().into_owned()).collect())
}

/// Only what looks like a key goes: a configuration that names /etc/shadow must not cost the guest its passwords.
fn key_file(path: &Path, view: View<'_>) -> Result<Option<Change>> {
    let Some(entry) = view.root.lookup(path)?.filter(|entry| entry.kind == FileKind::File) else {
        return Ok(None);
    };
    let head = view.root.read_head(path, 64)?;
    let is_key = head.starts_with(b"-----BEGIN")
        || head.starts_with(b"ssh-")
        || head.starts_with(b"ecdsa-")
        || head.starts_with(b"sk-");
    Ok(is_key.then_some(Change::Remove { path: entry.path, kind: entry.kind, bytes: entry.bytes }))
}

/// Looks for something that makes keys at boot, and says what to install where nothing does.
pub(super) fn regenerate(view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    let server = view.root.is_file("/usr/sbin/sshd")? || view.root.is_file("/usr/bin/sshd")?;
    if !server || !view.settings.is_set("regenerate") {
        return Ok(findings);
    }
    match view.guest.init {
        Some(Init::Systemd) => with_systemd(view, &mut findings)?,
        _ => with_init_script(view, &mut findings)?,
    }
    Ok(findings)
}

fn with_systemd(view: View<'_>, findings: &mut Findings) -> Result<()> {
    if let Some(unit) = regenerating_unit(view)? {
        findings.note(None, format!("new host keys are made at boot by {unit}"));
        return Ok(());
    }
    if !view.root.is_file("/usr/bin/ssh-keygen")? {
        return Err(cannot_regenerate("the guest has no /usr/bin/ssh-keygen"));
    }
    findings.changes.extend(put(Path::new(UNIT), UNIT_TEXT.into(), NewFile::root(0o644), view)?);
    let wants = Path::new(UNIT_LINK).parent().unwrap_or_else(|| Path::new("/"));
    if view.root.lookup(wants)?.is_none() {
        findings.changes.push(Change::Folder { path: wants.to_path_buf(), new: NewFile::root(0o755) });
    }
    if view.root.read_link(Path::new(UNIT_LINK))?.is_none() {
        findings.changes.push(Change::Link { path: PathBuf::from(UNIT_LINK), target: PathBuf::from(UNIT) });
    }
    findings.note(
        PathBuf::from(UNIT),
        "nothing in the guest makes new host keys: this unit does at the next boot, then removes itself",
    );
    Ok(())
}

/// The name of a unit that makes host keys at every boot on which they are missing, and that something starts.
fn regenerating_unit(view: View<'_>) -> Result<Option<String>> {
    let folders = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    let globs = folders.map(|folder| format!("{folder}/*ssh*.service"));
    let units = find(&globs, &[], view)?;
    let mut server = String::new();
    for entry in &units {
        if entry.path.file_name().is_some_and(|name| name == "ssh.service" || name == "sshd.service") {
            server.push_str(&view.root.read_text(&entry.path.to_string_lossy())?);
        }
    }
    for entry in &units {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = view.root.read_text(&entry.path.to_string_lossy())?;
        let makes_keys = text.lines().any(|line| {
            line.starts_with("Exec")
                && ["ssh-keygen", "sshd-keygen", "sshd-gen-keys"].iter().any(|program| line.contains(program))
        });
        // Emptying the machine id makes no first boot (machine-id(5)), so such a unit would not run.
        let only_first_boot =
            text.lines().any(|line| line.replace(' ', "").starts_with("ConditionFirstBoot=yes"));
        if name == "guestseal-ssh-keygen.service" || !makes_keys || only_first_boot {
            continue;
        }
        let stem = name.split(['@', '.']).next().unwrap_or_default();
        if name == "ssh.service"
            || name == "sshd.service"
            || server.contains(stem)
            || is_wanted(&name, stem, view)?
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_wanted(name: &str, stem: &str, view: View<'_>) -> Result<bool> {
    let globs = [
        format!("/etc/systemd/system/*.{{wants,requires}}/{name}"),
        format!("/usr/lib/systemd/system/*.{{wants,requires}}/{stem}*"),
    ];
    Ok(!find(&globs, &[], view)?.is_empty())
}

fn with_init_script(view: View<'_>, findings: &mut Findings) -> Result<()> {
    for script in ["/etc/init.d/sshd", "/etc/init.d/ssh", "/etc/rc.d/init.d/sshd", "/etc/sv/sshd/run"] {
        let text = view.root.read_text(script)?;
        if text.contains("ssh-keygen") || text.contains("sshd-keygen") {
            findings.note(None, format!("new host keys are made at boot by {script}"));
            return Ok(());
        }
    }
    if !view.root.read_text("/etc/init.d/ssh")?.contains(SYSVINIT_DEFAULTS) {
        return Err(cannot_regenerate(
            "nothing in the guest makes new host keys, and guestseal knows no way to add it to its init system",
        ));
    }
    let defaults = Path::new(SYSVINIT_DEFAULTS);
    let old = view.root.read_text(SYSVINIT_DEFAULTS)?;
    if !old.lines().any(|line| line == SYSVINIT_LINE) {
        let gap = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
        let text = format!("{old}{gap}{SYSVINIT_LINE}\n");
        findings.changes.extend(put(defaults, text.into_bytes(), NewFile::root(0o644), view)?);
    }
    findings.note(defaults.to_path_buf(), "nothing in the guest makes new host keys: a line here does at the next start of sshd, then removes itself");
    Ok(())
}

fn cannot_regenerate(why: &str) -> Error {
    Error::unsupported(format!("a clone could not be reached by ssh: {why}"))
        .hint("keep the keys with --operations defaults,-ssh-hostkeys, or see to new ones yourself and say --no-regenerate")
}
