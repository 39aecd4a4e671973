//! The command line as it was typed: no look-ups, no decisions. `super::request` turns it into a plan.

use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args, Parser, Subcommand, ValueEnum};

use super::added::{self, Added};
use super::clone::CloneArgs;
use super::expand::ExpandArgs;
use super::formats::FormatChoice;
use super::operations::OperationsCommand;
use super::place::{PlaceArgs, RecoverArgs};
use super::running::RunningArgs;
use super::selection::SelectionArgs;
use super::template::TemplateCommand;
use super::virt::Called;
use crate::attach::Way;
use crate::erase::policy::Policy;
use crate::guest::secret::Secret;
use crate::image::format::Format;
use crate::isolate::Isolate;

/// Seals the disk images of shut-down Linux guests so that they can become templates.
#[derive(Debug, Parser)]
#[command(name = "guestseal", version, max_term_width = 100)]
#[command(override_usage = "guestseal [OPTIONS] [IMAGE]...\n       guestseal <COMMAND> [OPTIONS] …")]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (image unchanged), 2 usage, 3 image busy, 4 commit interrupted (run \
    recover), 5 verify found something, 6 guest or request not supported, 7 the host lacks something.\n\n\
    SIGINT, SIGTERM and SIGHUP undo what was done, report it and end guestseal by that signal (for a shell 130, 143, 129); \
    once the result is being made permanent that is finished first. A second one of the same kind kills at once, which is \
    safe too."
)]
pub struct Cli {
    /// What to do; without a command the options are those of `seal`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `seal`.
    #[command(flatten)]
    pub seal: SealArgs,
    /// Options of every command.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Seal images: run the operations, write the result back in one step, record it.
    Seal(SealArgs),
    /// Show what is in an image and what sealing would do; changes nothing.
    Inspect(InspectArgs),
    /// Hold sealed images against their records.
    Verify(VerifyArgs),
    /// Finish a commit that was interrupted.
    Recover(RecoverArgs),
    /// Make clones of a template: thin or full, with what each has of its own.
    Clone(Box<CloneArgs>),
    /// Make, list, check and delete templates.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// List, show and check operations.
    #[command(subcommand)]
    Operations(OperationsCommand),
    /// Print a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder.
    Man {
        /// The folder.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// How to talk.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: stages, operations that changed nothing.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Trace every change to a file of the guest.
    #[arg(short = 'x', long = "trace", global = true)]
    pub trace: bool,
    /// When to use colours.
    #[arg(long, visible_alias = "colors", aliases = ["colour", "colours"], global = true, value_name = "WHEN", default_value = "auto",
        num_args = 0..=1, default_missing_value = "always", require_equals = true)]
    pub color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// Where operations come from.
#[derive(Debug, Clone, Default, Args)]
pub struct CatalogueArgs {
    /// Add the operations in this folder; those with a known name replace it. May be repeated.
    #[arg(long, value_name = "DIR")]
    pub operations_dir: Vec<PathBuf>,
}

/// How to open an image.
#[derive(Debug, Clone, Default, Args)]
pub struct ImageArgs {
    /// Format of the images, or of the disks named by -a behind it; told by their first bytes when left out, or `auto`.
    #[arg(long, value_name = "FORMAT", action = ArgAction::Append)]
    pub format: Vec<FormatChoice>,
    /// That of each disk named by -a; see [`ImageArgs::place_formats`].
    #[arg(skip)]
    pub disk_formats: Vec<Option<Format>>,
    /// How to attach images.
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub attach: AttachChoice,
    /// When to mount the guest in a small virtual machine instead of on this host.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub isolate: Isolate,
    /// The kernel of that machine; this host's when left out.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// A key of an encrypted volume: ID:key:PASSPHRASE or ID:file:FILE, where ID is its UUID, its name or `all`. May be
    /// repeated.
    #[arg(long, value_name = "SELECTOR")]
    pub key: Vec<Secret>,
    /// Read keys from standard input, one in each line; each is tried on every encrypted volume.
    #[arg(long)]
    pub keys_from_stdin: bool,
    /// Where the root of the guest is, of several systems: as its fstab would name it, such as /dev/sda2 or UUID=….
    #[arg(long, value_name = "VOLUME")]
    pub root: Option<String>,
    /// Mount options, for what the guest mounts somewhere; several filesystems are separated by `;`.
    #[arg(long, value_name = "POINT:OPTIONS")]
    pub mount_options: Option<String>,
    /// Take arrays (RAID) that lack a member: what the missing one holds is not sealed.
    #[arg(long)]
    pub degraded: bool,
    /// Work on a thin image whose backing files stay as they are: they still hold what is deleted from it.
    #[arg(long)]
    pub allow_backing: bool,
    /// Where things are.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// The ways to attach, and the choice to let guestseal choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachChoice {
    /// The first that works.
    #[default]
    Auto,
    /// qemu-nbd and the kernel's nbd.
    Nbd,
    /// qemu-storage-daemon's FUSE export.
    Fuse,
    /// A raw image by itself: with --in-place, or only looked at.
    Loop,
}

