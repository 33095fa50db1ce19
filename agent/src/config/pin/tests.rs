//! What the pin file takes, and what it refuses with which words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Pin, ConfigError> {
    parse_pin(Path::new("/etc/t3pin/pin.toml"), text, &|user| ["alice", "emil.barzin"].contains(&user.as_str()))
}

fn refused(text: &str) -> (Option<usize>, String, String) {
    let error = parse(text).expect_err(text);
    (error.line, error.key.clone().unwrap_or_default(), error.problem)
}

fn integrity() -> String {
    format!("sha512-{}A==", "b+/9Z".repeat(17))
}

#[test]
fn a_full_pin_file_is_taken() {
    let text = format!(
        "version = \"0.0.25\"\nintegrity = \"{}\"\n[users.alice]\nversion = \"0.0.24\"\nreason = \"mobile client\"\n\
         [users.\"emil.barzin\"]\nversion = \"0.0.28\"\n",
        integrity()
    );
    let pin = parse(&text).unwrap();
    let user = |name: &str| name.parse::<UserName>().unwrap();
    assert_eq!(pin.integrity, Some(integrity()));
    assert_eq!(pin.wanted(&user("alice")).to_string(), "0.0.24");
    assert_eq!(pin.wanted(&user("emil.barzin")).to_string(), "0.0.28");
    assert_eq!(pin.wanted(&user("carol")).to_string(), "0.0.25");
    assert_eq!(pin.users[&user("alice")].reason.as_deref(), Some("mobile client"));
}

#[test]
fn the_shipped_example_is_a_good_pin_file() {
    assert_eq!(
        parse(include_str!("../../../../packaging/pin.toml.example")).map(|pin| pin.version.to_string()),
        Ok("0.0.25".to_owned())
    );
}

#[test]
fn ranges_tags_and_nonsense_are_refused_with_line_and_key() {
    for version in ["^0.0.25", "~0.0.25", "0.0.x", ">=0.0.24", "latest", "nightly", "0.0", "v0.0.25", ""] {
        let (line, key, problem) = refused(&format!("# the pin\nversion = \"{version}\"\n"));
        assert_eq!((line, key.as_str()), (Some(2), "version"));
        assert!(problem.contains("is not an exact version") && problem.contains("0.0.25"), "{problem}");
    }
}

#[test]
fn a_message_reads_as_file_line_key_problem() {
    let text = parse("version = 25").unwrap_err().to_string();
    assert_eq!(text, "/etc/t3pin/pin.toml, line 1, version: must be a string in quotes, and is an integer");
}

#[test]
fn unknown_keys_are_refused_with_the_allowed_ones() {
    let (line, key, problem) = refused("version = \"0.0.25\"\nverison = \"0.0.24\"\n");
    assert_eq!((line, key.as_str()), (Some(2), "verison"));
    assert_eq!(problem, "unknown key; allowed here are: version, integrity, users");
    let (line, key, problem) = refused("version = \"0.0.25\"\n[users.alice]\nversion = \"0.0.24\"\nwhy = \"x\"\n");
    assert_eq!((line, key.as_str()), (Some(4), "users.alice.why"));
    assert_eq!(problem, "unknown key; allowed here are: version, reason");
}

#[test]
fn unknown_users_are_refused() {
    let (line, key, problem) = refused("version = \"0.0.25\"\n[users.mallory]\nversion = \"0.0.24\"\n");
    assert_eq!((line, key.as_str()), (Some(2), "users.mallory"));
    assert!(problem.starts_with("this host has no user \"mallory\""), "{problem}");
    assert!(refused("version = \"0.0.25\"\n[users.\"../x\"]\nversion = \"0.0.24\"\n").2.contains("is not a user name"));
}

#[test]
fn a_user_with_a_dot_without_quotes_is_told_to_use_quotes() {
    let (line, key, problem) = refused("version = \"0.0.25\"\n[users.emil.barzin]\nversion = \"0.0.24\"\n");
    assert_eq!((line, key.as_str()), (Some(2), "users.emil"));
    assert!(problem.contains("in quotes"), "{problem}");
}

#[test]
fn a_missing_version_is_refused() {
    assert_eq!(refused("").1, "version");
    let (line, key, problem) = refused("version = \"0.0.25\"\n[users.alice]\nreason = \"x\"\n");
    assert_eq!((line, key.as_str()), (Some(2), "users.alice"));
    assert!(problem.starts_with("has no version"), "{problem}");
}

#[test]
fn an_integrity_that_is_not_sha512_of_64_bytes_is_refused() {
    let good = integrity();
    let bad = [
        "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=".to_owned(),
        good.replace("sha512", "sha256"),
        good.trim_end_matches('=').to_owned(),
        good.replace("A==", "B=="),
        good.replace('9', "*"),
        format!("{good}A"),
    ];
    for text in bad {
        let (line, key, _) = refused(&format!("version = \"0.0.25\"\nintegrity = \"{text}\"\n"));
        assert_eq!((line, key.as_str()), (Some(2), "integrity"), "{text}");
    }
}

#[test]
fn wrong_types_are_refused() {
    for text in ["version = true", "version = [\"0.0.25\"]", "version = \"0.0.25\"\nusers = \"alice\"", "version = 0.25"] {
        assert!(parse(text).is_err(), "{text} was taken");
    }
    assert!(parse("version = \"0.0.25\"\nusers.alice = \"0.0.24\"").unwrap_err().problem.contains("must be a table"));
}

#[test]
fn a_file_that_others_may_write_is_refused_and_a_private_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pin.toml");
    let me = rustix::process::geteuid().as_raw();
    let load = || load_pin_of(me, &path, &|_| true);
    assert!(load().unwrap_err().problem.starts_with("does not exist"));
    fs::write(&path, "version = \"0.0.25\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(load().unwrap().version.to_string(), "0.0.25");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    assert!(load().unwrap_err().problem.contains("may be written by others"));
}

/// Text that is close to a pin file, so that the parser is not left at the first byte.
fn nearly_a_pin() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(version|integrity|users|reason)( = |=|\\.)\"?[a-z0-9.^~*-]{0,12}\"?",
        "\\[{1,2}users?(\\.[a-z\".]{0,8}){0,3}\\]{0,2}",
        "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn version() -> impl Strategy<Value = Version> {
    "(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})(-nightly\\.[1-9][0-9]{0,7})?"
        .prop_map(|text| text.parse().unwrap())
}

fn pin() -> impl Strategy<Value = Pin> {
    let held = (version(), prop::option::of("[^\\p{C}]{0,40}")).prop_map(|(version, reason)| UserPin { version, reason });
    let name = "[a-z][a-z0-9._-]{0,8}".prop_map(|text| text.parse::<UserName>().unwrap());
    (version(), prop::option::of(Just(integrity())), prop::collection::btree_map(name, held, 0..4))
        .prop_map(|(version, integrity, users)| Pin { version, integrity, users })
}

proptest! {
    #[test]
    fn no_input_makes_the_parser_panic(text in prop_oneof![any::<String>(), nearly_a_pin()]) {
        let _ = parse(&text);
    }

    #[test]
    fn every_pin_round_trips(pin in pin()) {
        let text = toml::to_string(&pin).unwrap();
        prop_assert_eq!(parse_pin(Path::new("pin.toml"), &text, &|_| true).map_err(|e| format!("{e}\n{text}")), Ok(pin));
    }

    #[test]
    fn every_accepted_text_round_trips(text in nearly_a_pin()) {
        if let Ok(pin) = parse(&text) {
            prop_assert_eq!(parse(&toml::to_string(&pin).unwrap()), Ok(pin));
        }
    }
}
