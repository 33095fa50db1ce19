//! What the settings take, how fragments merge, and what is refused with which words.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::super::inputs::TABLES;
use super::*;

fn parse(text: &str) -> Result<Settings, ConfigError> {
    let mut inputs = Inputs::default();
    inputs.merge(fragment::parse(Path::new("/etc/t3pin/agent.toml"), text)?)?;
    validated(&inputs)
}

/// A directory with these files, as root would have written them.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    fs::set_permissions(dir.path().join("conf.d"), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    dir
}

fn load(dir: &tempfile::TempDir) -> Result<Settings, ConfigError> {
    load_settings_of(rustix::process::geteuid().as_raw(), dir.path())
}

#[test]
fn nothing_written_means_the_defaults() {
    assert_eq!(parse(""), Ok(Settings::default()));
    assert_eq!(load(&tempfile::tempdir().unwrap()), Ok(Settings::default()));
}

#[test]
fn every_allowed_key_reaches_its_setting() {
    let values = |key: &str| match key {
        "registry" | "dispatch_url" => "\"http://127.0.0.1:4873/\"",
        "node" | "npm" | "node_headers" => "\"/opt/x\"",
        "allow_scripts" => "[\"@scope/pkg\"]",
        "pair_endpoints" => "[\"/a\"]",
        "dispatch_header" => "\"X-User\"",
        "start_ceiling" => "\"20h\"",
        "window" => "[\"Mon-Fri 22:00-06:00 UTC\"]",
        "force_after" => "\"31days\"",
        "keep" => "7",
        "max_bytes" => "\"20GB\"",
        "first_port" => "4000",
        _ => "\"31s\"",
    };
    for (table, keys) in TABLES {
        for key in keys {
            let text = format!("[{table}]\n{key} = {}\n", values(key));
            assert_ne!(parse(&text).unwrap_or_else(|e| panic!("{e}")), Settings::default(), "{table}.{key} changes nothing");
        }
    }
}

#[test]
fn the_shipped_file_shows_the_defaults_and_every_key_is_documented() {
    let shipped = include_str!("../../../../packaging/agent.toml");
    assert_eq!(parse(shipped), Ok(Settings::default()));
    let shown: String = shipped
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let examples = parse(&shown).unwrap_or_else(|error| panic!("{error}"));
    let Settings { registry, node, npm, node_headers, dispatch_url, drain, .. } = examples.clone();
    assert!(registry.is_some() && node_headers.is_some() && dispatch_url.is_some() && drain.force_after.is_some());
    assert_ne!(drain.window, Drain::default().window);
    let drain = Drain { window: Drain::default().window, force_after: None, ..drain };
    assert!(examples.snapshots_max_age.is_some() && examples.snapshots_max_bytes == Some(20_000_000_000));
    let plain = Settings {
        registry: None,
        node_headers: None,
        dispatch_url: None,
        snapshots_max_age: None,
        snapshots_max_bytes: None,
        drain,
        ..examples
    };
    assert_eq!(plain, Settings { node, npm, ..Settings::default() });
    let documented = include_str!("../../../../docs/settings.md");
    for (table, keys) in TABLES {
        assert!(documented.contains(&format!("### `[{table}]`")), "{table} is not in docs/settings.md");
        for key in keys {
            assert!(shipped.contains(&format!("# {key} = ")), "{key} is not in packaging/agent.toml");
            assert!(documented.contains(&format!("| `{key}` |")), "{key} is not in docs/settings.md");
        }
    }
}

#[test]
fn fragments_win_key_by_key_in_order_of_name() {
    let dir = directory(&[
        ("agent.toml", "[health]\nsoak = \"1min\"\nrequest_timeout = \"500ms\"\n[snapshots]\nkeep = 2\n"),
        ("conf.d/20-b.toml", "[health]\nsoak = \"3min\"\n"),
        ("conf.d/10-a.toml", "[health]\nsoak = \"2min\"\n[activity]\nquiet = \"0s\"\n"),
        ("conf.d/.99-hidden.toml", "nonsense"),
        ("conf.d/99-editor.toml~", "nonsense"),
    ]);
    let settings = load(&dir).unwrap();
    assert_eq!(settings.soak, 3 * MINUTE);
    assert_eq!(settings.request_timeout, 500 * MS);
    assert_eq!(settings.quiet, Duration::ZERO);
    assert_eq!(settings.keep_snapshots, 2);
}