impl AttachChoice {
    /// None when guestseal chooses.
    pub fn way(self) -> Option<Way> {
        match self {
            Self::Auto => None,
            Self::Nbd => Some(Way::Nbd),
            Self::Fuse => Some(Way::Fuse),
            Self::Loop => Some(Way::Loop),
        }
    }
}

/// A domain of libvirt in place of images.
#[derive(Debug, Clone, Default, Args)]
pub struct DomainArgs {
    /// Take the disks of this domain of libvirt, named by its name, UUID or number; those that it can only read, and
    /// removable ones, are left alone.
    #[arg(short, long, value_name = "DOMAIN", action = ArgAction::Append)]
    pub domain: Vec<String>,
    /// Reach libvirt at this URI.
    #[arg(short, long, value_name = "URI")]
    pub connect: Option<String>,
}

/// What of looking `--tree` has no use for: nothing is attached.
const NOT_WITH_A_FOLDER: [&str; 14] = [
    "images",
    "domain",
    "connect",
    "format",
    "attach",
    "isolate",
    "kernel",
    "key",
    "keys_from_stdin",
    "degraded",
    "root",
    "mount_options",
    "allow_backing",
    "work_dir",
];

/// What of sealing `--tree` has no use for besides: nothing is erased or committed.
const NOT_TO_SEAL_A_FOLDER: [&str; 14] = [
    "rehearse",
    "shutdown",
    "shutdown_timeout",
    "no_shutdown",
    "output",
    "output_format",
    "flatten",
    "drop_snapshots",
    "compress",
    "in_place",
    "repair",
    "erase",
    "keep_gaps",
    "allow_unproven",
];

/// The options of `seal`.
#[derive(Debug, Clone, Default, Args)]
pub struct SealArgs {
    /// The images, each a guest of its own: files, block devices, or URIs (nbd, ssh, rbd, http, https), which are only read.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A disk of one guest, as virt-sysprep names it; repeat it for a guest with several disks. user:NAME[:KEY=VALUE…]
    /// adds an account, network:dhcp|ADDRESS/PREFIX[:KEY=VALUE…] sets up an interface: see operations-format.md.
    #[arg(short, long = "add", visible_alias = "image", value_name = "IMAGE", action = ArgAction::Append,
        value_parser = Added::parser())]
    pub add: Vec<Added>,
    /// The domain whose disks they are.
    #[command(flatten)]
    pub domain: DomainArgs,
    /// What to do with it while it runs.
    #[command(flatten)]
    pub running: RunningArgs,
    /// Seal the root folder of a guest instead of an image, in place: nothing is undone on failure, nothing is erased.
    #[arg(long, value_name = "DIR", conflicts_with_all = NOT_WITH_A_FOLDER.iter().chain(&NOT_TO_SEAL_A_FOLDER))]
    pub tree: Option<PathBuf>,
    /// Only show what would be done.
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Do everything to the guest, scripts and programs included, on an overlay that is thrown away.
    #[arg(long, conflicts_with_all = ["dry_run", "output", "in_place"])]
    pub rehearse: bool,
    /// List all operations and end.
    #[arg(long)]
    pub list_operations: bool,
    /// How to open images.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Write the sealed image to a new file; the old one is only read.
    #[arg(short, long, value_name = "NEW", conflicts_with = "in_place")]
    pub output: Option<PathBuf>,
    /// Format of the new file; that of the old one when left out.
    #[arg(long, value_name = "FORMAT")]
    pub output_format: Option<Format>,
    /// Write what is in the image's backing files into the new file too.
    #[arg(long)]
    pub flatten: bool,
    /// Remove the image's internal snapshots and bitmaps, which hold the guest's past.
    #[arg(long)]
    pub drop_snapshots: bool,
    /// Compress the new file.
    #[arg(long)]
    pub compress: bool,
    /// Write into the image from the start: nothing is undone on failure.
    #[arg(long)]
    pub in_place: bool,
    /// More room for the guest.
    #[command(flatten)]
    pub expand: ExpandArgs,
    /// Check the guest's ext and xfs filesystems first and repair them, on the overlay.
    #[arg(long, conflicts_with = "in_place")]
    pub repair: bool,
    /// How much of what was deleted is erased, so that nobody can read it back.
    #[arg(long, value_name = "POLICY", default_value = "full")]
    pub erase: Policy,
    /// Leave what lies between partitions as it is.
    #[arg(long)]
    pub keep_gaps: bool,
    /// Seal also when it cannot be proven that a volume holds nothing deleted; the record says so.
    #[arg(long)]
    pub allow_unproven: bool,
    /// Digest of the sealed image for its record.
    #[arg(long, value_name = "KIND", default_value = "sha256")]
    pub digest: DigestChoice,
    /// Which operations.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Options of virt-sysprep that mean nothing here.
    #[command(flatten)]
    pub meaningless: MeaninglessArgs,
    /// The name by which the program was called.
    #[arg(skip)]
    pub called: Called,
}

