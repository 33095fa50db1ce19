//! What is kept of users' data once a bump is settled, and what an operator and a user can do with it.

use crate::common::{GOOD, OLD, Site};
use serde_json::Value;

/// What `t3pin snapshots list` knows of a user, as whoever calls.
#[track_caller]
fn kept(site: &Site, by: &str, user: &str) -> Vec<Value> {
    let text = site.ok(&format!("{by} t3pin snapshots list {user} --json"));
    let all: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    all.as_array().unwrap().iter().flat_map(|one| one["kept"].as_array().unwrap().clone()).collect()
}

#[test]
fn a_settled_bump_is_kept_verified_exported_and_restored() {
    let site = Site::with(&["alice", "bob"]);
    let work = site.work("alice");
    site.pin(GOOD);
    site.enforce_to(0);
    site.await_state("alice", "settled");
    site.await_state("bob", "settled");
    site.turn("alice", "new-work", "start");
    site.turn("alice", "new-work", "end");

    // Kept: root's alone, in little room, and nothing is left in custody.
    let all = kept(&site, "", "alice");
    assert_eq!(all.len(), 1, "{all:?}");
    let id = all[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(all[0]["version"], OLD);
    site.ok("test ! -e /.t3pin/alice -o -z \"$(ls -A /.t3pin/alice)\"");
    let verified = site.ok("t3pin snapshots verify");
    assert!(verified.contains("all whole"), "{verified}");

    // A user sees and exports what is theirs, and only that.
    let as_alice = "runuser -u alice --";
    assert_eq!(kept(&site, as_alice, "alice").len(), 1);
    assert_eq!(kept(&site, as_alice, "bob").len(), 0);
    let bobs = kept(&site, "", "bob")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(site.sh(&format!("{as_alice} t3pin snapshots export bob {bobs} -o /tmp/bob.sqlite")).code, 5);
    assert_eq!(site.sh(&format!("{as_alice} t3pin snapshots restore alice {id}")).code, 5);
    site.ok(&format!("cd /home/alice && {as_alice} t3pin snapshots export alice {id} 2>&1"));
    let file = format!("/home/alice/alice-{id}.sqlite");
    assert_eq!(site.ok(&format!("stat --format '%U %a' {file}")), "alice 600");
    assert_eq!(site.ok(&format!("sqlite3 'file:{file}?immutable=1' 'PRAGMA integrity_check'")), "ok");
    assert_eq!(
        site.ok(&format!("sqlite3 'file:{file}?immutable=1' 'SELECT max(migration_id) FROM effect_sql_migrations'")),
        "30"
    );
    site.ok("test -z \"$(ls -A /var/lib/t3pin/exports)\"");

    // Restored: data and version together, and what lay there is salvage.
    let told = site.ok(&format!("t3pin snapshots restore alice {id} 2>&1"));
    assert!(told.contains(&format!("alice runs {OLD} on the data of snapshot {id}")), "{told}");
    site.is_whole("alice", OLD, "30");
    assert_eq!(site.work("alice"), work);
    assert_eq!(site.serves("bob"), GOOD);
    let all = kept(&site, "", "alice");
    let salvage = all.iter().find_map(|one| one["id"].as_str().filter(|id| id.contains("salvage"))).unwrap().to_owned();
    site.ok(&format!("t3pin snapshots export alice {salvage} -o /root/salvage.sqlite 2>&1"));
    assert_eq!(
        site.ok("sqlite3 /root/salvage.sqlite \"SELECT count(*) FROM projection_threads WHERE thread_id = 'new-work'\""),
        "1"
    );
    // It stays restored, until the operator says otherwise.
    site.enforce();
    assert_eq!(site.serves("alice"), OLD);
    assert_eq!(site.sh(&format!("t3pin versions remove {OLD}")).code, 5, "alice runs it");

    // Salvage goes by order only, and the last whole snapshot not even then.
    site.ok("t3pin snapshots prune 2>&1");
    assert!(kept(&site, "", "alice").iter().any(|one| one["id"] == salvage.as_str()));
    site.ok(&format!("t3pin snapshots prune alice {salvage} 2>&1"));
    assert_eq!(site.sh(&format!("t3pin snapshots prune alice {id}")).code, 5);
    assert_eq!(kept(&site, "", "alice").len(), 1);

    // Damage is found and named, and is restored to nobody.
    site.ok("dd if=/dev/urandom of=/var/lib/t3pin/snapshots/bob/store/p000001 bs=1 seek=1000 count=64 conv=notrunc status=none");
    let damaged = site.sh("t3pin snapshots verify");
    assert_eq!(damaged.code, 5, "{damaged}");
    assert!(damaged.stdout.contains("bob") && damaged.stdout.contains("damaged"), "{damaged}");
    let refused = site.sh(&format!("t3pin snapshots restore bob {bobs}"));
    assert_eq!(refused.code, 5, "{refused}");
    site.is_whole("bob", GOOD, "31");
}

#[test]
fn versions_share_their_files_and_go_when_nothing_needs_them() {
    let site = Site::with(&["alice"]);
    site.pin(GOOD);
    site.enforce_to(0);
    site.await_state("alice", "settled");
    let shared = site.ok(&format!("find /var/lib/t3pin/versions/{GOOD} -type f -links +1 | wc -l"));
    assert_ne!(shared, "0");
    let refused = site.sh(&format!("t3pin versions remove {OLD}"));
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.stdout.contains("snapshot"), "{refused}");
    let refused = site.sh(&format!("t3pin versions remove {GOOD}"));
    assert!(refused.stdout.contains("binding of alice"), "{refused}");
    // The next settled bump takes the place of the snapshot that needed the oldest version, which goes with it.
    site.settings("[snapshots]\nkeep = 1\n");
    site.pin("0.0.28");
    site.enforce_to(0);
    site.until("0.0.24 is retired", |site| !site.sh("t3pin versions").stdout.contains(OLD));
    assert!(site.journal().contains("t3 0.0.24 is retired"));
    site.is_whole("alice", "0.0.28", "32");
}

#[test]
fn attachments_go_and_come_back_with_the_rest_and_what_is_none_is_named() {
    let site = Site::with(&["alice"]);
    let at = "/home/alice/.t3/userdata/attachments";
    let as_alice = |what: &str| site.ok(&format!("runuser -u alice -- sh -c '{what}'"));
    as_alice(&format!("mkdir -p {at}/thread && echo picture >{at}/thread/a.png && ln -s /etc/shadow {at}/odd"));
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("attachments/odd is a symbolic link"), "{refused}");
    assert_eq!(site.serves("alice"), OLD);

    as_alice(&format!("rm {at}/odd"));
    site.enforce_to(0);
    site.await_state("alice", "settled");
    assert_eq!(site.ok(&format!("cat {at}/thread/a.png")), "picture");
    as_alice(&format!("echo changed >{at}/thread/a.png && echo new >{at}/thread/new.png"));
    let id = kept(&site, "", "alice")[0]["id"].as_str().unwrap().to_owned();
    site.ok(&format!("t3pin snapshots restore alice {id} 2>&1"));
    site.is_whole("alice", OLD, "30");
    assert_eq!(
        site.ok(&format!("cat {at}/thread/a.png && ls {at}/thread && stat --format %U {at}/thread/a.png")),
        "picture\na.png\nalice"
    );
    let salvage = kept(&site, "", "alice")
        .iter()
        .find_map(|one| one["path"].as_str().filter(|path| path.contains("salvage")).map(str::to_owned));
    assert_eq!(site.ok(&format!("cat {}/attachments/thread/*.png", salvage.unwrap())), "changed\nnew");
}
