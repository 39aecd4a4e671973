//! guestseal in the place of virt-sysprep and virt-customize: by which name it was called, what each of their options
//! means here, and the table of docs/virt-sysprep.md, which is made of it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};

use super::args::{Cli, OutputArgs, SealArgs};
use crate::error::{Error, Result};
use crate::operation::step_text::OPTIONS;

/// The name by which the program was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Called {
    /// By its own.
    #[default]
    Guestseal,
    /// In the place of virt-sysprep.
    Sysprep,
    /// In the place of virt-customize: no operations but the customisation.
    Customize,
}

impl Called {
    /// By the first word of the command line.
    pub fn by(name: Option<&OsStr>) -> Self {
        match name.and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str) {
            Some("virt-sysprep") => Self::Sysprep,
            Some("virt-customize") => Self::Customize,
            _ => Self::Guestseal,
        }
    }
}

/// The options of `seal` alone: those programs have no commands.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true, infer_long_args = true)]
struct Virt {
    #[command(flatten)]
    seal: SealArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The command line of such a program.
pub(super) fn command(called: Called) -> Command {
    let name = if called == Called::Customize { "virt-customize" } else { "virt-sysprep" };
    let command = Virt::command().name(name).version(concat!("(guestseal ", env!("CARGO_PKG_VERSION"), ")"));
    let command = command.mut_arg("images", |arg| arg.hide(true));
    if called == Called::Customize {
        // Of theirs it is a disk with software for programs that run in the guest.
        let command = command.mut_arg("attach", |arg| arg.long("attach-way"));
        return command.arg(Arg::new("attach-disk").long("attach").action(ArgAction::Append).hide(true));
    }
    command
}

/// Turns what was parsed into a command line of guestseal's own.
///
/// # Errors
/// clap's own.
pub(super) fn cli(called: Called, matches: &ArgMatches) -> Result<Cli, clap::Error> {
    let Virt { mut seal, output } = Virt::from_arg_matches(matches)?;
    seal.called = called;
    if called == Called::Customize && matches.contains_id("attach-disk") {
        seal.selection.steps.add("attach");
    }
    seal.place(matches);
    Ok(Cli { command: None, seal, output })
}

/// What the other program would not take either.
///
/// # Errors
/// Usage errors.
pub(super) fn check(args: &mut SealArgs) -> Result<()> {
    if let Some(folder) = args.meaningless.scriptdir.as_ref().filter(|folder| !folder.is_absolute()) {
        return Err(Error::usage(format!(
            "--scriptdir needs an absolute path, and {} is none",
            folder.display()
        ))
        .hint("for example: --scriptdir /mnt/guest; it may as well be left out"));
    }
    if args.called == Called::Guestseal {
        return Ok(());
    }
    // Theirs does everything, and throws it away; a folder can only be looked at.
    if args.tree.is_none() {
        args.rehearse |= std::mem::take(&mut args.dry_run);
    }
    if let Some(image) = args.images.first() {
        return Err(Error::usage(format!("{} stands without an option", image.display()))
            .hint(format!("disks are named by -a: -a {}", image.display())));
    }
    if args.called == Called::Customize {
        let selection = &args.selection;
        let others =
            !selection.operations.is_empty() || selection.enable.is_some() || !selection.remove.is_empty();
        let others = others || selection.steps.removes_group();
        if others {
            return Err(Error::usage("virt-customize runs no operations but the customisation")
                .hint("call guestseal as virt-sysprep, or by its own name"));
        }
        args.selection.operations = vec!["customize".to_owned()];
    }
    Ok(())
}

/// An option that is refused before anything is opened.
#[derive(Debug)]
pub struct Refused {
    /// Without the dashes.
    pub name: &'static str,
    /// Whether it has a value.
    pub takes_value: bool,
    /// Whether guestseal itself has another option of this name, so that only virt-customize refuses it.
    pub elsewhere: bool,
    /// Why.
    pub reason: &'static str,
    /// What to do.
    pub instead: &'static str,
}

const fn refused(
    name: &'static str,
    takes_value: bool,
    reason: &'static str,
    instead: &'static str,
) -> Refused {
    Refused { name, takes_value, elsewhere: false, reason, instead }
}

const DISK: &str = "the guest's programs see no other disk than the guest's own";
const DISK_INSTEAD: &str = "bring what they need with --copy-in or --tar-in";
const WINDOWS: &str = "it is for Windows, and guestseal seals Linux guests";
const WINDOWS_INSTEAD: &str = "leave it out";
const RHSM: &str = "it runs subscription-manager in the guest, which guestseal does not do yet";
const RHSM_INSTEAD: &str = "register at the first boot, by --firstboot; the operation rh-subscription-manager takes a registration away";

/// Options that cannot be done, with the reason.
pub const REFUSED: &[Refused] = &[
    Refused { elsewhere: true, ..refused("attach", true, DISK, DISK_INSTEAD) },
    refused("attach-format", true, DISK, DISK_INSTEAD),
    refused("inject-blnsvr", true, WINDOWS, WINDOWS_INSTEAD),
    refused("inject-qemu-ga", true, WINDOWS, WINDOWS_INSTEAD),
    refused("inject-virtio-win", true, WINDOWS, WINDOWS_INSTEAD),
    refused("sm-attach", true, RHSM, RHSM_INSTEAD),
    refused("sm-credentials", true, RHSM, RHSM_INSTEAD),
    refused("sm-register", false, RHSM, RHSM_INSTEAD),
    refused("sm-remove", false, RHSM, RHSM_INSTEAD),
    refused("sm-unregister", false, RHSM, RHSM_INSTEAD),
];

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It does the same.
    Same,
    /// It does more, or the same with less risk.
    Better,
    /// It does what people use of it, and refuses the rest by name.
    Partly,
    /// It is taken and changes nothing here, for what it is about does not exist.
    NoEffect,
    /// It is refused with exit code 6.
    Refused,
}

