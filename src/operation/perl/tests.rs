use proptest::prelude::*;

use super::*;

fn edited(expression: &str, content: &str) -> String {
    let program = Program::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    String::from_utf8(program.run(content.as_bytes()).unwrap()).unwrap()
}

const CASES: &[(&str, &str, &str)] = &[
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

/// Forms that people write in scripts and answers; the lines around them are made up.
const USED: &[(&str, &str, &str)] = &[
    (" s/^ens2/ens3/", "ens2 up\n  ens2\n", "ens3 up\n  ens2\n"),
    (
        "\n    s/^ExecStart=(.*)/ExecStart=$1 -a root/\n",
        "ExecStart=-/sbin/agetty\n",
        "ExecStart=-/sbin/agetty -a root\n",
    ),
    ("s/^disable_root:.*$/disable_root: false/;", "disable_root: 1\nx\n", "disable_root: false\nx\n"),
    (
        "s{^mirrorlist=}{#mirrorlist=}; s{^#baseurl=}{baseurl=}; s{https://}{http://};",
        "mirrorlist=a\n#baseurl=https://b\n",
        "#mirrorlist=a\nbaseurl=http://b\n",
    ),
    ("s{.*metalink=.*}{};", "metalink=x\ny\n", "\ny\n"),
    (
        "s/PasswordAuthentication no/PasswordAuthentication yes/g",
        "PasswordAuthentication no\n",
        "PasswordAuthentication yes\n",
    ),
    ("s/\\#PermitRootLogin.*/PermitRootLogin yes/", "#PermitRootLogin no\n", "PermitRootLogin yes\n"),
    ("s/PermitRootLogin [Nn]o/PermitRootLogin yes/", "PermitRootLogin No\n", "PermitRootLogin yes\n"),
    (
        "s/^\\s*#?\\s*PermitRootLogin\\s+.*$/PermitRootLogin yes/i",
        "  # permitrootlogin no\n",
        "PermitRootLogin yes\n",
    ),
    ("s/(quiet)(.*)$/net.ifnames=0 $1$2/", "a quiet b\n", "a net.ifnames=0 quiet b\n"),
    (
        "s/^GRUB_CMDLINE_LINUX=\"/GRUB_CMDLINE_LINUX=\"net.ifnames=0 /",
        "GRUB_CMDLINE_LINUX=\"x\"\n",
        "GRUB_CMDLINE_LINUX=\"net.ifnames=0 x\"\n",
    ),
    (
        "s/GRUB_CMDLINE_LINUX=\".*\"/GRUB_CMDLINE_LINUX=\"quiet\"/g",
        "GRUB_CMDLINE_LINUX=\"a b\"\n",
        "GRUB_CMDLINE_LINUX=\"quiet\"\n",
    ),
    ("s/GRUB_DEFAULT=0/GRUB_DEFAULT=1>2/", "GRUB_DEFAULT=0\n", "GRUB_DEFAULT=1>2\n"),
    (
        "s/^%wheel\\tALL=\\(ALL\\)\\tALL$/# %wheel\\tALL=\\(ALL\\)\\tALL/",
        "%wheel\tALL=(ALL)\tALL\n",
        "# %wheel\tALL=(ALL)\tALL\n",
    ),
    ("s/^%sudo.*/%sudo\tALL=(ALL) NOPASSWD:ALL/", "%sudo x\n", "%sudo\tALL=(ALL) NOPASSWD:ALL\n"),
    ("$_ = \"\" if /StandardInput=tty/", "a\nStandardInput=tty-force\nb\n", "a\nb\n"),
    ("$_=\"\" if /^HWADDR.*/", "HWADDR=x\nTYPE=y\n", "TYPE=y\n"),
    (
        "s/^(\\[Service\\]\\n)/\\1Environment=TERM=vt100\\n/",
        "[Service]\nX=y\n",
        "[Service]\nEnvironment=TERM=vt100\nX=y\n",
    ),
    ("s/^[Login]/[Login]\\nReserveVT=1\\n/", "Login\n", "[Login]\nReserveVT=1\nogin\n"),
    (
        "s,^#([1-9].*respawn.*/sbin/getty.*),$1,",
        "#1:2345:respawn:/sbin/getty 38400 tty1\n",
        "1:2345:respawn:/sbin/getty 38400 tty1\n",
    ),
    ("s,^#\\s*ja,ja,", "# ja_JP.UTF-8\n", "ja_JP.UTF-8\n"),
    ("s/^.+:x:1[0-9][0-9][0-9]:\\n//", "bob:x:1001:\nroot:x:0:\n", "root:x:0:\n"),
    ("s/\\/dev\\/sda[2-9].*\\n//", "/dev/sda1 /\n/dev/sda2 /x\n", "/dev/sda1 /\n"),
    ("s/^root:.*?:/root::/", "root:secret:0:x\n", "root::0:x\n"),
    ("s/^::1[ \\t]*localhost /::1 localhost6 /", "::1 \tlocalhost x\n", "::1 localhost6 x\n"),
    ("s/HWADDR=.*$//", "HWADDR=a\n", "\n"),
    ("s#IPADDR=.*#IPADDR=\"10.0.0.1\"#", "IPADDR=x\n", "IPADDR=\"10.0.0.1\"\n"),
    (
        "s/preserve_hostname: *false/preserve_hostname: true/",
        "preserve_hostname:   false\n",
        "preserve_hostname: true\n",
    ),
    ("s/^/#/", "a\nb\n", "#a\n#b\n"),
    (
        "s/terminal_output console/serial\\nterminal_input serial/; s/rhgb quiet/console=ttyS0/",
        "terminal_output console\nrhgb quiet\n",
        "serial\nterminal_input serial\nconsole=ttyS0\n",
    ),
    ("s!^(SELINUX=).*!${1}disabled!", "SELINUX=enforcing\n", "SELINUX=disabled\n"),
    (
        "s/\\b(\\d+)\\.pool\\.ntp\\.org\\b/$1.de.pool.ntp.org/ unless m/^#/",
        "server 0.pool.ntp.org\n#1.pool.ntp.org\n",
        "server 0.de.pool.ntp.org\n#1.pool.ntp.org\n",
    ),
];

/// Verbs, conditions and texts besides.
const FURTHER: &[(&str, &str, &str)] = &[
    ("tr/a-z/A-Z/", "Ab-9\n", "AB-9\n"),
    ("y/abc/x/", "aabcd\n", "xxxxd\n"),
    ("tr/\\r//d", "a\r\n", "a\n"),
    ("tr/a-y/b-z/ if /^b/", "bay\nabc\n", "cbz\nabc\n"),
    ("tr/ //s", "a   b  c\n", "a b c\n"),
    ("tr/a-zA-Z\\n//cd", "a-1B\n", "aB\n"),
    ("tr/a-z/*/cs", "a12b\n", "a*b*"),
    ("tr{/}[\\\\]", "a/b\n", "a\\b\n"),
    ("next if /^#/; s/a/b/", "#a\na\n", "b\n"),
    ("last if /^end/", "a\nend\nb\n", "a\n"),
    ("last unless $lineno < 3", "a\nb\nc\nd\n", "a\nb\n"),
    ("print \"new\\n\" if /^b/", "a\nb\n", "a\nnew\nb\n"),
    ("print if /a/", "a\nb\n", "a\na\nb\n"),
    ("print 'x'", "a\n", "xa\n"),
    ("undef $_ if /x/", "x\ny\n", "y\n"),
    ("$_ = undef if /x/", "x\ny\n", "y\n"),
    ("$_ = '' if m|^/dev/sdb|", "/dev/sdb x\n/dev/sda y\n", "/dev/sda y\n"),
    ("$_ .= \"after\\n\" if /^b$/", "a\nb\n", "a\nb\nafter\n"),
    ("$_ = \"before\\n$_\" if /^b$/", "a\nb\n", "a\nbefore\nb\n"),
    ("$_ = \"# \" . $_ unless /^#/", "a\n#b\n", "# a\n#b\n"),
    ("$_ = \"$1=new\\n\" if /^(\\w+)=/", "key=old\nx\n", "key=new\nx\n"),
    ("$_ = \"$2 $1\\n\" if /(a)|(b)/", "a\nb\nc\n", " a\nb \nc\n"),
    ("s/^/$lineno: /", "a\nb\n", "1: a\n2: b\n"),
    ("s/^/$.\\t/", "a\nb\n", "1\ta\n2\tb\n"),
    ("s/x/y/ if $lineno == 2", "x\nx\n", "x\ny\n"),
    ("s/x/y/ if $. >= 2 && /x/", "x\nx\n", "x\ny\n"),
    ("s/x/y/ if /a/ && !/b/", "ax\nabx\n", "ay\nabx\n"),
    ("s/x/y/ if /a/ || /b/ and /c/", "acx\nax\nbcx\n", "acy\nax\nbcy\n"),
    ("s/x/y/ if $_ =~ /a/ or $_ !~ /x$/", "ax\nxb\nxx\n", "ay\nyb\nxx\n"),
    ("s/x/y/ if (/a/ && (/b/ || /c/))", "abx\nadx\n", "aby\nadx\n"),
    ("if (/^a/) { s/a/b/; s/$/!/ } else { s/^/-/; }", "a\nx\n", "b!\n-x\n"),
    (
        "if (/a/) { $_ = \"1\\n\" } elsif (/b/) { $_ = \"2\\n\" } else { next } print \"-\"",
        "a\nb\nc\n",
        "-1\n-2\n",
    ),
    ("unless (/^#/) { s/^/#/ }", "a\n#b\n", "#a\n#b\n"),
    ("if (/(a)/) { s/(b)/x/ } $_ = \"$1$_\" if /(c)|d/", "abd\ncd\n", "axd\nccd\n"),
    ("s/(\\w+)/\\U$1/", "abc def\n", "ABC def\n"),
    ("s/(\\w+) (\\w+)/\\u$1 \\L$2\\E!/", "abc DEF\n", "Abc def!\n"),
    ("s/(\\w+)/\\u\\L$1/g", "ABC dEF\n", "Abc Def\n"),
    ("s/(\\w)(\\w*)/\\l$1$2/", "ABC\n", "aBC\n"),
    ("s/a*/x/g", "baac\n", "xbxxcx\nx"),
    ("s/\\s*$/;/g", "a  \n", "a;;"),
    ("s/^\\s+|\\s+$//g", "  a b  \n", "a b"),
    ("s/a.b/x/s", "a\n", "a\n"),
    ("s/x/$_/", "ax\n", "aax\n\n"),
    (";; s/a/b/ ;", "a\n", "b\n"),
];

#[test]
fn the_forms_that_people_use_do_what_perl_does() {
    for (expression, content, expected) in [CASES, USED, FURTHER].concat() {
        assert_eq!(edited(expression, content), expected, "{expression}");
    }
}

/// What virt-edit has perl do.
const LOOP: &str = "binmode STDIN; binmode STDOUT; $lineno = 0;
    while (<STDIN>) { $lineno++; eval $ENV{EXPRESSION}; die $@ if $@; print STDOUT $_ }";

/// What perl makes of a content; none where the host has no perl, an error where perl finds one.
#[expect(clippy::disallowed_methods, reason = "the system's perl is what this is held against")]
fn by_perl(expression: &str, content: &[u8]) -> Option<Result<Vec<u8>, String>> {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    let mut perl = std::process::Command::new("perl");
    perl.args(["-e", LOOP]).env("EXPRESSION", expression).stdin(file);
    let Ok(ran) = perl.output() else {
        eprintln!("SKIPPED: no perl to be held against");
        return None;
    };
    let error = String::from_utf8_lossy(&ran.stderr).into_owned();
    Some(if ran.status.success() { Ok(ran.stdout) } else { Err(error) })
}

/// Where the host has perl, it has the last word.
#[test]
fn perl_itself_does_the_same() {
    for (expression, content, expected) in [CASES, USED, FURTHER].concat() {
        let Some(perl) = by_perl(expression, content.as_bytes()) else { return };
        let perl = perl.unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(String::from_utf8_lossy(&perl), expected, "{expression}");
    }
}

#[test]
fn what_cannot_be_done_the_same_is_refused_by_name() {
    for (expression, name) in [
        ("", "empty"),
        ("s/a/b", "`/`"),
        ("s/a/b/e", "flag `e`"),
        ("s/a(?=b)/c/", "(?="),
        ("s/(?<!a)b/c/", "(?<!"),
        (r"s/(a)\1/c/", r"\1"),
        (r"s/\Qa\E/c/", r"\Q"),
        (r"s/a/\Ub\uc/", r"\U"),
        (r"s/a/\ub\E/", r"\U"),
        ("s/$x/c/", "variable"),
        ("s/a@b/c/", "variable"),
        ("s/a/b@c/", "variable"),
        ("s/a/$ENV{X}/", "group"),
        ("s/a/$1/", "no group 1"),
        ("s/a*+/b/", "possessive"),
        ("s//b/", "empty pattern"),
        ("s'a'b'", "delimiter"),
        ("tr/a-z/A-Z/r", "flag `r`"),
        ("tr/z-a/b/", "backwards"),
        ("print STDERR 1", "double quotes"),
        ("next LINE if /x/", "`;` is missing"),
        ("/x/ and s/a/b/", "`/x/ and"),
        ("s/x/y/ if 1 .. 3", "no condition"),
        ("s/x/y/ if /a/ .. /b/", "`;` is missing"),
        ("s/x/y/ if $lineno == 010", "number"),
        ("s/(|a)/x/g", "by choice"),
        ("s/a*?/x/g", "by choice"),
        ("$_ .= \"x\\n\"; s/$/y/", "line end"),
        ("if (/x/) s/a/b/", "`{`"),
        ("if (/x/) { s/a/b/", "`}`"),
        ("s/a/b/ }", "not begun"),
        ("$_ = \"a\" . foo()", "double quotes"),
        ("$_ = \"$x[1]\"", "group"),
        ("chomp; s/$/x/", "`chomp`"),
        ("my $m = $_", "`my`"),
        ("$lineno++", "translated"),
        ("s/a/b/ s/c/d/", "`;` is missing"),
        ("s/(a/b/", "unclosed group"),
        ("s/[a/b/", "`]`"),
        ("$_ = $x", "group"),
        ("s/a/b/ if $x", "only a pattern"),
    ] {
        let error = Program::parse(expression).expect_err(expression);
        assert!(error.contains(name), "{expression}: {error}");
    }
}

#[test]
fn what_grows_without_end_is_stopped() {
    let program = Program::parse(&"$_ .= $_;".repeat(40)).unwrap();
    assert!(program.run(b"x").unwrap_err().contains("bytes"));
    let program = Program::parse(&"s/./$_/g;".repeat(9)).unwrap();
    assert!(program.run(b"abcd").is_err());
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

    /// What is translated does what perl does; what perl itself refuses does not count.
    #[test]
    fn translated_programs_do_what_perl_does(
        pattern in "[ab^$.*+?|]{1,4}|\\(a\\)[b*+?]{0,2}|\\[ab\\]\\+",
        text in "[ab&]{0,2}(\\$&|\\$1|\\$_|\\\\[ULEul]|\\\\n|\\$lineno)?[a ]{0,2}",
        flags in "g?i?s?",
        before in "|tr/a-b/b-c/; |next if /aa/; |\\$_ \\.= \"a\\\\n\" if /b/; |print \"\\$_\" unless /a/; ",
        when in "| if /b/| unless \\$lineno == 2| if /a/ && !/b\\$/| if \\$\\. > 1 or /\\^a/",
        content in "([abAB ]{0,4}\n){0,3}[ab]{0,2}",
    ) {
        let expression = format!("{before}s/{pattern}/{text}/{flags}{when}");
        if let Ok(program) = Program::parse(&expression) {
            let Some(perl) = by_perl(&expression, content.as_bytes()) else { return Ok(()) };
            if let Ok(perl) = perl {
                let ours = program.run(content.as_bytes()).unwrap();
                prop_assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&perl), "{} of {:?}", expression, content);
            }
        }
    }
}
