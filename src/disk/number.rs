//! Numbers in the bytes of on-disk structures. What lies outside of the bytes reads as zero.

#![forbid(unsafe_code)]

/// The bytes at `at`; all zeros when they are not all there.
pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end));
    found.and_then(|found| found.try_into().ok()).unwrap_or([0; N])
}

pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    u8::from_le_bytes(take(bytes, at))
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(take(bytes, at))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(take(bytes, at))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(take(bytes, at))
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(take(bytes, at))
}

const ZEROS: [u8; 4096] = [0; 4096];

/// How many bytes are not zero. Most stretches are all zero, which is seen without counting.
pub(crate) fn nonzero(bytes: &[u8]) -> u64 {
    // A piece's count fits in a byte, so that the compiler can add many at once.
    let count = |piece: &[u8]| u64::from(piece.iter().map(|byte| u8::from(*byte != 0)).sum::<u8>());
    let some = |piece: &&[u8]| **piece != ZEROS[..piece.len()];
    bytes.chunks(ZEROS.len()).filter(some).flat_map(|piece| piece.chunks(255)).map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_all_there_is_zero() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!((le16(&bytes, 1), be16(&bytes, 1)), (0x0302, 0x0203));
        assert_eq!((le32(&bytes, 5), be32(&bytes, 5)), (0x0908_0706, 0x0607_0809));
        assert_eq!((le64(&bytes, 1), be64(&bytes, 1)), (0x0908_0706_0504_0302, 0x0203_0405_0607_0809));
        assert_eq!((byte(&bytes, 8), byte(&bytes, 9)), (9, 0));
        assert_eq!((le32(&bytes, 6), be64(&bytes, 2), le16(&bytes, usize::MAX)), (0, 0, 0));
        assert_eq!(nonzero(&[0, 1, 0, 255]), 2);
    }

    #[test]
    fn bytes_that_are_not_zero_are_counted() {
        let mut bytes = vec![0; 10_000];
        assert_eq!(nonzero(&bytes), 0);
        bytes[9_999] = 1;
        bytes[..600].fill(255);
        assert_eq!(nonzero(&bytes), 601);
    }
}
