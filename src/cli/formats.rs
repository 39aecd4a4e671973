//! `--format`: that of each disk.

use clap::{ArgMatches, ValueEnum};

use super::added::Added;
use super::args::ImageArgs;
use crate::image::format::Format;

/// The formats, and the choice to let guestseal tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FormatChoice {
    Auto,
    Qcow2,
    Raw,
    Vmdk,
    Vdi,
    Vhdx,
}

impl FormatChoice {
    /// None to go by the first bytes.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Qcow2 => Some(Format::Qcow2),
            Self::Raw => Some(Format::Raw),
            Self::Vmdk => Some(Format::Vmdk),
            Self::Vdi => Some(Format::Vdi),
            Self::Vhdx => Some(Format::Vhdx),
        }
    }
}

impl ImageArgs {
    /// Finds the format of each disk: that of the last `--format` before its `-a`.
    pub fn place_formats(&mut self, matches: &ArgMatches) {
        let places = |id: &str| matches.indices_of(id).into_iter().flatten().collect::<Vec<_>>();
        let formats: Vec<_> = places("format").into_iter().zip(&self.format).collect();
        let before = |disk: usize| formats.iter().rev().find(|(place, _)| *place < disk);
        // One that stands behind all disks is meant for them, as for images without -a.
        let only = self.format.last().filter(|_| self.format.len() == 1);
        let of = |disk: usize| before(disk).map(|(_, format)| *format).or(only);
        let added = matches.get_many::<Added>("add").into_iter().flatten();
        let disks = places("add").into_iter().zip(added).filter(|(_, added)| added.disk().is_some());
        self.disk_formats =
            disks.map(|(place, _)| place).map(|disk| of(disk).and_then(|format| format.format())).collect();
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn a_format_is_that_of_the_disks_behind_it() {
        let formats = |words: &[&str]| {
            let matches = Cli::command().get_matches_from([&["guestseal"], words].concat());
            let mut image = ImageArgs::from_arg_matches(&matches).expect("good arguments");
            image.place_formats(&matches);
            image.disk_formats
        };
        let (raw, qcow2) = (Some(Format::Raw), Some(Format::Qcow2));
        assert_eq!(formats(&["-a", "x", "-a", "y"]), [None, None]);
        assert_eq!(formats(&["--format", "raw", "-a", "x", "--format", "auto", "-a", "y"]), [raw, None]);
        assert_eq!(
            formats(&["-a", "x", "--format", "raw", "-a", "y", "--format", "qcow2", "-a", "z"]),
            [None, raw, qcow2]
        );
        assert_eq!(formats(&["-a", "x", "-a", "y", "--format", "raw"]), [raw, raw]);
        assert_eq!(formats(&["-a", "user:bob", "--format", "raw", "--image", "x"]), [raw]);
    }
}
