//! A real install by a real npm under a real systemd. Runs where `T3PIN_ON_MACHINE` is set and `T3PIN_TEST_VERSION` names a
//! version that the machine's npm can get; `T3PIN_TEST_NODE` is the prefix of node and npm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::systemd::Systemd;

/// All of them install the same version, and only one install of a version runs at a time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Setup {
    _turn: tokio::sync::MutexGuard<'static, ()>,
    root: tempfile::TempDir,
    store: Store,
    systemd: Systemd,
    version: Version,
    settings: InstallSettings,
}

async fn setup() -> Option<Setup> {
    std::env::var_os("T3PIN_ON_MACHINE")?;
    let turn = ONE_AT_A_TIME.lock().await;
    let version = std::env::var("T3PIN_TEST_VERSION").ok()?.parse().unwrap();
    let node = PathBuf::from(std::env::var("T3PIN_TEST_NODE").unwrap_or_else(|_| "/usr".to_owned()));
    let root = tempfile::Builder::new().prefix("t3pin-store-").tempdir_in("/var/lib").unwrap();
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let settings = InstallSettings {
        registry: None,
        node: node.join("bin/node"),
        npm: node.join("bin/npm"),
        node_headers: None,
        allow_scripts: vec!["node-pty".to_owned(), "msgpackr-extract".to_owned()],
        user: "t3pin-npm".to_owned(),
        deadline: Duration::from_secs(300),
    };
    let (store, systemd) = (Store::open(root.path()).unwrap(), Systemd::connect().await.unwrap());
    Some(Setup { _turn: turn, root, store, systemd, version, settings })
}

impl Setup {
    async fn install(&self, version: &Version, integrity: Option<&str>) -> Result<Installed, InstallError> {
        let said = Mutex::new(Vec::new());
        let outcome = self
            .store
            .install(&self.systemd, version, integrity, &self.settings, &|line| said.lock().unwrap().push(line.to_owned()))
            .await;
        println!("{:#?}\n{outcome:?}", said.lock().unwrap());
        outcome
    }

    fn assert_untouched(&self) {
        for directory in ["versions", "staging"] {
            assert_eq!(std::fs::read_dir(self.root.path().join(directory)).unwrap().count(), 0, "{directory}");
        }
    }
}

fn walk(path: &Path, seen: &mut dyn FnMut(&Path, &std::fs::Metadata)) {
    let metadata = path.symlink_metadata().unwrap();
    seen(path, &metadata);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), seen);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_install_ends_sealed_and_its_cli_runs() {
    let Some(setup) = setup().await else { return };
    let installed = setup.install(&setup.version, None).await.unwrap();
    assert!(installed.integrity.starts_with("sha512-") && installed.bytes > 0, "{installed:?}");
    walk(&installed.path, &mut |path, metadata| {
        let writable = !metadata.is_symlink() && metadata.mode() & 0o7222 != 0;
        assert!(metadata.uid() == 0 && metadata.gid() == 0 && !writable, "{} {:o}", path.display(), metadata.mode());
    });
    let cli = std::process::Command::new(setup.store.cli(&setup.version)).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&cli.stdout).contains(&setup.version.to_string()), "{cli:?}");
    assert_eq!(setup.store.list().unwrap(), std::slice::from_ref(&installed));
    assert_eq!(setup.install(&setup.version, Some(&installed.integrity)).await.unwrap(), installed);
    assert_eq!(std::fs::read_dir(setup.root.path().join("staging")).unwrap().count(), 0);
    let wrong = setup.install(&setup.version, Some("sha512-other")).await;
    assert!(matches!(wrong, Err(InstallError::Integrity { .. })), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_registry_does_not_have_is_named_with_the_registry() {
    let Some(setup) = setup().await else { return };
    match setup.install(&"9999.0.1".parse().unwrap(), None).await {
        Err(InstallError::NoSuchVersion { registry, .. }) => assert!(registry.starts_with("http"), "{registry}"),
        other => panic!("{other:?}"),
    }
    setup.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_told_from_a_missing_version() {
    let Some(mut setup) = setup().await else { return };
    setup.settings.registry = Some("http://user:hunter2@127.0.0.1:9/".to_owned());
    match setup.install(&setup.version, None).await {
        Err(InstallError::Registry { npm, .. }) => assert!(npm.contains("ECONNREFUSED") && !npm.contains("hunter2"), "{npm}"),
        other => panic!("{other:?}"),
    }
    setup.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_integrity_than_the_pin_wants_is_refused_before_anything_is_fetched() {
    let Some(setup) = setup().await else { return };
    let refused = setup.install(&setup.version, Some("sha512-other")).await;
    assert!(matches!(refused, Err(InstallError::Integrity { .. })), "{refused:?}");
    setup.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_leaves_nothing_and_says_why() {
    let Some(mut setup) = setup().await else { return };
    setup.settings.node_headers = Some("/nonexistent".into());
    match setup.install(&setup.version, None).await {
        Err(InstallError::Npm { npm, .. }) => assert!(npm.contains("gyp"), "{npm}"),
        other => panic!("{other:?}"),
    }
    setup.settings.node_headers = None;
    setup.settings.allow_scripts.clear();
    match setup.install(&setup.version, None).await {
        Err(InstallError::BadTree { why, .. }) => assert!(why.contains("pty.node"), "{why}"),
        other => panic!("{other:?}"),
    }
    setup.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_is_given_up_can_be_repeated_at_once() {
    let Some(setup) = setup().await else { return };
    let given_up = tokio::time::timeout(Duration::from_millis(1500), setup.install(&setup.version, None)).await;
    assert!(given_up.is_err());
    setup.install(&setup.version, None).await.unwrap();
}
