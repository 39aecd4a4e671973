//! A copy of the disks of a domain that goes on running, as they were at one point in time: libvirt's backup in push mode, which
//! qemu writes (<https://libvirt.org/formatbackup.html>). The guest's agent freezes the filesystems while that point is set.

#![forbid(unsafe_code)]

use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::virsh::Libvirt;
use super::xml::escaped;
use super::{Domain, DomainDisk, definition, job, located};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{self, Point};
use crate::image::nameless::NamelessFile;
use crate::report::{Event, Observer};
use crate::sys::tool::Tool;
use crate::sys::{interrupt, trouble};

/// How long one wait for the end of the copy lasts; after it, how far it has come is asked.
const ONE_WAIT: Duration = Duration::from_secs(1);
/// What virsh calls the event.
const END_OF_JOB: &str = "job-completed";
/// What virsh says in the C locale.
const FROZEN: &str = "Froze";
const NOT_FROZEN: &str = "Unable to freeze filesystems";
const STARTED: &str = "Backup started";
const THAWED: &str = "Thawed";

/// In which state of the guest the copy was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointInTime {
    /// Programs of the guest had written what they hold, and no filesystem was in the middle of something.
    #[serde(rename = "frozen by the guest agent")]
    Frozen,
    /// As if the power had failed: journals are replayed when the copy is mounted.
    #[serde(rename = "crash-consistent")]
    CrashConsistent,
}

/// The copies of the disks, each in a file of our own.
#[derive(Debug)]
pub struct Copied {
    /// The disks, each with its file: qcow2, under a temporary name.
    pub disks: Vec<(DomainDisk, NamelessFile)>,
    /// The state they are in.
    pub point_in_time: PointInTime,
}

impl Domain {
    /// Copies the disks into a folder, while the guest goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the hypervisor cannot; [`ErrorKind::Busy`] when libvirt does
    /// something else with the domain, or it runs with other disks than it is defined with; [`ErrorKind::Stopped`].
    pub fn copy(&self, folder: &Path, observer: &mut dyn Observer) -> Result<Copied> {
        let mut disks = Vec::new();
        for disk in self.disks_that_run()? {
            let bytes = self.capacity(&disk.target)?;
            let file = self.make_file(&disk, folder, bytes)?;
            disks.push((disk, file));
        }
        let targets: Vec<_> = disks.iter().map(|(disk, _)| disk.target.as_str()).collect();
        let files = disks.iter().map(|(_, file)| file.temporary_path().unwrap_or_default());
        let xml = backup_xml(targets.iter().copied().zip(files))?;
        let mut backup = Backup { libvirt: &self.libvirt, uuid: &self.identity.uuid, goes_on: true };
        let began = self.begin(&xml);
        // One that libvirt refused may be another's.
        backup.goes_on = began.is_ok();
        let (point_in_time, why_not) =
            began.map_err(|error| error.within(format!("cannot copy the disks {}", targets.join(", "))))?;
        fault::point(Point::CopyBegun)?;
        observer.event(Event::Told(match point_in_time {
            PointInTime::Frozen => "the guest's agent froze its filesystems for the moment of the copy",
            PointInTime::CrashConsistent => {
                "no agent of the guest froze its filesystems: the copy is as after a power failure"
            }
        }));
        if let Some(why) = why_not {
            observer
                .event(Event::Warning(&format!("the guest's agent did not freeze its filesystems: {why}")));
        }
        backup.finish(&targets, observer)?;
        Ok(Copied { disks, point_in_time })
    }

    /// The disks of the running machine: its definition may have been changed since it was started.
    fn disks_that_run(&self) -> Result<Vec<DomainDisk>> {
        let name = &self.identity.name;
        let text = self.libvirt.ask(&["dumpxml"], &[&self.identity.uuid])?;
        let (now, _) = located(&self.libvirt, &definition::parse(&text)?)?;
        if now == self.disks {
            return Ok(now);
        }
        let what = format!("the domain {name} runs with other disks than those that it is defined with");
        Err(Error::new(ErrorKind::Busy, what).hint("shut it down first: --shutdown"))
    }

