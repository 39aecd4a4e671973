//! What opening a LUKS2 volume costs, by its header (the LUKS2 On-Disk Format Specification 1.1.1, "Keyslots Object"):
//! whoever made it chose how much memory and time each try of a key takes.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Deserialize;

/// Passes over a gigabyte of memory by argon2: some minutes where it takes a third of a second for one.
const PASSES: u64 = 512;
/// Rounds of PBKDF2, of which a processor makes some millions in a second.
const ROUNDS: u64 = 1 << 30;
const GIGABYTE_IN_KIB: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
struct Header {
    keyslots: BTreeMap<String, Slot>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    kdf: Kdf,
}

/// argon2 has memory and time, PBKDF2 iterations.
#[derive(Debug, Deserialize)]
struct Kdf {
    memory: Option<u64>,
    time: Option<u64>,
    iterations: Option<u64>,
}

/// Why a key cannot be tried, by the metadata that `cryptsetup luksDump --dump-json-metadata` prints; none when it can.
/// `memory` is what there is, in KiB.
///
/// # Errors
/// When it is no such metadata.
pub(super) fn too_much(metadata: &str, memory: u64) -> serde_json::Result<Option<String>> {
    let header: Header = serde_json::from_str(metadata)?;
    Ok(header.keyslots.iter().find_map(|(name, Slot { kdf })| {
        let needed = kdf.memory.unwrap_or(0);
        if needed > memory {
            let (needed, memory) = (needed / 1024, memory / 1024);
            return Some(format!(
                "its key slot {name} needs {needed} MiB of memory, of which {memory} are there"
            ));
        }
        let passes = kdf.time.unwrap_or(0).saturating_mul(needed) / GIGABYTE_IN_KIB;
        // With little memory, each pass still takes as long as some thousand rounds.
        let rounds = kdf.time.unwrap_or(0).saturating_mul(1024).max(kdf.iterations.unwrap_or(0));
        let hours = passes > PASSES || rounds > ROUNDS;
        hours.then(|| format!("its key slot {name} is made so that one try takes hours"))
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(kdf: &str) -> Option<String> {
        too_much(&format!(r#"{{"keyslots":{{"3":{{"type":"luks2","kdf":{kdf}}}}},"tokens":{{}}}}"#), 1 << 20)
            .unwrap()
    }

    #[test]
    fn what_cryptsetup_makes_is_affordable() {
        for kdf in [
            r#"{"type":"argon2id","time":4,"memory":1048576,"cpus":4,"salt":"x"}"#,
            r#"{"type":"argon2id","time":400,"memory":1048576,"cpus":1,"salt":"x"}"#,
            r#"{"type":"argon2i","time":4,"memory":32,"cpus":4,"salt":"x"}"#,
            r#"{"type":"pbkdf2","hash":"sha256","iterations":12000000,"salt":"x"}"#,
        ] {
            assert_eq!(slot(kdf), None);
        }
        assert_eq!(too_much(r#"{"keyslots":{}}"#, 0).unwrap(), None);
    }

    #[test]
    fn what_takes_all_memory_or_hours_is_told() {
        let told = slot(r#"{"type":"argon2id","time":4,"memory":4194304,"cpus":4}"#).unwrap();
        assert_eq!(told, "its key slot 3 needs 4096 MiB of memory, of which 1024 are there");
        for kdf in [
            r#"{"type":"argon2id","time":4294967295,"memory":32,"cpus":4}"#,
            r#"{"type":"argon2id","time":1024,"memory":1048576,"cpus":4}"#,
            r#"{"type":"pbkdf2","hash":"sha256","iterations":4294967295}"#,
        ] {
            assert!(slot(kdf).unwrap().contains("takes hours"), "{kdf}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(text in "\\PC{0,64}", memory: u64, time: u64) {
            let _ = too_much(&text, memory);
            let kdf = format!(r#"{{"keyslots":{{"0":{{"kdf":{{"memory":{memory},"time":{time}}}}}}}}}"#);
            let _ = too_much(&kdf, time);
        }
    }
}
