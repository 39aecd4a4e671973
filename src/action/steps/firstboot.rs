//! What runs once at the first boot. A small runner is put into the guest with a service of its init system; it runs the
//! scripts in their order, writes what came of each into a log, and takes itself away.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{bring, folders, install as file, install_link};
use crate::action::brought::ItemKind;
use crate::action::{Findings, View};
use crate::error::{Error, Result};
use crate::guest::change::{Change, Content, NewFile};
use crate::operation::schema::Init;
use crate::operation::step::Firstboot;

const SCRIPTS: &str = "/usr/lib/guestseal/firstboot/scripts";
const RUNNER: &str = "/usr/lib/guestseal/firstboot/run";
const NAME: &str = "guestseal-firstboot";
/// What insserv(8) writes for startpar(8), which starts nothing that has a link only.
const PARALLEL: &str = "/etc/init.d/.depend.start";
/// The longest name of a script behind its number, in letters.
const NAME_MAX: usize = 40;
/// A script is moved away before it runs, so that one which starts the guest anew is not run again. The function keeps
/// the shell from reading on in a file that is gone. The head is for insserv(8).
const RUNNER_TEXT: &str = r#"#!/bin/sh
### BEGIN INIT INFO
# Provides:          guestseal-firstboot
# Required-Start:    $remote_fs
# Required-Stop:
# Should-Start:      $all
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Run what was given for the first boot of this clone, once
### END INIT INFO

dir=/usr/lib/guestseal/firstboot
log=/var/log/guestseal-firstboot.log

