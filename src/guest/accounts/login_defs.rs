//! login.defs(5): which user numbers are people, how passwords are hashed, and what new accounts get.

use super::text::{is_space, trim};

/// What matters here of login.defs(5). The defaults are shadow-utils' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginDefs {
    /// `UID_MIN`: the first user number of a person's account; 1000 when not set.
    pub uid_min: u32,
    /// `UID_MAX`: the last one; 60000 when not set.
    pub uid_max: u32,
    /// `GID_MIN`: the first number of a group that belongs to a person; 1000 when not set.
    pub gid_min: u32,
    /// `GID_MAX`: the last one; 60000 when not set.
    pub gid_max: u32,
    /// `ENCRYPT_METHOD`, in upper case, when set.
    pub encrypt_method: Option<String>,
    /// `USERGROUPS_ENAB`: whether a new account gets a group of its own; not when not set.
    pub own_groups: bool,
    /// `HOME_MODE`, or what `UMASK` leaves of 0777: the mode of a new home; 0755 when neither is set.
    pub home_mode: u32,
    /// `PASS_MIN_DAYS`, when set.
    pub pass_min_days: Option<u32>,
    /// `PASS_MAX_DAYS`, when set.
    pub pass_max_days: Option<u32>,
    /// `PASS_WARN_AGE`, when set.
    pub pass_warn_age: Option<u32>,
    /// `SUB_UID_MIN`, `SUB_UID_MAX` and `SUB_UID_COUNT`.
    pub sub_uids: (u64, u64, u64),
    /// `SUB_GID_MIN`, `SUB_GID_MAX` and `SUB_GID_COUNT`.
    pub sub_gids: (u64, u64, u64),
    home_mode_set: bool,
}

impl Default for LoginDefs {
    fn default() -> Self {
        let sub_ids = (100_000, 600_100_000, 65_536);
        Self {
            uid_min: 1000,
            uid_max: 60000,
            gid_min: 1000,
            gid_max: 60000,
            encrypt_method: None,
            own_groups: false,
            home_mode: 0o755,
            pass_min_days: None,
            pass_max_days: None,
            pass_warn_age: None,
            sub_uids: sub_ids,
            sub_gids: sub_ids,
            home_mode_set: false,
        }
    }
}

impl LoginDefs {
    /// Reads /etc/login.defs. A value that makes no sense leaves the default.
    pub fn parse(bytes: &[u8]) -> Self {
        Self::default().overlaid(bytes)
    }

    /// These settings, overridden by those of another file: a distribution may keep the defaults in
    /// /usr/etc/login.defs and the changes in /etc/login.defs. Within a file the last setting of a name counts.
    #[must_use]
    pub fn overlaid(mut self, bytes: &[u8]) -> Self {
        for (name, value) in bytes.split(|&byte| byte == b'\n').filter_map(setting) {
            let (number, wide) = (unsigned(value), unsigned(value).map(u64::from));
            match name {
                b"UID_MIN" => self.uid_min = number.unwrap_or(self.uid_min),
                b"UID_MAX" => self.uid_max = number.unwrap_or(self.uid_max),
                b"GID_MIN" => self.gid_min = number.unwrap_or(self.gid_min),
                b"GID_MAX" => self.gid_max = number.unwrap_or(self.gid_max),
                b"USERGROUPS_ENAB" => self.own_groups = value.eq_ignore_ascii_case(b"yes"),
                b"HOME_MODE" => {
                    self.home_mode = number.map_or(self.home_mode, |mode| mode & 0o7777);
                    self.home_mode_set = true;
                }
                b"UMASK" if !self.home_mode_set => {
                    self.home_mode = number.map_or(self.home_mode, |mask| 0o777 & !mask);
                }
                b"PASS_MIN_DAYS" => self.pass_min_days = number,
                b"PASS_MAX_DAYS" => self.pass_max_days = number,
                b"PASS_WARN_AGE" => self.pass_warn_age = number,
                b"SUB_UID_MIN" => self.sub_uids.0 = wide.unwrap_or(self.sub_uids.0),
                b"SUB_UID_MAX" => self.sub_uids.1 = wide.unwrap_or(self.sub_uids.1),
                b"SUB_UID_COUNT" => self.sub_uids.2 = wide.unwrap_or(self.sub_uids.2),
                b"SUB_GID_MIN" => self.sub_gids.0 = wide.unwrap_or(self.sub_gids.0),
                b"SUB_GID_MAX" => self.sub_gids.1 = wide.unwrap_or(self.sub_gids.1),
                b"SUB_GID_COUNT" => self.sub_gids.2 = wide.unwrap_or(self.sub_gids.2),
                b"ENCRYPT_METHOD" => {
                    self.encrypt_method = Some(String::from_utf8_lossy(value).to_ascii_uppercase());
                }
                _ => {}
            }
        }
        self
    }

