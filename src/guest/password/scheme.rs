//! Which hash a guest's own tools would use: yescrypt where its libcrypt knows it, else sha512crypt. Never md5.

use super::hash::Scheme;
use crate::guest::accounts::{LoginDefs, PasswordKind, Shadow};

/// What a guest shows about its way of hashing passwords. Leave out what cannot be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct CryptClues<'a> {
    /// Whether the guest's libcrypt.so.1 or .so.2 knows yescrypt; see [`libcrypt_knows_yescrypt`]. None when none is
    /// found.
    pub libcrypt: Option<bool>,
    /// The files that set passwords through PAM, one after the other: /etc/pam.d/common-password (Debian, SUSE),
    /// /etc/pam.d/system-auth and password-auth (Fedora, RHEL, Arch).
    pub pam: Option<&'a str>,
    /// /etc/login.defs.
    pub login_defs: Option<&'a LoginDefs>,
    /// /etc/shadow.
    pub shadow: Option<&'a Shadow>,
    /// os-release `ID`.
    pub id: &'a str,
    /// os-release `ID_LIKE`, split at blanks.
    pub id_like: &'a [String],
    /// os-release `VERSION_ID`.
    pub version_id: &'a str,
}

impl CryptClues<'_> {
    fn is_or_is_like(&self, id: &str) -> bool {
        self.id == id || self.id_like.iter().any(|like| like == id)
    }
}

impl Scheme {
    /// The scheme for a guest. A libcrypt without yescrypt decides alone; then what pam_unix is told, since a guest in
    /// FIPS mode says sha512 there for a reason; then `ENCRYPT_METHOD YESCRYPT`; then a yescrypt hash in shadow(5);
    /// then the distribution. `ENCRYPT_METHOD SHA512` says nothing: Debian 12 has it beside a PAM that uses yescrypt.
    pub fn for_guest(clues: &CryptClues<'_>) -> Self {
        // musl's crypt(3) knows no yescrypt, whatever a login.defs made for another libc says.
        let musl = clues.libcrypt.is_none() && clues.is_or_is_like("alpine");
        if clues.libcrypt == Some(false) || musl {
            return Self::Sha512Crypt;
        }
        if let Some(scheme) = clues.pam.and_then(told_to_pam) {
            return scheme;
        }
        let by_login_defs =
            clues.login_defs.and_then(|defs| defs.encrypt_method.as_deref()) == Some("YESCRYPT");
        let by_shadow = || {
            clues.shadow.is_some_and(|shadow| {
                shadow.entries().any(|entry| {
                    let field = entry.expose_field();
                    let unlocked =
                        field.iter().position(|&byte| byte != b'!').map_or(&[][..], |start| &field[start..]);
                    PasswordKind::of(unlocked) == PasswordKind::Yescrypt
                })
            })
        };
        if by_login_defs || by_shadow() || by_distribution(clues) {
            Self::Yescrypt
        } else {
            Self::Sha512Crypt
        }
    }
}

/// The method that the last `password` line of pam_unix names. See pam_unix(8).
fn told_to_pam(text: &str) -> Option<Scheme> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let setting = lines.filter(|line| {
        let kind = line.split_ascii_whitespace().next().unwrap_or_default();
        kind.trim_start_matches('-') == "password" && line.contains("pam_unix")
    });
    let mut methods = setting.flat_map(str::split_ascii_whitespace).filter_map(|word| match word {
        "yescrypt" | "gost_yescrypt" => Some(Scheme::Yescrypt),
        "sha512" | "sha256" | "md5" | "blowfish" | "bigcrypt" => Some(Scheme::Sha512Crypt),
        _ => None,
    });
    methods.next_back()
}

/// Since which release a distribution's libcrypt knows yescrypt. SUSE's 15 began with one that does not, so there it
/// takes a libcrypt that is known to.
fn by_distribution(clues: &CryptClues<'_>) -> bool {
    let major: Option<u32> =
        clues.version_id.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok());
    let since = |release: u32| major.is_some_and(|major| major >= release);
    let one = |id: &str| match id {
        // Testing and unstable have no version.
        "debian" => Some(clues.version_id.is_empty() || since(11)),
        "ubuntu" => Some(since(20)),
        "fedora" => Some(since(30)),
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "scientific" | "virtuozzo" | "eurolinux"
        | "miraclelinux" => Some(since(9)),
        "opensuse-leap" | "sles" | "sled" | "sle-micro" | "suse" => {
            Some(since(16) || since(15) && clues.libcrypt == Some(true))
        }
        "opensuse-tumbleweed" | "opensuse-microos" | "arch" | "kali" => Some(true),
        _ => None,
    };
    // A relative's version number is its own, so only its rolling kin can be taken over.
    let kin = || clues.is_or_is_like("arch") || clues.is_or_is_like("opensuse-tumbleweed");
    one(clues.id).unwrap_or_else(kin)
}