use Answer::{Better, NoEffect, Partly, Same};

/// Options other than steps: as they are written, what becomes of them, and how.
const GENERAL: &[(&str, Answer, &str)] = &[
    ("--help, -h", Same, "guestseal's own help"),
    (
        "--add user:NAME[:KEY=VALUE…], network:dhcp, network:ADDRESS/PREFIX[:KEY=VALUE…]",
        Better,
        "an account, or an interface: not in virt-sysprep, see operations-format.md; a disk of such a name is ./user:…",
    ),
    (
        "--expand [+]SIZE, --expand-volume VOLUME",
        Better,
        "more room for the root or another volume, in the same run: not in virt-sysprep, see expand.md",
    ),
    ("--delete", Better, "without a path, as `--remove device`: not in virt-sysprep"),
    (
        "--remove ssh, logs, user, device",
        Better,
        "what is on by default in this group of operations.md: not in virt-sysprep",
    ),
    (
        "-a, --add, --image FILE",
        Better,
        "the image is locked, worked on in an overlay and written back in one step; a URI of nbd, ssh, rbd, http or https is read, and its result goes to `--output`; ftp, iscsi and gluster are refused with exit code 6",
    ),
    (
        "-c, --connect URI",
        Same,
        "of this host only: a domain of another host has its disks there, and is refused with exit code 6",
    ),
    (
        "-d, --domain DOMAIN",
        Better,
        "refused with exit code 3 while it runs, is paused or saved, where `--shutdown` asks it to shut down and waits, and `--no-shutdown` seals a copy; read-only, shared and removable disks are left alone with a note; the record has its name and UUID",
    ),
    ("--color, --colors, --colour, --colours", Same, "`--color=auto|always|never`; without a value, always"),
    (
        "-n, --dryrun, --dry-run",
        Same,
        "as virt-sysprep: everything is done on an overlay that is thrown away, scripts included; guestseal's own `--rehearse`. Under its own name, `--dry-run` looks and runs nothing",
    ),
    (
        "--echo-keys",
        NoEffect,
        "guestseal never asks for keys on a terminal: give them by `--key` or `--keys-from-stdin`",
    ),
    ("--enable OPERATIONS", Same, ""),
    (
        "--operation, --operations OPERATIONS",
        Same,
        "`defaults`, `all`, `-NAME`; some defaults differ, see docs/operations.md",
    ),
    (
        "--format FORMAT",
        Same,
        "for each `-a` behind it; `auto` again goes by the first bytes, and qemu never guesses",
    ),
    ("--key SELECTOR", Same, ""),
    ("--keys-from-stdin", Same, ""),
    ("--list-operations", Same, "the same columns"),
    (
        "--no-shutdown",
        Better,
        "with -d and `--output`: a domain that runs goes on, and a copy of its disk at one point in time is sealed; not in virt-sysprep",
    ),
    (
        "--network, --no-network",
        Better,
        "off unless asked for, with virt-customize too; the host's network, in a machine through qemu",
    ),
    (
        "--run SCRIPT",
        Better,
        "shut in by bubblewrap, on the host or in the machine, see docs/safety.md; at most 1 MiB",
    ),
    ("-q, --quiet", Same, "errors only"),
    ("-v, --verbose", Same, "stages, and operations that changed nothing"),
    ("-V, --version", Same, "guestseal's version"),
    ("--mount-options OPTIONS", Same, "`MOUNTPOINT:OPTIONS[;…]`"),
    ("--wrap", NoEffect, "messages are never broken into lines"),
    ("-x", Same, "each change to a file of the guest"),
    (
        "--script SCRIPT",
        Same,
        "as the script's owner would run it, in the guest's root folder; refused where the guest is mounted in a machine",
    ),
    (
        "--scriptdir DIR",
        NoEffect,
        "the guest is mounted where only this run sees it, and scripts begin in its root folder",
    ),
    (
        "--keep-user-accounts USERS",
        Better,
        "homes, mail, rules of sudoers, subuid, crontabs and jobs of at go with an account; given alone, it selects user-account",
    ),
    ("--remove-user-accounts USERS", Better, "as --keep-user-accounts"),
    (
        "--hostname NAME",
        Better,
        "after all steps, so that the record can be held against it; each distribution's own way, /etc/hosts included",
    ),
    ("--timezone ZONE", Better, "after all steps; checked against the guest's zoneinfo"),
    (
        "--root-password SELECTOR",
        Better,
        "after all steps, as there; hashed as the guest itself would; a random one is shown on a terminal only",
    ),
    ("--password USER:SELECTOR", Better, "as --root-password"),
    (
        "--password-crypto SCHEME",
        Same,
        "`sha256`, `sha512`, and `yescrypt`; `md5` is refused with exit code 6: it is broken",
    ),
    ("--commands-from-file FILE", Same, "at its place in the order"),
    ("--no-selinux-relabel", NoEffect, "guests are relabelled only when `--selinux-relabel` asks for it"),
    ("-m, --memsize MB", NoEffect, "of virt-customize; a virtual machine gets what it needs"),
    ("--smp N", NoEffect, "of virt-customize; a virtual machine has one processor"),
];