impl SealArgs {
    /// Sees to what depends on the order of options, or on what a value of `--add` is.
    pub(super) fn place(&mut self, matches: &ArgMatches) {
        self.image.place_formats(matches);
        added::sort(&mut self.add, &mut self.selection);
    }
}

/// Options of virt-sysprep and virt-customize about what does not exist here; docs/virt-sysprep.md says of each why.
#[derive(Debug, Clone, Default, Args)]
pub struct MeaninglessArgs {
    /// Keys are not asked for.
    #[arg(long, hide = true)]
    pub echo_keys: bool,
    /// Messages are never broken into lines.
    #[arg(long, hide = true)]
    pub wrap: bool,
    /// Only `--selinux-relabel` relabels.
    #[arg(long, hide = true)]
    pub no_selinux_relabel: bool,
    /// The guest is mounted where only this run sees it.
    #[arg(long, hide = true, value_name = "DIR")]
    pub scriptdir: Option<PathBuf>,
    /// Nothing runs in the guest.
    #[arg(short, long, hide = true, value_name = "MB")]
    pub memsize: Option<u32>,
    /// Nothing runs in the guest.
    #[arg(long, hide = true, value_name = "N")]
    pub smp: Option<u32>,
}

/// Which digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DigestChoice {
    #[default]
    Sha256,
    None,
}

/// The options of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The images, each a guest of its own.
    #[arg(required_unless_present_any = ["tree", "add", "domain"], value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A disk of one guest; repeat it for a guest with several disks. Also user:… and network:…, as for `seal`.
    #[arg(short, long = "add", visible_alias = "image", value_name = "IMAGE", action = ArgAction::Append,
        value_parser = Added::parser())]
    pub add: Vec<Added>,
    /// The domain whose disks they are.
    #[command(flatten)]
    pub domain: DomainArgs,
    /// Look at the root folder of a guest instead of an image.
    #[arg(long, value_name = "DIR", conflicts_with_all = NOT_WITH_A_FOLDER)]
    pub tree: Option<PathBuf>,
    /// How to open them.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Which operations to look at.
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// The options of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The images, each a guest of its own.
    #[arg(required_unless_present_any = ["tree", "add", "domain"], value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A disk of one guest; repeat it for a guest with several disks.
    #[arg(short, long = "add", visible_alias = "image", value_name = "IMAGE", action = ArgAction::Append,
        value_parser = Added::parser())]
    pub add: Vec<Added>,
    /// The domain whose disks they are.
    #[command(flatten)]
    pub domain: DomainArgs,
    /// Verify the root folder of a guest instead of an image.
    #[arg(long, value_name = "DIR", conflicts_with_all = NOT_WITH_A_FOLDER)]
    pub tree: Option<PathBuf>,
    /// Only prove that nothing deleted can be read back; needs no record.
    #[arg(long, conflicts_with_all = ["tree", "mount_options"])]
    pub residue: bool,
    /// How to open them.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Where operations come from.
    #[command(flatten)]
    pub catalogue: CatalogueArgs,
}