run() {
    umask 022
    PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
    HOME=${HOME:-/root}
    export PATH HOME
    [ -e "$log" ] || (umask 077 && : >"$log")
    failed=0
    for script in "$dir"/scripts/*; do
        [ -f "$script" ] || continue
        name=${script##*/}
        mkdir -p "$dir/done" && mv "$script" "$dir/done/$name" || return 1
        echo "=== $name begins, $(date)" >>"$log"
        "$dir/done/$name" </dev/null >>"$log" 2>&1
        code=$?
        echo "=== $name ended with $code, $(date)" >>"$log"
        [ "$code" -eq 0 ] || failed=1
        rm -f "$dir/done/$name"
    done
    # insserv(8), run by a script, gives the links another number.
    rm -f /etc/rc[2-5].d/S[0-9][0-9]guestseal-firstboot /etc/rc.d/rc[2-5].d/S[0-9][0-9]guestseal-firstboot
    rm -f /etc/init.d/rc[2-5].d/S[0-9][0-9]guestseal-firstboot
    parallel=/etc/init.d/.depend.start
    [ ! -f "$parallel" ] || sed -i -e '/^guestseal-firstboot:/d' -e 's/ guestseal-firstboot\( \|$\)/\1/g' "$parallel"
    rm -f /etc/runlevels/default/guestseal-firstboot /etc/init.d/guestseal-firstboot
    rm -f /etc/systemd/system/multi-user.target.wants/guestseal-firstboot.service
    rm -f /etc/systemd/system/guestseal-firstboot.service
    rm -f "$dir/run" "$dir"/done/*
    rmdir "$dir/scripts" "$dir/done" "$dir" /usr/lib/guestseal 2>/dev/null
    return $failed
}

case ${1:-start} in
    start) run; exit $? ;;
    *) exit 0 ;;
esac
"#;
const UNIT: &str = "/etc/systemd/system/guestseal-firstboot.service";
const UNIT_LINK: &str = "/etc/systemd/system/multi-user.target.wants/guestseal-firstboot.service";
const UNIT_TEXT: &str = "\
[Unit]
Description=Run what was given for the first boot of this clone, once
After=network.target

[Service]
Type=oneshot
ExecStart=/usr/lib/guestseal/firstboot/run start

[Install]
WantedBy=multi-user.target
";
const OPENRC_TEXT: &str = "\
#!/sbin/openrc-run

description=\"Run what was given for the first boot of this clone, once\"

depend() {
    after *
    keyword -timeout
}

start() {
    ebegin \"Running what was given for the first boot\"
    /usr/lib/guestseal/firstboot/run start
    eend $?
}
";

fn install_runner(view: View<'_>) -> Result<Vec<Change>> {
    let mut changes = file(RUNNER, RUNNER_TEXT, 0o755, view)?;
    match view.guest.init {
        Some(Init::Systemd) => {
            changes.extend(file(UNIT, UNIT_TEXT, 0o644, view)?);
            changes.extend(install_link(UNIT_LINK, UNIT, view)?);
        }
        Some(Init::Openrc) => {
            let script = format!("/etc/init.d/{NAME}");
            changes.extend(file(&script, OPENRC_TEXT, 0o755, view)?);
            changes.extend(install_link(&format!("/etc/runlevels/default/{NAME}"), &script, view)?);
        }
        Some(Init::Sysvinit) => changes.extend(init_script(view)?),
        Some(Init::Runit) | None => {
            let what = "it is not known how this guest starts services, so nothing can run at its first boot";
            return Err(Error::unsupported(what)
                .hint("--firstboot works with systemd, sysvinit, upstart and OpenRC: leave it out"));
        }
    }
    Ok(changes)
}

/// Red Hat keeps run levels in /etc/rc.d, older SUSE in /etc/init.d, Debian in /etc.
fn init_script(view: View<'_>) -> Result<Vec<Change>> {
    let script = format!("/etc/init.d/{NAME}");
    let (levels, target) = if view.root.is_folder("/etc/rc.d/rc3.d")? {
        ("/etc/rc.d", format!("../init.d/{NAME}"))
    } else if view.root.is_folder("/etc/init.d/rc3.d")? {
        ("/etc/init.d", format!("../{NAME}"))
    } else {
        ("/etc", format!("../init.d/{NAME}"))
    };
    let mut changes = install_link(&script, RUNNER, view)?;
    for level in 2..=5 {
        changes.extend(install_link(&format!("{levels}/rc{level}.d/S99{NAME}"), &target, view)?);
    }
    if let Some(entry) = view.root.resolve(Path::new(PARALLEL))?
        && let Some(text) = with_target(&view.root.read_text(PARALLEL)?)
    {
        changes.push(Change::rewrite(entry, text.into_bytes()));
    }
    Ok(changes)
}

/// The list with the service as one that is started behind all others; None when it is there already, or when the text
/// is no such list.
fn with_target(text: &str) -> Option<String> {
    let targets = text.lines().find_map(|line| line.strip_prefix("TARGETS ="))?;
    if targets.split_whitespace().any(|target| target == NAME) {
        return None;
    }
    let line = format!("TARGETS ={targets}");
    let gap = if text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{}{gap}{NAME}:{targets}\n", text.replacen(&line, &format!("{line} {NAME}"), 1)))
}

pub(super) fn install(step: &Firstboot, view: View<'_>) -> Result<Findings> {
    let mut changes = install_runner(view)?;
    changes.extend(folders(Path::new(SCRIPTS), view)?);
    // The runner's own folder is among both.
    let mut seen = std::collections::BTreeSet::new();
    changes.retain(|change| !matches!(change, Change::Folder { path, .. } if !seen.insert(path.clone())));
    let names = [&step.name, &step.script, &step.command];
    let name = names.into_iter().flatten().next().map_or("", String::as_str);
    let path = Path::new(SCRIPTS).join(format!("{:04}-{}", next_number(view)?, tame(name)));
    let new = NewFile::root(0o755);
    if let Some(command) = &step.command {
        let content = Content(format!("#!/bin/sh\n{command}\n").into_bytes());
        changes.push(Change::Replace { path, content, new });
    } else if let Some(script) = &step.script {
        for item in bring::items("firstboot", script, view)? {
            if let ItemKind::File(source) = item.kind {
                changes.push(Change::Bring { path: PathBuf::from(&path), source, new, modified: None });
            }
        }
    }
    Ok(changes.into())
}

fn next_number(view: View<'_>) -> Result<u32> {
    let names = view.root.names(Path::new(SCRIPTS))?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.split('-').next()?.parse::<u32>().ok());
    Ok(numbers.max().map_or(1, |last| last.saturating_add(1)))
}

/// Letters of a name that mean nothing to a shell.
fn tame(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    let tame = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.chars().take(NAME_MAX).map(tame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_started_behind_all_others() {
        let list = "TARGETS = cron ssh rc.local\nINTERACTIVE =\nrc.local: cron ssh\n";
        let new = "TARGETS = cron ssh rc.local guestseal-firstboot\nINTERACTIVE =\nrc.local: cron ssh\n\
                   guestseal-firstboot: cron ssh rc.local\n";
        assert_eq!(with_target(list).as_deref(), Some(new));
        assert_eq!(with_target(new), None);
        assert_eq!(with_target("something else\n"), None);
    }
}