/// How steps differ; those that are not here are the same.
const STEPS: &[(&str, Answer, &str)] = &[
    (
        "chmod",
        Better,
        "a mode without a 0 in front is decimal there; one whose digits look octal, such as 755, is refused, for nobody means it",
    ),
    ("copy-in", Better, "streamed, at most 50,000 files; a link to a folder in the guest stays one"),
    (
        "delete",
        Better,
        "and what is deleted is erased; a glob whose first folder is open, such as /*, is refused",
    ),
    (
        "edit",
        Partly,
        "s/// with its flags g, i, x and s, tr///, `$_ = \"…\"`, print, next, last, each with `if`/`unless`, and blocks, without perl; what looks around, refers back or runs code is refused by name",
    ),
    (
        "firstboot",
        Better,
        "with systemd, sysvinit (also where insserv orders it), upstart and OpenRC; a script that fails keeps no later one from running, as there, and its exit code is in /var/log/guestseal-firstboot.log and makes the service count as failed; the service takes itself away",
    ),
    ("firstboot-command", Better, "as --firstboot"),
    ("firstboot-install", Better, "as --firstboot; the guest finds its package manager when it boots"),
    ("install", Better, "as --run; what comes from the network needs --network"),
    ("run-command", Better, "as --run"),
    (
        "scrub",
        Better,
        "the erasure of all free space makes it final; refused with --erase none and --tree, where there is none",
    ),
    ("selinux-relabel", Same, "always at the next boot, by /.autorelabel"),
    ("ssh-inject", Better, "a key that is there already is not added again; private keys are refused"),
    (
        "tar-in",
        Better,
        "streamed; a link to a folder in the guest stays one; names with .. and compressed files are refused",
    ),
    ("uninstall", Better, "as --run"),
    ("update", Better, "as --install"),
    ("upload", Better, "streamed, of any length"),
];

