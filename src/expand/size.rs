//! The size that a user wants.

use std::str::FromStr;

use crate::error::{Error, Result};

/// A size, or what is added to one; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// That size.
    To(u64),
    /// So much more than it is.
    By(u64),
}

/// Powers of 1024, as qemu-img and virt-resize write them.
const UNITS: [char; 7] = ['B', 'K', 'M', 'G', 'T', 'P', 'E'];

impl Size {
    /// The size of a disk afterwards, in whole sectors; none when there is no such number.
    pub fn after(self, from: u64) -> Option<u64> {
        let bytes = match self {
            Self::To(bytes) => bytes,
            Self::By(bytes) => from.checked_add(bytes)?,
        };
        // The kernel and qemu count with 63 bits.
        bytes.checked_next_multiple_of(512).filter(|bytes| i64::try_from(*bytes).is_ok())
    }
}

impl FromStr for Size {
    type Err = Error;

    /// Takes `20G`, `+512M` and whole numbers of bytes.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("{text:?} is no size"))
                .hint("write 20G for that size, +5G for so much more: whole numbers with K, M, G, T or P")
        };
        let (adds, number) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
        let unit = number.chars().last().map(|letter| letter.to_ascii_uppercase());
        let power = unit.and_then(|unit| UNITS.iter().position(|known| *known == unit));
        let digits = if power.is_some() { &number[..number.len() - 1] } else { number };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let power = u32::try_from(power.unwrap_or(0)).map_err(|_| wrong())?;
        let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1024_u64.pow(power)));
        let bytes = bytes.ok_or_else(wrong)?;
        Ok(if adds { Self::By(bytes) } else { Self::To(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, size) in [
            ("20G", Size::To(20 << 30)),
            ("+512m", Size::By(512 << 20)),
            ("1048576", Size::To(1 << 20)),
            ("2P", Size::To(2 << 50)),
            ("+0", Size::By(0)),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), size, "{text}");
        }
        for text in ["", "+", "G", "-5G", "5X", "1.5G", "20GB", "++1", "99999999999999G", "+ 5G", "５G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size::By(1).after(1024), Some(1536));
        assert_eq!((Size::By(u64::MAX).after(512), Size::To(u64::MAX).after(0)), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_ends_in_an_answer(text in "\\PC{0,12}") {
            if let Ok(size) = text.parse::<Size>() {
                let _ = size.after(1 << 30);
            }
        }
    }
}