    fn capacity(&self, target: &str) -> Result<u64> {
        let answer = self.libvirt.ask(&["domblkinfo"], &[&self.identity.uuid, target])?;
        let value = answer.lines().find_map(|line| line.strip_prefix("Capacity:")?.trim().parse().ok());
        value.ok_or_else(|| Error::failed("virsh domblkinfo does not say how large the disk is"))
    }

    /// An empty image that whoever runs the guest may write: it belongs to whom the disk does.
    fn make_file(&self, disk: &DomainDisk, folder: &Path, bytes: u64) -> Result<NamelessFile> {
        let file = NamelessFile::make_for_others(folder)?;
        let failed = || format!("cannot make a copy in {}", folder.display());
        if nix::unistd::geteuid().is_root()
            && let Ok(source) = disk.path.metadata()
        {
            fchown(file.file(), Some(source.uid()), Some(source.gid())).context(failed)?;
        }
        let path = file.temporary_path().unwrap_or_default();
        let words = ["create", "-q", "-f", "qcow2", "--"].map(PathBuf::from);
        let create = Tool::find("qemu-img")?.spawn().args(words).arg(&path).arg(bytes.to_string());
        let (exit, _) = create.output(1 << 16)?;
        exit.success().map_err(|error| error.within(failed()))?;
        Ok(file)
    }

    /// Sets the point in time, and says why an agent that is there did not freeze the filesystems. The filesystems are frozen and thawed by one process that goes on whatever becomes of this one.
    fn begin(&self, xml: &str) -> Result<(PointInTime, Option<String>)> {
        let (name, uuid) = (&self.identity.name, &self.identity.uuid);
        let commands =
            format!("domfsfreeze {uuid}; backup-begin {uuid} /dev/stdin --reuse-external; domfsthaw {uuid}");
        let hold = interrupt::hold();
        let told = self.libvirt.all_of(&commands, xml);
        let frozen = told.as_ref().map_or(true, |(said, _)| said.contains(FROZEN) && !said.contains(THAWED));
        if frozen
            && let Err(error) = self.libvirt.ask(&["domfsthaw"], &[uuid])
            && told.is_ok()
        {
            let hint = format!("the guest's programs wait until it is done: virsh domfsthaw {name}");
            return Err(Error::failed("cannot thaw the guest's filesystems").caused_by(error).hint(hint));
        }
        drop(hold);
        let (said, complaints) = told?;
        if !said.contains(STARTED) {
            return Err(refused(&complaints));
        }
        Ok(match said.contains(FROZEN) {
            true => (PointInTime::Frozen, None),
            false => (PointInTime::CrashConsistent, not_frozen(&complaints)),
        })
    }
}

/// What libvirt is asked to do: whole copies of some disks into files that are there. It leaves out what is not named.
fn backup_xml<'a>(disks: impl Iterator<Item = (&'a str, PathBuf)>) -> Result<String> {
    let mut all = String::new();
    for (target, path) in disks {
        let path = path.to_str().ok_or_else(|| {
            Error::usage(format!("the path {} is no UTF-8, which libvirt's XML is", path.display()))
        })?;
        let (target, path) = (escaped(target)?, escaped(path)?);
        all += &format!(
            "<disk name='{target}' type='file' backup='yes' backupmode='full'>\
             <driver type='qcow2'/><target file='{path}'/></disk>"
        );
    }
    Ok(format!("<domainbackup mode='push'><disks>{all}</disks></domainbackup>"))
}

/// Why libvirt did not begin, by what virsh says; what it says of the agent is no reason.
fn refused(complaints: &str) -> Error {
    let of_agent = |line: &&str| ["freeze", "thaw", "agent"].iter().any(|word| line.contains(word));
    let lines: Vec<&str> = complaints.lines().filter(|line| !of_agent(line)).collect();
    let why = lines.join("; ");
    let (kind, hint) = if why.contains("not supported") || why.contains("unsupported") {
        (
            ErrorKind::Unsupported,
            "this hypervisor cannot copy the disk of a running guest: have it shut down, --shutdown",
        )
    } else if why.contains("state change lock") || why.contains("already") {
        (
            ErrorKind::Busy,
            "another job runs on the domain: try again when it is done, virsh domjobinfo shows it",
        )
    } else {
        (
            ErrorKind::Failed,
            "whoever runs the guest must get at the folder of --output; virsh domstate tells whether it runs",
        )
    };
    Error::new(kind, "libvirt does not begin the copy").caused_by(why).hint(hint)
}