#[test]
fn an_error_names_the_fragment_it_stands_in() {
    let dir = directory(&[("agent.toml", "[health]\nsoak = \"1min\"\n"), ("conf.d/10.toml", "\n[health]\nsoak = \"soon\"\n")]);
    let error = load(&dir).unwrap_err();
    assert_eq!((error.path, error.line, error.key.as_deref()), (dir.path().join("conf.d/10.toml"), Some(3), Some("health.soak")));
    assert!(error.problem.contains("\"15min\""), "{}", error.problem);
}

#[test]
fn a_fragment_that_others_may_write_is_refused() {
    let dir = directory(&[("conf.d/10.toml", "")]);
    fs::set_permissions(dir.path().join("conf.d/10.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load(&dir).unwrap_err().problem.contains("may be written by others"));
    fs::set_permissions(dir.path().join("conf.d/10.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path().join("conf.d"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(load(&dir).unwrap_err().problem.contains("may be written by others"));
}

#[test]
fn what_is_out_of_bounds_or_of_another_kind_is_refused_with_its_key() {
    let cases = [
        ("store", "registry = \"registry.example\""),
        ("store", "registry = \"ftp://registry.example/\""),
        ("store", "registry = \"https://me:secret@registry.example/\""),
        ("store", "node = \"bin/node\""),
        ("store", "npm = \"\""),
        ("store", "node_headers = 3"),
        ("store", "allow_scripts = \"node-pty\""),
        ("store", "allow_scripts = [\"a,b\"]"),
        ("store", "allow_scripts = [\"--evil\"]"),
        ("store", "install_deadline = \"1s\""),
        ("health", "pair_endpoints = []"),
        ("health", "pair_endpoints = [\"api\"]"),
        ("health", "pair_endpoints = [\"//elsewhere/x\"]"),
        ("health", "pair_endpoints = [1]"),
        ("health", "request_timeout = \"0s\""),
        ("health", "request_timeout = 3"),
        ("health", "start_deadline = \"2days\""),
        ("health", "start_ceiling = \"5s\""),
        ("health", "dispatch_url = \"//proxy\""),
        ("health", "dispatch_header = \"a b\""),
        ("health", "soak = \"-1s\""),
        ("health", "watch_interval = \"1ms\""),
        ("activity", "quiet = \"1year\""),
        ("activity", "poll = \"0s\""),
        ("drain", "window = \"22-06\""),
        ("drain", "force_after = \"1h\""),
        ("snapshots", "keep = 0"),
        ("snapshots", "keep = \"5\""),
        ("instances", "first_port = 80"),
        ("instances", "first_port = 65536"),
        ("instances", "first_port.x = 1"),
        ("instances", "port = 4000"),
    ];
    for (table, line) in cases {
        let error = parse(&format!("# settings\n[{table}]\n{line}\n")).expect_err(line);
        assert_eq!(error.line, Some(3), "{error}");
        assert!(error.key.as_deref().unwrap_or_default().starts_with(&format!("{table}.")), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn unknown_tables_and_keys_are_refused_with_the_allowed_ones() {
    assert_eq!(
        parse("[stroe]\n").unwrap_err().problem,
        "unknown key; allowed here are: store, health, activity, drain, snapshots, instances"
    );
    assert_eq!(
        parse("[activity]\nquite = \"1s\"").unwrap_err().problem,
        "unknown key; allowed here are: quiet, poll, stale_after"
    );
    assert!(parse("soak = \"1s\"").is_err());
}

#[test]
fn a_ceiling_is_never_below_the_deadline() {
    assert!(parse("[health]\nstart_deadline = \"10min\"\nstart_ceiling = \"5min\"").is_err());
    assert_eq!(parse("[health]\nstart_deadline = \"1h\"").unwrap().start_ceiling, HOUR);
}

proptest! {
    #[test]
    fn no_input_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_makes_the_validation_panic(index in 0..18usize, value in prop_oneof!["\"\\PC{0,20}\"", "-?[0-9]{1,20}", "\"[0-9]{1,20}(ms|s|min|days|years)\"", "\\PC{0,20}"]) {
        let all: Vec<_> = TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| (table, key))).collect();
        let (table, key) = all[index];
        let _ = parse(&format!("[{table}]\n{key} = {value}\n"));
    }
}
