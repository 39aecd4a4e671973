//! Hashing and verifying in the two methods of crypt(5) that current guests use.

use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use yescrypt::{CustomizedPasswordHasher as _, Mode, PasswordHasher as _, Yescrypt};

use super::change::fill;
use crate::error::{Context, Error, Result};
use crate::guest::secret::{Secret, wipe_stack};

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `$5$`: only when it is asked for.
    Sha256Crypt,
    /// `$6$`: every libcrypt of the last decade knows it.
    Sha512Crypt,
    /// `$y$`: libxcrypt 4.3 and newer.
    Yescrypt,
}

/// 12 bytes are 16 letters of salt, all that `$6$` takes: crypt(3) cuts a longer one and then refuses the login.
const SHA512_SALT: usize = 12;

/// 128 bits, as crypt_gensalt(3) makes them.
const YESCRYPT_SALT: usize = 16;

/// The cost of libxcrypt's default, `$y$j9T$`: N = 4096 and r = 32, which takes 16 MiB.
const YESCRYPT_N: u64 = 4096;
const YESCRYPT_R: u32 = 32;

/// The most that [`verify`] spends on a hash of the guest: 128 * N * r bytes are 64 MiB.
const YESCRYPT_MOST: u64 = 1 << 19;

/// The most rounds that [`verify`] spends on a hash of the guest; the default is 5000.
const SHA512_MOST: u32 = 1_000_000;

impl Scheme {
    /// The scheme of this name, as `--password-crypto` has them.
    ///
    /// # Errors
    /// A usage error for others, md5 among them.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "sha256" => Ok(Self::Sha256Crypt),
            "sha512" => Ok(Self::Sha512Crypt),
            "yescrypt" => Ok(Self::Yescrypt),
            "md5" => Err(Error::unsupported("passwords are not hashed with md5, which is broken")
                .hint("every guest with glibc 2.7 (2007) or newer takes sha512")),
            _ => Err(Error::usage(format!("{name:?} is no way to hash passwords"))
                .hint("there are sha256, sha512 and yescrypt, as in --password-crypto sha512")),
        }
    }

    /// The hash of a password with a fresh salt, as it stands in shadow(5).
    ///
    /// # Errors
    /// When the system gives no entropy, or there is no memory for the hash.
    pub fn hash(self, password: &Secret) -> Result<Secret> {
        let password = password.expose().as_bytes();
        let text = self.crypt(password);
        wipe_stack();
        text.map(Secret::new)
    }

    #[inline(never)]
    fn crypt(self, password: &[u8]) -> Result<String> {
        let failed = || "cannot hash the password";
        Ok(match self {
            Self::Sha256Crypt => {
                let mut salt = [0; SHA512_SALT];
                fill(&mut salt)?;
                ShaCrypt::SHA256.hash_password_with_salt(password, &salt).context(failed)?.to_string()
            }
            Self::Sha512Crypt => {
                let mut salt = [0; SHA512_SALT];
                fill(&mut salt)?;
                ShaCrypt::SHA512.hash_password_with_salt(password, &salt).context(failed)?.to_string()
            }
            Self::Yescrypt => {
                let mut salt = [0; YESCRYPT_SALT];
                fill(&mut salt)?;
                let cost = yescrypt::Params::new(Mode::Rw, YESCRYPT_N, YESCRYPT_R, 1).context(failed)?;
                Yescrypt::default()
                    .hash_password_with_params(password, &salt, cost)
                    .context(failed)?
                    .to_string()
            }
        })
    }
}

/// Whether a password field of shadow(5) accepts this password. Only `$6$` and `$y$` are known; a hash of another
/// method, or one so costly that a hostile guest could stop the program with it, counts as not accepting.
pub fn verify(password: &Secret, field: &[u8]) -> bool {
    let accepts = accepts(password, field);
    wipe_stack();
    accepts
}

