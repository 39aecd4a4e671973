//! The steps of a customisation as the command line writes them, with the syntax of virt-customize(1): one table of
//! options, and what each value means.

#![forbid(unsafe_code)]

use super::form::{check_expression, check_glob, check_line, check_package, check_place, check_some_text};
use super::schema::{Action, Bare, Link, Packages, Remove, Run, Terms, When, Write};
use super::step::{
    AppendLine, Bring, Chmod, Chown, Delete, Empty, Firstboot, FromTo, OnePath, SshInject, Substitute,
};
use crate::error::{Error, Result};

/// One option that is a step.
#[derive(Debug)]
pub struct StepOption {
    /// Without the dashes.
    pub name: &'static str,
    /// The form of its value; empty when it has none.
    pub form: &'static str,
    /// One line for the help.
    pub help: &'static str,
    /// A use of it, for errors.
    pub example: &'static str,
    parse: fn(&str) -> Result<Vec<Action>, String>,
}

/// Makes the table: option, form, help, example, what it means.
macro_rules! table {
    ($($name:literal $form:literal $help:literal $example:literal $parse:expr;)*) => {
        &[$(StepOption { name: $name, form: $form, help: $help, example: $example, parse: $parse }),*]
    };
}

/// All of them, in the order of names.
pub const OPTIONS: &[StepOption] = table! {
    "append-line" "FILE:LINE" "Append a line to a file" "/etc/hosts:10.0.0.1 db" append_line;
    "chmod" "MODE:FILE" "Set a file's permissions; MODE in octal begins with 0" "0644:/etc/motd" chmod;
    "chown" "UID:GID:PATH" "Set a file's owner, by numbers" "0:0:/etc/motd" chown;
    "copy" "SOURCE:DEST" "Copy files inside the guest" "/etc/skel:/home/bob" |text| from_to(text).map(|step| vec![Action::Copy(step)]);
    "copy-in" "LOCALPATH:REMOTEDIR" "Copy files or folders of this host into a folder of the guest" "site:/srv" |text| bring(text).map(|step| vec![Action::CopyIn(step)]);
    "delete" "PATH" "Remove what a glob of the shell matches, folders with all below; without a path, as --remove device" "/var/log/*.log" delete;
    "edit" "FILE:EXPR" "Edit lines by an expression of perl" "/etc/ssh/sshd_config:s/^#?UseDNS.*/UseDNS no/" edit;
    "firstboot" "SCRIPT" "Run a script of this host once at the first boot" "setup.sh" |text| firstboot(|step| step.script = Some(text.to_owned()), text);
    "firstboot-command" "CMD+ARGS" "Run a command of the guest once at the first boot" "useradd -m bob" |text| firstboot(|step| step.command = Some(text.to_owned()), text);
    "firstboot-install" "PKG,PKG.." "Install packages at the first boot" "htop,vim" firstboot_install;
    "install" "PKG,PKG.." "Install packages with the guest's package manager, shut in; needs --network" "htop,vim" |text| packages(text, |packages, names| packages.install = names);
    "link" "TARGET:LINK[:LINK..]" "Make symbolic links that point to TARGET" "/srv/site:/var/www" link;
    "mkdir" "DIR" "Make a folder with all above it" "/srv/site" |text| one(text).map(|step| vec![Action::Mkdir(step)]);
    "move" "SOURCE:DEST" "Move files inside the guest" "/etc/motd:/etc/motd.old" |text| from_to(text).map(|step| vec![Action::Move(step)]);
    "no-logfile" "" "Remove virt-builder's log file" "" |_| Ok(vec![log_file()]);
    "run-command" "CMD+ARGS" "Run a command of the guest, shut in" "systemctl mask tmp.mount" |text| Ok(vec![Action::Run(script(text)?)]);
    "scrub" "FILE" "Remove a file; what it held cannot be read back" "/root/notes" |text| one(text).map(|step| vec![Action::Scrub(step)]);
    "selinux-relabel" "" "Have a guest with SELinux label all files at its next boot" "" |_| Ok(vec![Action::SelinuxRelabel(Bare {})]);
    "ssh-inject" "USER[:SELECTOR]" "Let a user log in with an SSH key: file:FILE, string:KEY, or your own newest" "bob:file:bob.pub" ssh_inject;
    "tar-in" "TARFILE:REMOTEDIR" "Unpack a tar file of this host into a folder of the guest" "site.tar:/srv" |text| bring(text).map(|step| vec![Action::TarIn(step)]);
    "touch" "FILE" "Make an empty file, or set the times of one to now" "/etc/ready" |text| one(text).map(|step| vec![Action::Touch(step)]);
    "truncate" "FILE" "Set a file's length to zero" "/var/log/lastlog" |text| empty(text, false);
    "truncate-recursive" "PATH" "Set the length of all files in a folder to zero" "/var/log" |text| empty(text, true);
    "uninstall" "PKG,PKG.." "Remove packages with the guest's package manager, shut in" "nano" |text| packages(text, |packages, names| packages.remove = names);
    "update" "" "Bring all packages of the guest up to date, shut in; needs --network" "" |_| Ok(vec![Action::Packages(Packages { update: true, ..Packages::default() })]);
    "upload" "FILE:DEST" "Put a file of this host into the guest, with its owner and permissions" "motd:/etc/motd" |text| bring(text).map(|step| vec![Action::Upload(step)]);
    "write" "FILE:CONTENT" "Write a file" "/etc/motd:welcome" write;
};

