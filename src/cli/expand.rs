//! The options by which a guest gets more room.

use clap::Args;

use crate::error::Result;
use crate::expand::{Expand, Expanded};

use super::print::{bytes, clean};

/// More room for the guest.
#[derive(Debug, Clone, Default, Args)]
pub struct ExpandArgs {
    /// Make the first disk that large, or larger by so much (20G, +5G), and let the root fill it: partition, LVM, LUKS and
    /// filesystem.
    #[arg(long, value_name = "SIZE|+SIZE", conflicts_with_all = ["in_place", "repair", "tree"])]
    pub expand: Option<String>,
    /// Let this volume fill the larger disk instead: as --root names it, GROUP/VOLUME, or a mount point of the guest.
    #[arg(long, value_name = "VOLUME", requires = "expand")]
    pub expand_volume: Option<String>,
}

impl ExpandArgs {
    /// What of it is planned; `grows_image`: whether the image itself gets longer.
    ///
    /// # Errors
    /// Usage errors of sizes.
    pub fn plan(&self, grows_image: bool) -> Result<Option<Expand>> {
        let Some(text) = &self.expand else { return Ok(None) };
        Ok(Some(Expand { size: text.parse()?, volume: self.expand_volume.clone(), grows_image }))
    }
}

/// One line about what grew, or would (`done` is false).
pub fn told(expanded: &Expanded, done: bool) -> String {
    let Expanded { from, to, volume, filesystem, .. } = expanded;
    let disk = match from == to {
        true => format!("the disk stays at {}", bytes(*to)),
        false => format!("the disk from {} to {}", bytes(*from), bytes(*to)),
    };
    let what = match (expanded.filesystem_bytes_before, expanded.filesystem_bytes_after) {
        _ if !done => format!("would be expanded: {disk}, and the {filesystem} on {volume} fills it"),
        (Some(before), Some(after)) if after > before => {
            let (before, after) = (bytes(before), bytes(after));
            format!("expanded: {disk}, the {filesystem} on {volume} from {before} to {after}")
        }
        (Some(before), _) => {
            format!("expanded: {disk}; the {filesystem} on {volume} fills it already, with {}", bytes(before))
        }
        (None, _) => format!("expanded: {disk}, and the {filesystem} on {volume} fills it"),
    };
    clean(&what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_told_with_its_sizes() {
        let expanded = |to, after| Expanded {
            from: 1 << 30,
            to,
            volume: "partition 2".into(),
            filesystem: "ext4".into(),
            filesystem_bytes_before: Some(1 << 29),
            filesystem_bytes_after: after,
        };
        assert_eq!(
            told(&expanded(2 << 30, Some(3 << 29)), true),
            "expanded: the disk from 1.00 GiB to 2.00 GiB, the ext4 on partition 2 from 512.00 MiB to 1.50 GiB"
        );
        assert!(
            told(&expanded(1 << 30, Some(1 << 29)), true)
                .contains("stays at 1.00 GiB; the ext4 on partition 2 fills it already")
        );
        assert!(told(&expanded(2 << 30, None), false).starts_with("would be expanded"));
    }
}
