//! Names that are alike, for whoever mistyped one.

#![forbid(unsafe_code)]

/// Least likeness, from 0 to 1, at which a known name is worth being suggested.
const ALIKE: f64 = 0.75;

/// The known name that is most like a mistyped one.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated =
        known.map(|name| (strsim::jaro_winkler(typed, name), name)).filter(|(alike, _)| *alike >= ALIKE);
    rated.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}