impl StepOption {
    /// The option of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// What it means with this value.
    ///
    /// # Errors
    /// A usage error with the option's name, what was wrong and an example.
    pub fn actions(&self, value: &str) -> Result<Vec<Action>> {
        (self.parse)(value).map_err(|what| {
            let form = if self.form.is_empty() { String::new() } else { format!(" needs {}", self.form) };
            let example = format!("for example: --{} '{}'", self.name, self.example);
            Error::usage(format!("--{}{form}: {what}", self.name)).hint(example)
        })
    }
}

/// A script for the guest's programs.
///
/// # Errors
/// When it is empty.
pub fn script(text: &str) -> Result<Run, String> {
    check_some_text(text)?;
    Ok(Run { script: text.to_owned(), terms: Terms::default(), when: When::default() })
}

fn packages(text: &str, set: fn(&mut Packages, Vec<String>)) -> Parsed {
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err("no package is named".into());
    }
    names.iter().try_for_each(|name| check_package(name).map_err(|what| format!("{what}: {name:?}")))?;
    let mut packages = Packages::default();
    set(&mut packages, names.into_iter().map(str::to_owned).collect());
    Ok(vec![Action::Packages(packages)])
}

type Parsed = Result<Vec<Action>, String>;

fn halves(text: &str) -> Result<(&str, &str), String> {
    text.split_once(':').ok_or_else(|| "there is no colon in it".to_owned())
}

/// A path of the guest. Slashes at its end and in a row mean nothing.
fn place(text: &str) -> Result<String, String> {
    let mut path = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter != '/' || !path.ends_with('/') {
            path.push(letter);
        }
    }
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    check_place(&path).map_err(|what| format!("{what}, and {text:?} does not")).map(|()| path)
}

fn host(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the path of this host is empty".into()) } else { Ok(text.to_owned()) }
}

fn one(text: &str) -> Result<OnePath, String> {
    Ok(OnePath { path: place(text)? })
}

fn from_to(text: &str) -> Result<FromTo, String> {
    let (from, to) = halves(text)?;
    Ok(FromTo { from: place(from)?, to: place(to)? })
}

fn bring(text: &str) -> Result<Bring, String> {
    let (from, to) = halves(text)?;
    Ok(Bring { from: host(from)?, to: place(to)? })
}

fn append_line(text: &str) -> Parsed {
    let (path, line) = halves(text)?;
    check_line(line).map_err(|what| format!("the line {what}; use the option once for each line"))?;
    Ok(vec![Action::AppendLine(AppendLine { path: place(path)?, line: line.to_owned() })])
}

/// virt-customize takes a number without a 0 in front as decimal. Where that can be meant it is done; where its digits
/// look octal nobody means it.
fn chmod(text: &str) -> Parsed {
    let (mode, path) = halves(text)?;
    let digits = mode.strip_prefix("0o").unwrap_or(mode);
    let octal = mode.starts_with('0');
    let number = if octal { u32::from_str_radix(digits, 8) } else { mode.parse() };
    let number = number.ok().filter(|number| *number <= 0o7777 && !mode.starts_with('+'));
    let number = number.ok_or_else(|| format!("{mode:?} is no mode"))?;
    if !octal && u32::from_str_radix(mode, 8).is_ok() {
        return Err(format!("{mode} without a 0 in front would be decimal: write 0{mode}"));
    }
    Ok(vec![Action::Chmod(Chmod { path: place(path)?, mode: format!("{number:04o}") })])
}

fn chown(text: &str) -> Parsed {
    let (uid, rest) = halves(text)?;
    let (gid, path) = halves(rest)?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of a user or group"));
    Ok(vec![Action::Chown(Chown { path: place(path)?, uid: number(uid)?, gid: number(gid)? })])
}