/// Whether the bytes of a libcrypt (libcrypt.so.1 or .so.2) name yescrypt's prefix: libxcrypt from 4.3 on does, glibc's
/// and musl's do not.
pub fn libcrypt_knows_yescrypt(library: &[u8]) -> bool {
    library.windows(4).any(|window| window == b"$y$\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(id: &str, version_id: &str) -> Scheme {
        Scheme::for_guest(&CryptClues { id, version_id, ..CryptClues::default() })
    }

    #[test]
    fn by_distribution_alone() {
        for (id, version) in [
            ("debian", "12"),
            ("debian", "11"),
            ("debian", ""),
            ("ubuntu", "22.04"),
            ("fedora", "30"),
            ("rhel", "9.4"),
            ("rocky", "9"),
            ("almalinux", "10.0"),
            ("opensuse-leap", "16.0"),
            ("opensuse-tumbleweed", "20260101"),
            ("arch", ""),
            ("kali", "2026.1"),
        ] {
            assert_eq!(distribution(id, version), Scheme::Yescrypt, "{id} {version}");
        }
        for (id, version) in [
            ("debian", "10"),
            ("ubuntu", "18.04"),
            ("ubuntu", ""),
            ("fedora", "29"),
            ("rhel", "8.10"),
            ("centos", "7"),
            ("sles", "15.0"),
            ("alpine", "3.22"),
            ("void", ""),
            ("", ""),
            ("debian", "junk"),
        ] {
            assert_eq!(distribution(id, version), Scheme::Sha512Crypt, "{id} {version}");
        }
        let like = ["arch".to_owned()];
        assert_eq!(
            Scheme::for_guest(&CryptClues { id: "manjaro", id_like: &like, ..CryptClues::default() }),
            Scheme::Yescrypt
        );
    }

    #[test]
    fn the_guest_itself_knows_better() {
        let twelve = CryptClues { id: "debian", version_id: "12", ..CryptClues::default() };
        let without = CryptClues { libcrypt: Some(false), ..twelve };
        assert_eq!(Scheme::for_guest(&without), Scheme::Sha512Crypt);
        let sha512 = "auth required pam_unix.so\npassword sufficient pam_unix.so sha512 shadow # yescrypt\n";
        assert_eq!(Scheme::for_guest(&CryptClues { pam: Some(sha512), ..twelve }), Scheme::Sha512Crypt);
        assert_eq!(
            Scheme::for_guest(&CryptClues { pam: Some("account required pam_unix.so sha512"), ..twelve }),
            Scheme::Yescrypt
        );

        let yescrypt = "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n";
        let unknown = CryptClues { id: "thing", ..CryptClues::default() };
        assert_eq!(Scheme::for_guest(&CryptClues { pam: Some(yescrypt), ..unknown }), Scheme::Yescrypt);
        let defs = LoginDefs::parse(b"ENCRYPT_METHOD yescrypt\n");
        assert_eq!(Scheme::for_guest(&CryptClues { login_defs: Some(&defs), ..unknown }), Scheme::Yescrypt);
        let sha = LoginDefs::parse(b"ENCRYPT_METHOD SHA512\n");
        assert_eq!(Scheme::for_guest(&CryptClues { login_defs: Some(&sha), ..twelve }), Scheme::Yescrypt);
        let shadow = Shadow::parse(b"bob:!$y$j9T$x$y:1:0:9:7:::\n");
        assert_eq!(Scheme::for_guest(&CryptClues { shadow: Some(&shadow), ..unknown }), Scheme::Yescrypt);
        let md5 = Shadow::parse(b"bob:$1$x$y:1:0:9:7:::\n");
        assert_eq!(Scheme::for_guest(&CryptClues { shadow: Some(&md5), ..unknown }), Scheme::Sha512Crypt);
        let alpine = CryptClues { id: "alpine", login_defs: Some(&defs), ..CryptClues::default() };
        assert_eq!(Scheme::for_guest(&alpine), Scheme::Sha512Crypt);
        let sles =
            CryptClues { id: "sles", version_id: "15.6", libcrypt: Some(true), ..CryptClues::default() };
        assert_eq!(Scheme::for_guest(&sles), Scheme::Yescrypt);
    }

    #[test]
    fn a_libcrypt_is_known_by_its_prefixes() {
        assert!(libcrypt_knows_yescrypt(b"\0$2b$\0$gy$\0$y$\0$7$\0"));
        assert!(!libcrypt_knows_yescrypt(b"\0$1$\0$5$\0$6$\0$gy$\0"));
        assert!(!libcrypt_knows_yescrypt(b""));
    }
}