#[inline(never)]
fn accepts(password: &Secret, field: &[u8]) -> bool {
    let Ok(field) = std::str::from_utf8(field) else { return false };
    let password = password.expose().as_bytes();
    let parts: Vec<&str> = field.split('$').collect();
    match parts[..] {
        ["", "6", rounds, _salt, _hash] => {
            let bearable = rounds
                .strip_prefix("rounds=")
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: u32| n <= SHA512_MOST);
            bearable && ShaCrypt::SHA512.verify_password(password, field).is_ok()
        }
        ["", "6", _salt, _hash] => ShaCrypt::SHA512.verify_password(password, field).is_ok(),
        ["", "y", cost, _salt, _hash] => {
            is_bearable(cost) && Yescrypt::default().verify_password(password, field).is_ok()
        }
        _ => false,
    }
}

/// Whether these are yescrypt parameters of the form that crypt_gensalt(3) makes, with memory within bounds.
fn is_bearable(cost: &str) -> bool {
    let Ok(cost) = cost.parse::<yescrypt::Params>() else { return false };
    let product = cost.n().checked_mul(u64::from(cost.r()));
    let plain = yescrypt::Params::new(Mode::Rw, cost.n(), cost.r(), 1);
    product.is_some_and(|product| product <= YESCRYPT_MOST) && plain == Ok(cost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by crypt(3) of libxcrypt 4.4.33.
    const OF_A: [&str; 2] = [
        "$6$rounds=5000$abcdefgh$GjMgmmowSihU3X8xhdMxaCaEziO5NUh/IZqYnnZhN1j7.JYnm2e5BnPfWNUdj17OlEroBdrPtMnfsmwWCrkw70",
        "$y$j9T$abcdefgh$7i/136rkrCoteXCYVMmke8IbBDFEZdMzaNTpkj.7sJ2",
    ];

    #[test]
    fn hashes_of_libcrypt_are_verified() {
        for hash in OF_A {
            assert!(verify(&Secret::new("a"), hash.as_bytes()), "{hash}");
            assert!(!verify(&Secret::new("b"), hash.as_bytes()), "{hash}");
            assert!(!verify(&Secret::new("a"), &hash.as_bytes()[..hash.len() - 1]), "{hash}");
        }
        let without_rounds = OF_A[0].replace("rounds=5000$", "");
        assert!(verify(&Secret::new("a"), without_rounds.as_bytes()));
    }

    #[test]
    fn hashes_have_the_form_of_crypt_gensalt_and_a_fresh_salt() {
        let password = Secret::new("päss wörd");
        for (scheme, prefix, salt) in
            [(Scheme::Sha512Crypt, "$6$rounds=5000$", 16), (Scheme::Yescrypt, "$y$j9T$", 22)]
        {
            let (one, two) = (scheme.hash(&password).unwrap(), scheme.hash(&password).unwrap());
            assert_ne!(one.expose(), two.expose());
            let rest = one.expose().strip_prefix(prefix).unwrap();
            assert_eq!(rest.split('$').next().unwrap().len(), salt);
            assert!(verify(&password, one.expose().as_bytes()));
            assert!(!verify(&Secret::new("other"), one.expose().as_bytes()));
        }
    }

    #[test]
    fn hostile_costs_are_refused_without_trying() {
        let start = std::time::Instant::now();
        let rounds = OF_A[0].replace("=5000", "=999999999");
        let memory = OF_A[1].replace("$j9T$", "$jQT$");
        let time = OF_A[1].replace("$j9T$", "$j9T/yzzzz$");
        for field in [
            rounds.as_str(),
            memory.as_str(),
            time.as_str(),
            "$6$rounds=4294967296$a$x",
            "$y$jzT$abcdefgh$7i/136rkrCoteXCYVMmke8IbBDFEZdMzaNTpkj.7sJ2",
            "$y$jQzzzzzz$abcdefgh$x",
            "$y$j9T./zzzzzz$abcdefgh$x",
            "$y$j953/2$abcdefgh$x",
            "$y$$$",
            "$6$$",
            "$y$.9T$abcdefgh$x",
        ] {
            assert!(!verify(&Secret::new("a"), field.as_bytes()), "{field}");
        }
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn any_field_does_no_harm(field: Vec<u8>, tail in "[./0-9A-Za-z$=]{0,30}") {
            prop_assert!(!verify(&Secret::new("a"), &field));
            for method in ["$6$", "$y$", "$6$rounds=1", "$y$j"] {
                let field = format!("{method}{tail}");
                prop_assert!(!verify(&Secret::new("a"), field.as_bytes()));
            }
        }
    }
}