fn delete(text: &str) -> Parsed {
    let path = place(text)?;
    check_glob(&path)?;
    Ok(vec![Action::Delete(Delete { path })])
}

fn edit(text: &str) -> Parsed {
    let (path, expression) = halves(text)?;
    check_expression(expression).map_err(|what| format!("the expression {expression:?}: {what}"))?;
    let expression = expression.to_owned();
    Ok(vec![Action::Substitute(Substitute { path: place(path)?, expression })])
}

fn empty(text: &str, recursive: bool) -> Parsed {
    Ok(vec![Action::Empty(Empty { path: place(text)?, recursive })])
}

fn firstboot(fill: impl FnOnce(&mut Firstboot), text: &str) -> Parsed {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    let mut step = Firstboot { name: None, script: None, command: None };
    fill(&mut step);
    Ok(vec![Action::Firstboot(step)])
}

/// Each distribution's own way, chosen by the guest itself when it boots.
const INSTALL: &str = "\
set -- PACKAGES
if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update && apt-get -q -y install \"$@\"
elif command -v dnf >/dev/null; then
    dnf -y install \"$@\"
elif command -v yum >/dev/null; then
    yum -y install \"$@\"
elif command -v zypper >/dev/null; then
    zypper --non-interactive install --auto-agree-with-licenses \"$@\"
elif command -v pacman >/dev/null; then
    pacman --sync --refresh --noconfirm --needed \"$@\"
elif command -v apk >/dev/null; then
    apk add \"$@\"
elif command -v xbps-install >/dev/null; then
    xbps-install --sync --yes \"$@\"
else
    echo 'no package manager was found' >&2
    exit 1
fi";

fn firstboot_install(text: &str) -> Parsed {
    let packages: Vec<&str> = text.split(',').map(str::trim).collect();
    let good = |name: &&str| {
        name.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '@')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-._:~@/=".contains(letter))
    };
    if let Some(bad) = packages.iter().find(|name| !good(name)) {
        return Err(format!("{bad:?} is no name of a package"));
    }
    let command = INSTALL.replace("PACKAGES", &packages.join(" "));
    let name = Some(format!("install {}", packages.join(" ")));
    Ok(vec![Action::Firstboot(Firstboot { name, script: None, command: Some(command) })])
}

fn link(text: &str) -> Parsed {
    let (target, links) = halves(text)?;
    if target.is_empty() {
        return Err("the target is empty".into());
    }
    let link = |path: &str| {
        let (path, target) = (place(path)?, target.to_owned());
        Ok(Action::Link(Link { path, target, into: true, when: When::default() }))
    };
    links.split(':').map(link).collect()
}

/// Where virt-builder's log is.
fn log_file() -> Action {
    Action::Remove(Remove {
        paths: vec!["/tmp/builder.log".into()],
        keep: Vec::new(),
        recursive: false,
        links: true,
        when: When::default(),
    })
}

fn ssh_inject(text: &str) -> Parsed {
    let (user, selector) = text.split_once(':').map_or((text, ""), |(user, selector)| (user, selector));
    if user.is_empty() {
        return Err("the user's name is missing".into());
    }
    let (key, file) = match selector.split_once(':') {
        None if selector.is_empty() => (None, None),
        Some(("file", file)) if !file.is_empty() => (None, Some(file.to_owned())),
        Some(("string", key)) if !key.is_empty() => (Some(key.to_owned()), None),
        _ => return Err("behind the user comes file:FILE or string:KEY, or nothing".into()),
    };
    Ok(vec![Action::SshInject(SshInject { user: user.to_owned(), key, file })])
}

fn write(text: &str) -> Parsed {
    let (path, content) = halves(text)?;
    let (path, content) = (place(path)?, content.to_owned());
    Ok(vec![Action::Write(Write { path, content, mode: None, create: true, when: When::default() })])
}

/// The lines of a file for `--commands-from-file`: a command without its dashes, then its value. A backslash at the end
/// of a line goes on in the next; blank lines and those that begin with # mean nothing. Each comes with its number.
pub fn commands(text: &str) -> Vec<(usize, String, String)> {
    let mut commands = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut whole = line.trim_start().to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some((next, _)) => whole.push_str(next.trim_start()),
                None => break,
            }
        }
        let (name, value) = whole.split_once([' ', '\t']).unwrap_or((&whole, ""));
        commands.push((number, name.trim_end().to_owned(), value.trim_start().to_owned()));
    }
    commands
}

#[cfg(test)]
#[path = "step_text_tests.rs"]
mod tests;
