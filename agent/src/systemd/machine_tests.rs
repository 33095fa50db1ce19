//! Against a real systemd as process 1. They run where `T3PIN_ON_MACHINE` is set, and nowhere else: they make units.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::*;

const SECONDS: Duration = Duration::from_secs(20);

/// One at a time: some of them reload unit files, and systemd 252 forgets `RestrictNamespaces=` of a transient unit when that
/// falls into the moment before its program starts.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn turn() -> Option<tokio::sync::MutexGuard<'static, ()>> {
    std::env::var_os("T3PIN_ON_MACHINE")?;
    Some(ONE_AT_A_TIME.lock().await)
}

/// The script goes by file: what systemd 252 notes of an argument with `;` or `$` does not survive a daemon-reload.
fn sandbox(name: &str, script: &str) -> Sandbox {
    let file = format!("/srv/t3pin-test-{name}.sh");
    std::fs::write(&file, script).unwrap();
    Sandbox {
        name: format!("t3pin-test-{name}.service"),
        description: format!("t3pin test {name}"),
        exec: vec!["/bin/sh".to_owned(), file],
        user: "nobody".to_owned(),
        environment: vec![("WORD".to_owned(), "two words".to_owned())],
        working_directory: "/".to_owned(),
        private_network: true,
        read_write: Vec::new(),
        bind: Vec::new(),
        credentials: Vec::new(),
        memory_max: 256 << 20,
        tasks_max: 32,
        deadline: SECONDS,
        stdin: None,
        stdout: None,
        stderr: None,
    }
}

async fn output(systemd: &Systemd, mut sandbox: Sandbox) -> (SandboxEnd, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    sandbox.stderr = Some(writer.try_clone().unwrap().into());
    sandbox.stdout = Some(writer.into());
    let end = systemd.run_sandbox(sandbox).await.unwrap();
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    (end, tokio::time::timeout(SECONDS, text).await.expect("the pipe ends with the sandbox").unwrap())
}

async fn gone(systemd: &Systemd, name: &str) {
    let until = Instant::now() + SECONDS;
    let pattern = format!("t3pin-test-{name}.service");
    while systemd.loaded(&pattern).await.unwrap() {
        assert!(Instant::now() < until, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write_unit(name: &str, text: &str) {
    std::fs::write(format!("/etc/systemd/system/{name}"), text).unwrap();
}

#[tokio::test]
async fn a_sandbox_reports_how_its_program_ended_and_leaves_no_unit() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    for (script, result, status) in [("exit 0", "success", 0), ("exit 7", "exit-code", 7), ("kill -KILL $$", "signal", 9)] {
        let end = systemd.run_sandbox(sandbox("ends", script)).await.unwrap();
        assert_eq!(end, SandboxEnd { result: result.to_owned(), status }, "{script}");
    }
    gone(&systemd, "ends").await;
}

#[tokio::test]
async fn arguments_reach_the_program_as_they_are() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let words = ["$HOME", "${WORD}", "a b", "$$", "%n", "\\x41", "'\"", "", ";"];
    let mut sandbox = sandbox("arguments", r#"for word in "$@"; do printf '[%s]\n' "$word"; done"#);
    sandbox.exec.extend(words.map(String::from));
    let (_, text) = output(&systemd, sandbox).await;
    assert_eq!(text, words.map(|word| format!("[{word}]\n")).concat());
}

#[tokio::test]
async fn a_sandbox_sees_its_pipes_its_environment_and_nothing_of_the_host() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    std::fs::create_dir_all("/home/somebody/private").unwrap();
    std::fs::create_dir_all("/srv/test-rw").unwrap();
    std::fs::create_dir_all("/srv/test-bound").unwrap();
    for path in ["/srv/test-rw", "/srv/test-bound"] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    std::fs::write("/srv/test-bound/file", "bound").unwrap();
    std::fs::write("/root/test-secret", "s3cret").unwrap();
    let (mut input, mut feed) = (std::io::pipe().unwrap(), String::new());
    std::io::Write::write_all(&mut input.1, b"fed\n").unwrap();
    drop(input.1);
    let mut sandbox = sandbox(
        "cage",
        r#"read line; echo "in=$line word=$WORD id=$(id -u) home=$(ls -A /home) bound=$(cat /home/x/data/file)"
        cat "$CREDENTIALS_DIRECTORY/secret"; echo; cat /run/credentials/t3pin-test-cage.service/secret; echo
        touch /srv/test-rw/made && echo rw; touch /home/x/data/made && echo bound-rw; touch /var/lib/no /etc/no /usr/no
        grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true; grep -c : /proc/net/dev; ls /run/t3pin; cat /proc/sys/kernel/x"#,
    );
    std::fs::create_dir_all("/run/t3pin/hidden").unwrap();
    sandbox.stdin = Some(input.0.into());
    sandbox.read_write = vec!["/srv/test-rw".to_owned()];
    sandbox.bind = vec![("/srv/test-bound".to_owned(), "/home/x/data".to_owned())];
    sandbox.credentials = vec![("secret".to_owned(), "/root/test-secret".to_owned())];
    let (_, text) = output(&systemd, sandbox).await;
    feed.push_str(&text);
    for expected in [
        "in=fed word=two words id=65534 home=x bound=bound",
        "s3cret\ns3cret",
        "rw\nbound-rw",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(feed.contains(expected), "no {expected:?} in:\n{feed}");
    }
    for denied in ["/var/lib/no", "/etc/no", "/usr/no"] {
        assert!(!std::path::Path::new(denied).exists());
    }
    assert!(feed.contains("Operation not permitted") && feed.contains("\n1\n"), "{feed}");
    assert!(!feed.contains("hidden"), "{feed}");
}

#[tokio::test]
async fn a_sandbox_that_outstays_its_deadline_is_ended_by_systemd() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let mut sandbox = sandbox("late", "sleep 1000");
    sandbox.deadline = Duration::from_millis(300);
    let end = systemd.run_sandbox(sandbox).await.unwrap();
    assert_eq!(end.result, "timeout");
}