/// Why an agent did not freeze the filesystems; none when there is no agent.
fn not_frozen(complaints: &str) -> Option<String> {
    let (_, behind) = complaints.split_once(NOT_FROZEN)?;
    let why = behind.lines().find(|line| !line.is_empty())?;
    let absent = ["is not configured", "is not connected"].iter().any(|words| why.contains(words));
    (!absent).then(|| why.trim_start_matches("error: ").to_owned())
}

/// A backup that goes on: dropped, it is given up.
struct Backup<'a> {
    libvirt: &'a Libvirt,
    uuid: &'a str,
    goes_on: bool,
}

impl Backup<'_> {
    /// Waits until the copies are whole.
    fn finish(&mut self, targets: &[&str], observer: &mut dyn Observer) -> Result<()> {
        while let Some(job::Progress { done, total }) =
            job::parse(&self.libvirt.ask(&["domjobinfo"], &[self.uuid])?)?
        {
            observer.event(Event::Progress {
                what: "copying the running guest's disk",
                done: done.min(total),
                total,
            });
            interrupt::check()?;
            self.libvirt.event(self.uuid, END_OF_JOB, ONE_WAIT)?;
        }
        self.goes_on = false;
        let words = ["domjobinfo", "--completed", "--keep-completed", "--anystats"];
        job::succeeded(&self.libvirt.ask(&words, &[self.uuid])?)?;
        // libvirt answers this only once it has let the files go.
        let ask = |target: &&str| self.libvirt.ask(&["domblkinfo"], &[self.uuid, target]).map(drop);
        targets.iter().try_for_each(ask)
    }
}

impl Drop for Backup<'_> {
    fn drop(&mut self) {
        if !self.goes_on {
            return;
        }
        // A signal that stops the run must not stop this.
        let _hold = interrupt::hold();
        if let Err(error) = self.libvirt.ask(&["domjobabort"], &[self.uuid])
            && self
                .libvirt
                .ask(&["domjobinfo"], &[self.uuid])
                .is_ok_and(|text| !matches!(job::parse(&text), Ok(None)))
        {
            trouble::note(Error::failed("cannot give up the copy of the running guest").caused_by(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (words, kind) in [
            (
                "error: this function is not supported by the connection driver: virDomainBackupBegin",
                ErrorKind::Unsupported,
            ),
            (
                "error: Operation not supported: incremental backup is not supported yet",
                ErrorKind::Unsupported,
            ),
            (
                "error: Timed out during operation: cannot acquire state change lock (held by monitor=x)",
                ErrorKind::Busy,
            ),
            ("error: internal error: Could not open '/root/x': Permission denied", ErrorKind::Failed),
        ] {
            let agent = "error: Unable to freeze filesystems\nerror: argument unsupported: QEMU guest agent is not configured\n";
            let error = refused(&format!("{agent}{words}\nerror: Unable to thaw filesystems\n{agent}"));
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(!error.chain().contains("agent") && error.chain().contains(words), "{error:?}");
        }
    }

    #[test]
    fn an_agent_that_is_there_has_a_reason() {
        let said = |why| format!("error: Unable to freeze filesystems\nerror: {why}\nerror: other\n");
        let none = "Guest agent is not responding: QEMU guest agent is not connected";
        assert_eq!((not_frozen(&said(none)), not_frozen("")), (None, None));
        let why = "Guest agent is not responding: Guest agent not available for now";
        assert_eq!(not_frozen(&said(why)).as_deref(), Some(why));
    }

    #[test]
    fn paths_are_no_xml() {
        let xml = |path: &str| backup_xml([("vda", path.into())].into_iter());
        assert!(xml("/a\nb").is_err());
        let xml = xml("/a'/><b&").unwrap();
        assert!(xml.contains("<target file='/a&apos;/&gt;&lt;b&amp;'/>"), "{xml}");
    }
}