    /// Whether an account of this number is a person's.
    pub fn is_regular(&self, uid: u32) -> bool {
        (self.uid_min..=self.uid_max).contains(&uid)
    }
}

/// Name and value of a line; None for blanks, comments and names without a value. Quotes around a value go.
fn setting(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = trim(line);
    let end = line.iter().position(|&byte| is_space(byte))?;
    let value = line[end..].split(|&byte| byte == b'"').map(trim).find(|part| !part.is_empty())?;
    (line[0] != b'#').then_some((&line[..end], value))
}

/// A number as strtoul(3) with base 0 takes it: decimal, octal with a leading 0, or hexadecimal with a leading 0x.
fn unsigned(value: &[u8]) -> Option<u32> {
    let value = std::str::from_utf8(value).ok()?;
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if value.len() > 1 && value.starts_with('0') => (&value[1..], 8),
        None => (value, 10),
    };
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn settings_are_read_as_shadow_utils_reads_them() {
        let text = b"# UID_MIN 1\nUID_MIN\t\t 500\n UID_MAX \"0xffff\" \nENCRYPT_METHOD yescrypt\nUMASK 022\nUID_MIN 01750\n";
        let defs = LoginDefs::parse(text);
        assert_eq!(
            defs,
            LoginDefs {
                uid_min: 1000,
                uid_max: 65535,
                encrypt_method: Some("YESCRYPT".to_owned()),
                ..LoginDefs::default()
            }
        );
        assert!(defs.is_regular(1000) && !defs.is_regular(999) && !defs.is_regular(65536));
    }

    #[test]
    fn what_new_accounts_get() {
        let defs = LoginDefs::parse(
            b"UMASK 077\nUSERGROUPS_ENAB yes\nPASS_MAX_DAYS 99999\nPASS_WARN_AGE -1\nSUB_UID_COUNT 1\n",
        );
        assert_eq!((defs.home_mode, defs.own_groups), (0o700, true));
        assert_eq!((defs.pass_max_days, defs.pass_warn_age, defs.sub_uids.2), (Some(99999), None, 1));
        assert_eq!(LoginDefs::parse(b"HOME_MODE 0710\nUMASK 022\n").home_mode, 0o710);
        assert_eq!(LoginDefs::default().home_mode, 0o755);
    }

    #[test]
    fn nonsense_leaves_the_defaults_and_later_files_override() {
        assert_eq!(
            LoginDefs::parse(b"UID_MIN\nUID_MAX lots\nUID_MIN -5\nUID_MAXIMUM 7\n"),
            LoginDefs::default()
        );
        let defs = LoginDefs::parse(b"UID_MIN 500\nUID_MAX 600\n").overlaid(b"UID_MAX 700\n");
        assert_eq!((defs.uid_min, defs.uid_max), (500, 700));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = LoginDefs::parse(&bytes);
        }

        #[test]
        fn nearly_right_lines_do_no_harm(text in "(UID_M(IN|AX)[ \\t\"#]{0,3}[0-9x\"+-]{0,12}\\n){0,5}") {
            let _ = LoginDefs::parse(text.as_bytes());
        }
    }
}