#[tokio::test]
async fn a_dropped_future_stops_its_sandbox_and_the_name_can_be_used_again_at_once() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let running = systemd.run_sandbox(sandbox("dropped", "sleep 1000"));
    assert!(tokio::time::timeout(Duration::from_millis(500), running).await.is_err());
    let end = systemd.run_sandbox(sandbox("dropped", "exit 3")).await.unwrap();
    assert_eq!(end.status, 3);
    let running = systemd.run_sandbox(sandbox("dropped", "sleep 1000"));
    assert!(tokio::time::timeout(Duration::from_millis(500), running).await.is_err());
    gone(&systemd, "dropped").await;
}

#[tokio::test]
async fn a_cage_that_cannot_be_made_is_told_from_a_program_that_fails() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let mut no_program = sandbox("setup", "");
    no_program.exec = vec!["/nonexistent/program".to_owned()];
    let mut no_mount = sandbox("setup", "true");
    no_mount.bind = vec![("/nonexistent/source".to_owned(), "/srv".to_owned())];
    for (sandbox, status) in [(no_program, "203"), (no_mount, "226")] {
        match systemd.run_sandbox(sandbox).await {
            Err(SystemdError::Job { what, result }) => assert!(what.contains(status) && result == "failed", "{what} {result}"),
            other => panic!("{other:?}"),
        }
    }
    gone(&systemd, "setup").await;
}

#[tokio::test]
async fn units_of_an_agent_that_died_are_stopped_by_prefix() {
    let Some(_turn) = turn().await else { return };
    let lost = Systemd::connect().await.unwrap();
    let systemd = Systemd::connect().await.unwrap();
    let running =
        tokio::spawn(async move { lost.run_sandbox(sandbox("leftover", "trap '' TERM; sleep 1000 & wait; sleep 1000")).await });
    while !systemd.loaded("t3pin-test-leftover.service").await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    systemd.stop_left_over("t3pin-test-left").await.unwrap();
    let _ = running.await.unwrap();
    gone(&systemd, "leftover").await;
}

#[tokio::test]
async fn a_service_starts_freezes_thaws_and_stops_with_its_jobs_awaited() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    write_unit("t3pin-test-plain.service", "[Service]\nExecStart=/bin/sleep 1000\nRestart=on-failure\n");
    systemd.daemon_reload().await.unwrap();
    let unit = "t3pin-test-plain.service";
    for _ in 0..20 {
        systemd.start(unit, SECONDS).await.unwrap();
        systemd.start(unit, SECONDS).await.unwrap();
        let group = group(&systemd, unit).await;
        let state = systemd.unit(unit).await.unwrap();
        assert_eq!((state.active_state.as_str(), state.sub_state.as_str()), ("active", "running"));
        assert!(state.main_pid > 0 && state.invocation_id.len() == 32 && state.control_group.ends_with(unit), "{state:?}");
        systemd.thaw(unit).await.unwrap();
        still(&systemd, unit, &group).await;
        assert_eq!(systemd.unit(unit).await.unwrap().freezer_state, "frozen");
        still(&systemd, unit, &group).await;
        systemd.thaw(unit).await.unwrap();
        systemd.thaw(unit).await.unwrap();
        still(&systemd, unit, &group).await;
        let before = Instant::now();
        systemd.stop(unit, SECONDS).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(5), "a frozen unit stops at once");
        systemd.stop(unit, SECONDS).await.unwrap();
        systemd.thaw(unit).await.unwrap();
        assert_eq!(systemd.unit(unit).await.unwrap().main_pid, 0);
    }
    systemd.thaw("t3pin-test-unknown.service").await.unwrap();
    systemd.stop("t3pin-test-unknown.service", SECONDS).await.unwrap();
    assert_eq!(systemd.unit("t3pin-test-unknown.service").await.unwrap().load_state, "not-found");
    assert!(systemd.start("t3pin-test-unknown.service", SECONDS).await.is_err());
}

