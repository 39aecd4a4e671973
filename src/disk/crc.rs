//! The two cyclic redundancy checks that partition tables and superblocks carry, both reflected: CRC-32 of IEEE 802.3
//! (GPT, LVM, F2FS, NILFS2) and CRC-32C of Castagnoli, RFC 3720 (ext4, XFS, btrfs). Formats differ in the first value
//! and in whether the result is inverted, so both are left to the caller.

const IEEE: [u32; 256] = table(0xedb8_8320);
const CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index: u32 = 0;
    while index < 256 {
        let mut value = index;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[index as usize] = value;
        index += 1;
    }
    table
}

fn update(table: &[u32; 256], first: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(first, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ table[usize::from(low ^ byte)]
    })
}

/// CRC-32 from `first` on, not inverted at the end.
pub(super) fn crc32(first: u32, bytes: &[u8]) -> u32 {
    update(&IEEE, first, bytes)
}

/// CRC-32C from `first` on, not inverted at the end.
pub(crate) fn crc32c(first: u32, bytes: &[u8]) -> u32 {
    update(&CASTAGNOLI, first, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32(crc32(!0, b"1234"), b"56789"), crc32(!0, b"123456789"));
    }
}
