use proptest::prelude::*;

use super::*;

fn edited(expression: &str, content: &str) -> String {
    let program = Program::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    String::from_utf8(program.run(content.as_bytes())).unwrap()
}

const CASES: [(&str, &str, &str); 36] = [
    ("s/^OPT=.*/OPT=ok/", "OPT=a\nX OPT=b\n", "OPT=ok\nX OPT=b\n"),
    ("s/a/b/", "aa\naa\n", "ba\nba\n"),
    ("s/a/b/g", "aa\naa\n", "bb\nbb\n"),
    ("s/A/b/gi", "aA\n", "bb\n"),
    ("s,/usr/lib,/lib,", "/usr/lib/x\n", "/lib/x\n"),
    ("s|/usr/lib|/lib|;", "/usr/lib/x\n", "/lib/x\n"),
    ("s{/usr}{/opt}g", "/usr/usr\n", "/opt/opt\n"),
    ("s(a) [b]", "ca\n", "cb\n"),
    (r"s/\/usr\//\/opt\//", "/usr/x\n", "/opt/x\n"),
    ("s/(a)(b)/$2$1/", "ab\n", "ba\n"),
    (r"s/(a)(b)/\2${1}0/", "ab\n", "ba0\n"),
    ("s/b+/<$&>/", "abbc\n", "a<bb>c\n"),
    ("s/a/&/", "a\n", "&\n"),
    ("s/$/ end/", "a\nb", "a end\nb end"),
    ("s/^/#/g", "a\nb\n", "#a\n#b\n"),
    ("s/a$/b/", "aa\n", "ab\n"),
    (r"s/\s+$//", "a  \nb\n", "ab"),
    (r"s/ +$//", "a  \nb\n", "a\nb\n"),
    (r"s/\n//", "a\nb\n", "ab"),
    (r"s/a/x\ty\n/", "a\n", "x\ty\n\n"),
    (r"s/\$x/\$y \@z/", "$x\n", "$y @z\n"),
    (r"s/a\.b/c/", "a.b axb\n", "c axb\n"),
    (r"s/[]a]/x/g", "]ab\n", "xxb\n"),
    (r"s/[^[:alpha:]]+/-/g", "a12b\n", "a-b-"),
    (r"s/[[&~-]/x/g", "[&~-\n", "xxxx\n"),
    (r"s/\<b\>/c/", "<b>\n", "c\n"),
    (r"s/\bb\b/c/", "abc b\n", "abc c\n"),
    (r"s/(?:a|b)/c/", "b\n", "c\n"),
    (r"s/a b/c/x", "ab\n", "c\n"),
    ("s/a/b/; s/b/c/", "a\n", "c\n"),
    ("s/x/y/ if /^#/", "#x\nx\n", "#y\nx\n"),
    ("s/x/y/ unless (/^#/)", "#x\nx\n", "#x\ny\n"),
    ("$_ = \"\" if /^root/", "root:x\nbob:x\n", "bob:x\n"),
    ("$_ .= \"more\\n\" if m{^a}i", "A\nb\n", "A\nmore\nb\n"),
    ("$_ = \"# $_\" if /x/", "x\ny\n", "# x\ny\n"),
    ("s/GRUB_TIMEOUT=\\d+/GRUB_TIMEOUT=0/", "GRUB_TIMEOUT=5\n", "GRUB_TIMEOUT=0\n"),
];

#[test]
fn the_forms_that_people_use_do_what_perl_does() {
    for (expression, content, expected) in CASES {
        assert_eq!(edited(expression, content), expected, "{expression}");
    }
}

/// Where the host has perl, it has the last word.
#[test]
#[expect(clippy::disallowed_methods, reason = "the system's perl is what this is held against")]
fn perl_itself_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (expression, content, expected) in CASES {
        std::fs::write(&file, content).unwrap();
        let Ok(perl) = std::process::Command::new("perl").args(["-pe", expression]).arg(&file).output()
        else {
            eprintln!("SKIPPED: perl_itself_does_the_same: no perl");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&perl.stdout), expected, "{expression}");
    }
}

#[test]
fn what_cannot_be_done_the_same_is_refused_by_name() {
    for (expression, name) in [
        ("", "empty"),
        ("s/a/b", "`/`"),
        ("s/a/b/e", "flag `e`"),
        ("s/a/b/s", "flag `s`"),
        ("s/a(?=b)/c/", "(?="),
        ("s/(?<!a)b/c/", "(?<!"),
        (r"s/(a)\1/c/", r"\1"),
        (r"s/\Qa\E/c/", r"\Q"),
        (r"s/a/\Ub/", r"\U"),
        ("s/$x/c/", "variable"),
        ("s/a@b/c/", "variable"),
        ("s/a/b@c/", "variable"),
        ("s/a/$ENV{X}/", "group"),
        ("s/a/$1/", "no group 1"),
        ("s/a*+/b/", "possessive"),
        ("s//b/", "empty pattern"),
        ("s'a'b'", "delimiter"),
        ("tr/a-z/A-Z/", "`tr`"),
        ("print if /x/", "`print`"),
        ("$lineno++", "translated"),
        ("s/a/b/ s/c/d/", "`;` is missing"),
        ("s/(a/b/", "unclosed group"),
        ("s/[a/b/", "`]`"),
        ("$_ = $x", "double quotes"),
        ("s/a/b/ if $x", "only a pattern"),
    ] {
        let error = Program::parse(expression).expect_err(expression);
        assert!(error.contains(name), "{expression}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,40}", inner in "[a-z$@\\\\(){}\\[\\]*+?^.|/&;\" ]{0,24}") {
        for text in [text, format!("s/{inner}/x/g"), format!("s/x/{inner}/"), format!("$_ = \"{inner}\" if /x/")] {
            if let Ok(program) = Program::parse(&text) {
                let _ = program.run(b"a line\nx [b] $1 \xff\n\nend");
            }
        }
    }
}