/// What stands above the table.
const HEAD: &str = "\
# In place of virt-sysprep and virt-customize

Called by one of these names, such as by a symbolic link, guestseal takes their command lines; `guestseal seal` takes the
same options. `virt-customize` runs the customisation and no other operation. Both lock the image, work in an overlay, erase
what was deleted, and write a record; exit codes are guestseal's. Long options may be shortened as far as they are not
ambiguous.

    ln -s /usr/bin/guestseal /usr/local/bin/virt-sysprep

The steps of the customisation are done in the order of the command line. Host name, time zone and passwords are set at one time,
where the last of them stands: what is given behind it comes after, all else before. What their programs leave
behind, such as logs and the host keys of a server that was installed, is removed once more behind them. A later `verify` is unsure of steps: what a later one made of an earlier one cannot be told. A profile (`--profile FILE`) holds the same
in a file: see [operations-format.md](operations-format.md).

Older notes have options of their own, which hold under each name: `--image`, `--remove`, `--delete` without a path, a bare word
behind `--root-password`, which is that password, with a warning, and `--add user:…` and `--add network:…`.

This table is generated: `UPDATE_DOCS=1 cargo test --test cli` writes it again. *Same*: does what it does there. *Better*: does
that and more, or with less risk. *In part*: does what is used of it, and refuses the rest by name. *No effect*: taken, and what
it is about does not exist here. *Refused*: exit code 6, before the image is opened.

| Option | Answer | How, or why |
|---|---|---|
";

/// The text of docs/virt-sysprep.md.
pub fn reference() -> String {
    let mut rows: Vec<(String, Answer, String)> = GENERAL
        .iter()
        .map(|(option, answer, how)| ((*option).to_owned(), *answer, (*how).to_owned()))
        .collect();
    for step in OPTIONS {
        let (answer, how) = STEPS
            .iter()
            .find(|(name, ..)| *name == step.name)
            .map_or((Same, ""), |(_, answer, how)| (*answer, *how));
        rows.push((format!("--{} {}", step.name, step.form).trim().to_owned(), answer, how.to_owned()));
    }
    for refused in REFUSED {
        let value = if refused.takes_value { " VALUE" } else { "" };
        let how = format!("{}; {}", refused.reason, refused.instead);
        rows.push((format!("--{}{value}", refused.name), Answer::Refused, how));
    }
    let bare =
        |option: &str| option.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic()).to_owned();
    rows.sort_by_key(|(option, ..)| bare(option.rsplit("--").next().unwrap_or_default()));
    rows.iter().fold(HEAD.to_owned(), |mut text, (option, answer, how)| {
        let answer = match answer {
            Same => "same",
            Better => "better",
            Partly => "in part",
            NoEffect => "no effect",
            Answer::Refused => "refused",
        };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "| `{option}` | {answer} | {} |", how.replace('|', "\\|").replace('*', "\\*"));
        text
    })
}
