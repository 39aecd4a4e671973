use super::*;
use std::net::TcpListener;
use std::time::Instant;

fn shell(script: &str) -> Spawn {
    Spawn::new("/bin/sh").args(["-c", script])
}

fn printed(spawn: Spawn) -> String {
    let (exit, bytes) = spawn.output(1 << 16).unwrap();
    exit.success().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_environment_is_clean() {
    let text = printed(Spawn::new("/usr/bin/env").env("EXTRA", "1"));
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["EXTRA", "LC_ALL", "PATH"]);
}

#[test]
fn a_bad_exit_carries_status_and_stderr() {
    let (exit, _) = shell("echo no such thing >&2; exit 3").output(10).unwrap();
    let error = exit.success().unwrap_err();
    assert_eq!(error.chain(), "/bin/sh ended with exit status: 3: no such thing");
}

#[test]
fn how_a_child_ended_is_told_before_it_is_reaped_and_again() {
    let limit = Duration::from_secs(10);
    for (script, told) in
        [("echo why >&2; exit 3", "exit status: 3: why"), ("kill -KILL $$", "signal: 9 (SIGKILL)")]
    {
        let child = shell(script).spawn().unwrap();
        let first = child.exit_within(limit).unwrap().unwrap().success().unwrap_err();
        assert_eq!(first.chain(), format!("/bin/sh ended with {told}"));
        assert_eq!(child.wait().unwrap().success().unwrap_err().chain(), first.chain());
    }
    let child = shell("exec sleep 60").spawn().unwrap();
    assert!(child.exit_within(Duration::ZERO).unwrap().is_none());
}

#[test]
fn stderr_and_stdout_are_bounded() {
    let (exit, _) = shell("for i in $(seq 30000); do echo line $i >&2; done; true").output(0).unwrap();
    assert!(exit.stderr.len() <= STDERR_TAIL && exit.stderr.contains("line "), "{}", exit.stderr.len());
    let error = shell("echo 12345").output(5).unwrap_err();
    assert_eq!(error.chain(), "/bin/sh prints more than 5 bytes");
}

#[test]
fn a_program_that_is_not_there_is_an_error_with_and_without_sockets() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    for spawn in [Spawn::new("/no/such"), Spawn::new("/no/such").listen_on(socket.into())] {
        let error = spawn.spawn().unwrap_err();
        assert!(error.chain().contains("cannot start /no/such: No such file"), "{error:?}");
    }
}

#[test]
fn sockets_arrive_as_descriptors_from_3_on_and_nothing_else_does() {
    let stray = nix::unistd::dup(std::io::stdin()).unwrap();
    let listen = [0; 3].map(|_| OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let script = "[ $LISTEN_FDS -eq 3 ] && [ $(expr $LISTEN_PID + 0) -eq $$ ] && ls /proc/$$/fd";
    let text = printed(listen.into_iter().fold(shell(script), Spawn::listen_on));
    drop(stray);
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
    let text = printed(shell("ls /proc/$$/fd").on_a_leash());
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn files_arrive_behind_sockets_and_without_their_words() {
    let script = "ls /proc/$$/fd; cat <&3; echo ${LISTEN_FDS:-none}";
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, b"handed over\n").unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let text = printed(shell(script).inherit(file.try_clone().unwrap()));
    assert_eq!(text.lines().collect::<Vec<_>>(), ["0", "1", "2", "3", "handed over", "none"]);
    let socket = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let text = printed(shell("ls /proc/$$/fd; echo $LISTEN_FDS").listen_on(socket).inherit(file));
    assert_eq!(text.lines().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "1"]);
}

#[test]
fn another_user_has_no_way_back_and_stays_tied() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: another_user_has_no_way_back_and_stays_tied: not root");
        return;
    }
    let user = User { user: 61_234, group: 61_235, groups: vec![61_236] };
    let script = "grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff):' /proc/$$/status | tr -s '\\t ' ' '";
    let text = printed(shell(script).as_user(Some(user.clone())));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let uid = "Uid: 61234 61234 61234 61234";
    let gid = "Gid: 61235 61235 61235 61235";
    assert_eq!(lines, [uid, gid, "Groups: 61236", "CapEff: 0000000000000000", "NoNewPrivs: 1"]);
    let child =
        std::thread::spawn(|| shell("exec sleep 60").as_user(Some(user)).spawn().unwrap()).join().unwrap();
    assert!(child.ends_within(Duration::from_secs(10)).unwrap());
}

#[test]
fn a_leash_outlives_the_thread_kills_when_it_breaks_and_lets_go() {
    let sleeper = || shell("exec sleep 60").on_a_leash().spawn().unwrap();
    let [mut torn, mut free] = std::thread::spawn(move || [sleeper(), sleeper()]).join().unwrap();
    let moment = Duration::from_millis(200);
    assert!(!torn.ends_within(moment).unwrap());
    // What our death does: the last writer is gone. The exec in the child has closed its copy.
    torn.leash = None;
    assert!(torn.ends_within(Duration::from_secs(10)).unwrap());
    assert_eq!(torn.wait().unwrap().status.signal(), Some(9));
    free.let_go().unwrap();
    assert!(!free.ends_within(moment).unwrap());
}

#[test]
fn a_child_ends_when_its_thread_does_and_when_it_is_dropped() {
    let child = std::thread::spawn(|| shell("exec sleep 60").spawn().unwrap()).join().unwrap();
    assert!(child.ends_within(Duration::from_secs(10)).unwrap());
    let child = shell("exec sleep 60").spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.pid()));
    assert!(proc.exists());
    drop(child);
    assert!(!proc.exists());
}

#[test]
fn patience_ends() {
    let started = Instant::now();
    let child = shell("echo stuck >&2; exec sleep 60").spawn().unwrap();
    assert!(!child.ends_within(Duration::from_millis(20)).unwrap());
    let error = child.wait_within(Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.chain(), "/bin/sh did not end within 0 s and was killed: stuck");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn complaints_count_where_the_exit_code_says_nothing() {
    let ended = |script: &str| Spawn::new("/bin/sh").args(["-c", script]).output(0).unwrap().0;
    let complaint = "echo qemu-img: warning: odd >&2; echo Failed to flush >&2";
    ended(complaint).success().unwrap();
    let error = ended(complaint).success_without_complaint(&[]).unwrap_err();
    assert!(
        error.chain().contains("/bin/sh complained") && error.chain().ends_with("Failed to flush"),
        "{error:?}"
    );
    ended(complaint).success_without_complaint(&["to flush"]).unwrap();
    ended("echo qemu-img: warning: odd >&2").success_without_complaint(&[]).unwrap();
    assert!(ended("exit 3").success_without_complaint(&[]).unwrap_err().chain().contains("exit status: 3"));
}

#[test]
fn an_answer_that_does_not_come_in_time_ends_its_program() {
    let started = Instant::now();
    // One that says nothing, one that closes its output and stays, one that goes on talking.
    for script in ["sleep 60", "exec >&-; sleep 60", "while echo again; do sleep 0.05; done"] {
        let error = shell(script).within(Duration::from_millis(300)).output(1 << 20).unwrap_err();
        assert!(error.chain().contains("did not end within"), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let (exit, said) = shell("echo in time").within(Duration::from_secs(60)).output(1 << 20).unwrap();
    assert_eq!((exit.status.success(), said.as_slice()), (true, &b"in time\n"[..]));
}
