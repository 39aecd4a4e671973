//! os-release(5).

use guestseal::inspect::os_release::OsRelease;

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let os = OsRelease::parse(&text);
    let fields = || [&os.id, &os.version_id, &os.pretty_name].into_iter().chain(&os.id_like);
    assert!(fields().all(|field| !field.contains(char::is_control)), "{os:?}");
    assert!(fields().map(String::len).sum::<usize>() <= 2 * text.len() + 16);
    assert!(!os.id.is_empty() && os.is_like(&os.id));
    let quoted = |value: &str| {
        let escape = |letter: char| matches!(letter, '"' | '\\' | '$' | '`').then_some('\\');
        value.chars().flat_map(|letter| escape(letter).into_iter().chain([letter])).collect::<String>()
    };
    let printed = format!(
        "ID=\"{}\"\nID_LIKE=\"{}\"\nVERSION_ID=\"{}\"\nPRETTY_NAME=\"{}\"\n",
        quoted(&os.id),
        quoted(&os.id_like.join(" ")),
        quoted(&os.version_id),
        quoted(&os.pretty_name)
    );
    assert_eq!(OsRelease::parse(&printed), os, "{printed}");
}