#[tokio::test]
async fn a_reload_of_unit_files_in_between_loses_neither_jobs_nor_the_freezer_nor_a_sandbox() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let unit = "t3pin-test-reloaded.service";
    write_unit(unit, "[Service]\nExecStart=/bin/sleep 1000\n");
    systemd.daemon_reload().await.unwrap();
    let reloader = Systemd::connect().await.unwrap();
    let reloading = tokio::spawn(async move {
        loop {
            reloader.daemon_reload().await.unwrap();
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    });
    for _ in 0..10 {
        systemd.start(unit, SECONDS).await.unwrap();
        let group = group(&systemd, unit).await;
        still(&systemd, unit, &group).await;
        systemd.thaw(unit).await.unwrap();
        still(&systemd, unit, &group).await;
        systemd.stop(unit, SECONDS).await.unwrap();
        assert_eq!(systemd.run_sandbox(sandbox("through-reload", "sleep 0.05; exit 7")).await.unwrap().status, 7);
    }
    reloading.abort();
}

#[tokio::test]
async fn a_start_limit_is_cleared_and_a_failing_start_is_an_error() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    let unit = "t3pin-test-fails.service";
    write_unit(unit, "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1000\n[Service]\nType=notify\nExecStart=/bin/false\n");
    systemd.daemon_reload().await.unwrap();
    for _ in 0..5 {
        match systemd.start(unit, SECONDS).await {
            Err(SystemdError::Job { result, .. }) => assert_eq!(result, "failed"),
            other => panic!("{other:?}"),
        }
        assert_eq!(systemd.unit(unit).await.unwrap().result, "exit-code");
    }
}

#[tokio::test]
async fn instances_that_are_loaded_or_only_enabled_are_listed_once() {
    let Some(_turn) = turn().await else { return };
    let systemd = Systemd::connect().await.unwrap();
    write_unit("t3-serve@.service", "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n");
    systemd.daemon_reload().await.unwrap();
    systemd.enable("t3-serve@only.enabled.service").await.unwrap();
    systemd.enable("t3-serve@only.enabled.service").await.unwrap();
    systemd.enable("t3-serve@both.service").await.unwrap();
    systemd.start("t3-serve@both.service", SECONDS).await.unwrap();
    systemd.start("t3-serve@started.service", SECONDS).await.unwrap();
    let expected = ["t3-serve@both.service", "t3-serve@only.enabled.service", "t3-serve@started.service"];
    assert_eq!(systemd.instances().await.unwrap(), expected);
    systemd.daemon_reload().await.unwrap();
    assert_eq!(systemd.instances().await.unwrap(), expected);
    let state = systemd.unit("t3-serve@both.service").await.unwrap();
    assert_eq!((state.unit_file_state.as_str(), state.load_state.as_str()), ("enabled", "loaded"));
    assert_eq!(state.fragment_path, "/etc/systemd/system/t3-serve@.service");
    for unit in expected {
        systemd.stop(unit, SECONDS).await.unwrap();
    }
}

async fn group(systemd: &Systemd, unit: &str) -> ControlGroup {
    ControlGroup::named(&systemd.unit(unit).await.unwrap().control_group).unwrap()
}

async fn still(systemd: &Systemd, unit: &str, group: &ControlGroup) {
    let frozen = systemd.freeze(unit, group, SECONDS).await.unwrap();
    assert!(matches!(frozen, Freeze::Still) && group.is_frozen(), "{frozen:?}");
}

impl Systemd {
    async fn loaded(&self, unit: &str) -> Result<bool, SystemdError> {
        Ok(!self.list("listing test units", unit).await?.is_empty())
    }
}
