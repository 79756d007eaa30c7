//! The database answers what was written, survives its own loss and damage, and never trusts what another boot left
//! unsynced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stacker::action::{Action, Ids, Kind, Platform};
use stacker::database::{ActionResult, BuildRow, BuiltLayer, BuiltStep, Cause, Database, Evicted, LayerInfo, Needed};
use stacker::digest::{BlobDigest, ChainId, ContentDigest, DiffId, Key};
use stacker::export::metadata::Totals;
use stacker::graph::Need;
use stacker::listing::Time;
use stacker::place::{RootsDir, StackerDir};
use stacker::record::Record;

/// A stacker directory that goes with the test.
struct Dir {
    directory: tempfile::TempDir,
    stacker: StackerDir,
}

impl Dir {
    fn new() -> Dir {
        let directory = tempfile::tempdir().expect("a directory");
        let stacker = StackerDir(directory.path().join("stacker"));
        Dir { directory, stacker }
    }

    /// Opens it where nothing is to be told.
    fn open(&self) -> Database {
        let (database, warnings) = Database::open(&self.stacker).expect("the database opens");
        assert!(warnings.is_empty(), "{warnings:?}");
        database
    }

    /// Opens it where one thing is to be told.
    fn open_with_warning(&self) -> (Database, String) {
        let (database, mut warnings) = Database::open(&self.stacker).expect("the database opens");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        (database, warnings.remove(0))
    }

    fn commit(&self, database: &Database) {
        database.commit_durable(&RootsDir(self.directory.path().join("roots")), SystemTime::now()).expect("the sync");
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.stacker.0.join(directory))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    }

    /// Statements that stacker itself never makes.
    fn alter(&self, statements: &str) {
        let connection = rusqlite::Connection::open(self.stacker.database()).expect("the database");
        connection.execute_batch(statements).expect(statements);
    }

    /// Everything in one file, so that a test can break that.
    fn checkpoint(&self) {
        let connection = rusqlite::Connection::open(self.stacker.database()).expect("the database");
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    }
}

fn action(number: u8) -> Action {
    Action {
        platform: Platform { os: "linux".into(), arch: "amd64".into() },
        ids: Ids::Full,
        base: ChainId::SCRATCH,
        time: 946_684_802,
        kind: Kind::Unpack { tar: ContentDigest([number; 32]) },
    }
}

fn result(number: u8, created: i64) -> ActionResult {
    let newest = Time { seconds: -1, nanos: 999_999_999 };
    let layer = LayerInfo { newest, entries: 3, bytes: 5 << 30, tar_bytes: 6 << 30 };
    let diff_id = Some(DiffId([number; 32]));
    ActionResult { diff_id, layer: Some(layer), labels: None, tier: "full".into(), seconds: 0.25, created }
}

/// An action that changed nothing.
fn empty(created: i64) -> ActionResult {
    ActionResult { diff_id: None, layer: None, ..result(0, created) }
}

fn finish(database: &Database, number: u8, result: &ActionResult) -> Key {
    let action = action(number);
    let key = action.key();
    database.begin(&key, &action).expect("begin");
    database.finish(&key, &action, result).expect("finish");
    key
}

#[test]
fn directories_are_the_callers_alone_but_for_the_listings() {
    let dir = Dir::new();
    dir.open();
    let mode = |path: &Path| fs::metadata(path).expect("a directory").permissions().mode() & 0o777;
    assert_eq!(mode(&dir.stacker.0), 0o700);
    for name in StackerDir::DIRECTORIES {
        let wanted = if name == "listings" { 0o755 } else { 0o700 };
        assert_eq!(mode(&dir.stacker.0.join(name)), wanted, "{name}");
    }
}

#[test]
fn results_are_there_for_the_next_process() {
    let dir = Dir::new();
    let database = dir.open();
    let (full, nothing) = (finish(&database, 1, &result(1, 100)), finish(&database, 2, &empty(200)));
    drop(database);
    let database = dir.open();
    assert_eq!(database.result(&full).expect("a query"), Some(result(1, 100)));
    assert_eq!(database.result(&nothing).expect("a query"), Some(empty(200)));
    assert_eq!(database.action(&full).expect("a query"), Some(action(1)));
    assert_eq!(database.layer(&DiffId([1; 32])).expect("a query"), result(1, 100).layer);
    assert_eq!(database.result(&action(3).key()).expect("a query"), None);
    assert_eq!(database.list().expect("a query").len(), 2);
}

#[test]
fn an_action_that_never_finished_is_known_but_has_no_result() {
    let dir = Dir::new();
    let database = dir.open();
    let key = action(1).key();
    database.begin(&key, &action(1)).expect("begin");
    assert_eq!(database.action(&key).expect("a query"), Some(action(1)));
    assert_eq!(database.result(&key).expect("a query"), None);
    assert!(database.list().expect("a query").is_empty());
}

#[test]
fn a_new_result_replaces_the_old_one_and_its_record() {
    let dir = Dir::new();
    let database = dir.open();
    let key = finish(&database, 1, &result(1, 100));
    dir.commit(&database);
    let old = dir.names("records");
    finish(&database, 1, &result(2, 200));
    assert_eq!(database.result(&key).expect("a query"), Some(result(2, 200)));
    assert_eq!(dir.names("records"), [""; 0], "the old record is gone");
    assert_eq!(dir.names("fresh").len(), 1);
    assert_ne!(dir.names("fresh"), old);
    // The very same result again changes nothing.
    finish(&database, 1, &result(2, 200));
    assert_eq!(dir.names("fresh").len(), 1);
}

#[test]
fn a_forgotten_result_does_not_come_back() {
    let dir = Dir::new();
    let database = dir.open();
    let (fresh, durable) = (action(1).key(), finish(&database, 2, &result(2, 1)));
    dir.commit(&database);
    finish(&database, 1, &result(1, 1));
    for key in [fresh, durable] {
        database.forget(&key, &Cause::Damaged).expect("forget");
        database.forget(&key, &Cause::Missing).expect("forgetting twice");
        let evicted = database.evicted(&key).expect("a query").expect("it went");
        assert_eq!((evicted.cause, evicted.created), (Cause::Damaged, 1), "of the time when it went");
        assert_eq!(database.result(&key).expect("a query"), None);
        assert!(database.action(&key).expect("a query").is_some(), "the action explains the miss");
    }
    drop(database);
    fs::remove_file(dir.stacker.database()).expect("the file");
    let database = dir.open();
    assert!(database.list().expect("a query").is_empty());
}

#[test]
fn committing_moves_fresh_records_once_they_are_on_disk() {
    let dir = Dir::new();
    let database = dir.open();
    dir.commit(&database);
    let key = finish(&database, 1, &result(1, 1));
    database.put_blob(&DiffId([1; 32]), "gzip-6/1", &BlobDigest([9; 32]), 77).expect("a blob");
    let fresh = dir.names("fresh");
    assert_eq!((fresh.len(), dir.names("records").len()), (1, 0));
    dir.commit(&database);
    dir.commit(&database);
    assert_eq!((dir.names("fresh"), dir.names("records")), (vec![], fresh.clone()));
    let record = Record::read(&dir.stacker.records().join(&fresh[0])).expect("it can be read").expect("a record");
    assert_eq!((record.key, record.result), (key, result(1, 1)));
    let connection = rusqlite::Connection::open(dir.stacker.database()).expect("the database");
    for table in ["result", "layer", "blob"] {
        let query = format!("SELECT COUNT(*) FROM {table} WHERE unsynced IS NOT NULL");
        assert_eq!(connection.query_row(&query, [], |row| row.get(0)), Ok(0), "{table}");
    }
}

#[test]
fn a_removed_database_comes_back_from_the_records() {
    let dir = Dir::new();
    let database = dir.open();
    let durable = finish(&database, 1, &result(1, 100));
    dir.commit(&database);
    let fresh = finish(&database, 2, &empty(200));
    drop(database);
    // Its write-ahead log stays behind and must not be replayed into the new one.
    fs::remove_file(dir.stacker.database()).expect("the file");
    let (database, warning) = dir.open_with_warning();
    assert!(warning.contains("missing") && warning.contains("2 records"), "{warning}");
    assert_eq!(database.result(&durable).expect("a query"), Some(result(1, 100)));
    assert_eq!(database.result(&fresh).expect("a query"), Some(empty(200)));
    assert_eq!(database.action(&durable).expect("a query"), Some(action(1)));
    // What was fresh is still waiting for its sync.
    dir.commit(&database);
    assert_eq!((dir.names("fresh").len(), dir.names("records").len()), (0, 2));
}

#[test]
fn what_is_no_record_is_passed_over() {
    let dir = Dir::new();
    let database = dir.open();
    let key = finish(&database, 1, &result(1, 100));
    dir.commit(&database);
    drop(database);
    let records = dir.stacker.records();
    let whole = fs::read(records.join(&dir.names("records")[0])).expect("a record");
    fs::write(records.join("torn"), &whole[..whole.len() / 2]).expect("a file");
    fs::write(records.join("ab".repeat(32)), &whole).expect("a file");
    let mut alien = Record::new(&action(2), &result(2, 1), "a boot");
    alien.key = action(3).key();
    alien.write_fresh(&dir.stacker).expect("a record");
    fs::remove_file(dir.stacker.database()).expect("the file");
    let (database, warning) = dir.open_with_warning();
    assert!(warning.contains("from 1 records"), "{warning}");
    assert_eq!(database.list().expect("a query").into_iter().map(|row| row.key).collect::<Vec<_>>(), [key]);
}

#[test]
fn the_newest_record_of_a_key_counts() {
    let dir = Dir::new();
    drop(dir.open());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot");
    for (number, created) in [(1, 300), (2, 500), (3, 400)] {
        Record::new(&action(7), &result(number, created), boot.trim()).write_fresh(&dir.stacker).expect("a record");
    }
    fs::remove_file(dir.stacker.database()).expect("the file");
    let (database, _) = dir.open_with_warning();
    assert_eq!(database.result(&action(7).key()).expect("a query"), Some(result(2, 500)));
}

fn aside(dir: &Dir) -> PathBuf {
    dir.stacker.0.join("stacker.db.damaged-1")
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let without_tables = |path: &Path| {
        fs::remove_file(path).expect("the file");
        let connection = rusqlite::Connection::open(path).expect("a database");
        connection.execute_batch("PRAGMA user_version = 1").expect("a pragma");
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let breaks: [Damage; 3] = [
        ("other bytes", &|path| fs::write(path, "x".repeat(10_000)).expect("a file")),
        ("another database", &without_tables),
        ("a torn page", &|path| {
            let mut bytes = fs::read(path).expect("a file");
            bytes[100..3000].fill(0xee);
            fs::write(path, bytes).expect("a file");
        }),
    ];
    for (name, damage) in breaks {
        let dir = Dir::new();
        let key = finish(&dir.open(), 1, &result(1, 100));
        dir.checkpoint();
        damage(&dir.stacker.database());
        let broken = fs::read(dir.stacker.database()).expect("a file");
        let (database, warning) = dir.open_with_warning();
        assert!(warning.contains("set aside as") && warning.contains("1 records"), "{name}: {warning}");
        assert_eq!(database.result(&key).expect("a query"), Some(result(1, 100)), "{name}");
        assert_eq!(fs::read(aside(&dir)).expect("what was set aside"), broken, "{name}");
        drop(database);
        dir.open();
    }
}

#[test]
fn damage_that_is_met_later_is_healed_by_the_next_start() {
    let dir = Dir::new();
    let database = dir.open();
    let keys: Vec<Key> = (0..250).map(|number| finish(&database, number, &result(number, 1))).collect();
    drop(database);
    dir.checkpoint();
    let mut bytes = fs::read(dir.stacker.database()).expect("a file");
    let from = bytes.len() / 2;
    bytes[from..].fill(0xee);
    fs::write(dir.stacker.database(), &bytes).expect("a file");
    // Opening reads only a few pages. Whether the damage is met then or later, it must not be taken for an answer.
    let (database, warnings) = Database::open(&dir.stacker).expect("the database opens");
    assert!(warnings.is_empty(), "this test needs damage that opening does not meet: {warnings:?}");
    let failed = keys.iter().find_map(|key| database.result(key).err()).expect("an error");
    assert!(failed.to_string().contains("the next start sets it aside"), "{failed}");
    assert_eq!(failed.exit_code(), 3);
    drop(database);
    let (database, warning) = dir.open_with_warning();
    assert!(warning.contains("250 records"), "{warning}");
    assert!(keys.iter().all(|key| database.result(key).expect("a query").is_some()));
}

#[test]
fn a_database_of_a_newer_stacker_is_left_alone() {
    let dir = Dir::new();
    dir.open();
    dir.alter("PRAGMA user_version = 99");
    let error = Database::open(&dir.stacker).expect_err("it is too new");
    assert!(error.to_string().contains("schema 99"), "{error}");
    assert!(dir.stacker.database().exists() && !aside(&dir).exists());
}

#[test]
fn after_another_boot_only_what_was_synced_is_there() {
    let dir = Dir::new();
    let database = dir.open();
    let synced = finish(&database, 1, &result(1, 100));
    database.put_blob(&DiffId([1; 32]), "gzip-6/1", &BlobDigest([1; 32]), 1).expect("a blob");
    dir.commit(&database);
    let renamed = finish(&database, 2, &result(2, 200));
    let name = dir.names("fresh").remove(0);
    fs::rename(dir.stacker.fresh().join(&name), dir.stacker.records().join(&name)).expect("killed after the rename");
    let lost = finish(&database, 3, &result(3, 300));
    database.put_blob(&DiffId([2; 32]), "gzip-6/1", &BlobDigest([2; 32]), 1).expect("a blob");
    let name = dir.names("fresh").remove(0);
    fs::remove_file(dir.stacker.fresh().join(name)).expect("a record");
    Record::new(&action(3), &result(3, 300), "earlier").write_fresh(&dir.stacker).expect("a record");
    drop(database);
    dir.alter(
        "UPDATE boot SET id = 'earlier'; UPDATE result SET boot = 'earlier';
         UPDATE layer SET boot = 'earlier'; UPDATE blob SET boot = 'earlier';",
    );
    let database = dir.open();
    assert_eq!(database.result(&synced).expect("a query"), Some(result(1, 100)));
    assert_eq!(database.result(&renamed).expect("a query"), Some(result(2, 200)));
    assert_eq!(database.result(&lost).expect("a query"), None);
    assert_eq!(database.layer(&DiffId([3; 32])).expect("a query"), None);
    assert_eq!(database.blobs(&DiffId([1; 32])).expect("a query"), [BlobDigest([1; 32])]);
    assert_eq!(database.blobs(&DiffId([2; 32])).expect("a query"), []);
    assert_eq!(dir.names("fresh"), [""; 0], "records of the other boot are gone");
    // Nor does a rebuilt database bring it back.
    drop(database);
    fs::remove_file(dir.stacker.database()).expect("the file");
    let (database, _) = dir.open_with_warning();
    assert_eq!(database.result(&lost).expect("a query"), None);
    assert!(database.result(&renamed).expect("a query").is_some());
}

#[test]
fn a_use_is_noted_but_not_over_and_over() {
    let dir = Dir::new();
    let database = dir.open();
    let keys = [finish(&database, 1, &result(1, 1)), finish(&database, 2, &result(2, 1))];
    let now = || database.list().expect("a query").iter().map(|row| row.last_used).max().expect("a row");
    let used = |key: Key| {
        let rows = database.list().expect("a query");
        rows.into_iter().find(|row| row.key == key).expect("a row").last_used
    };
    let recent = now() - 600;
    dir.alter(&format!("UPDATE result SET last_used = {recent}"));
    let touch = |keys: &[Key]| {
        for key in keys {
            database.result(key).expect("a query");
        }
        database.note_uses().expect("a write");
    };
    touch(&keys);
    assert_eq!((used(keys[0]), used(keys[1])), (recent, recent), "ten minutes are not worth a write");
    dir.alter(&format!("UPDATE result SET last_used = {}", recent - 7200));
    touch(&[keys[1], action(9).key()]);
    assert_eq!(used(keys[0]), recent - 7200);
    assert!(used(keys[1]) >= recent + 600);
    assert_eq!(database.list().expect("a query")[0].key, keys[1], "used last, listed first");
}

#[test]
fn the_last_actions_of_layers_are_remembered_by_stackerfile() {
    let dir = Dir::new();
    let database = dir.open();
    let (one, two) = (finish(&database, 1, &result(1, 1)), finish(&database, 2, &result(2, 2)));
    assert_eq!(database.last_actions("/a/stacker.yaml", "app").expect("a query"), []);
    database.put_last_actions("/a/stacker.yaml", "app", &[one, two]).expect("a write");
    database
        .put_all_last_actions(&[("/b/stacker.yaml", "app", &[two]), ("/b/stacker.yaml", "lib", &[two])])
        .expect("a write");
    assert_eq!(database.last_actions("/a/stacker.yaml", "app").expect("a query"), [one, two]);
    assert_eq!(database.last_actions("/b/stacker.yaml", "app").expect("a query"), [two]);
    assert_eq!(database.last_actions_anywhere("app").expect("a query"), [two], "the one built last");
    assert_eq!(database.last_actions_anywhere("gone").expect("a query"), []);
    let rows = database.list().expect("a query");
    let layers = |key| rows.iter().find(|row| row.key == key).expect("a row").layers.clone();
    assert_eq!((layers(one), layers(two)), (vec!["app".to_owned()], vec!["app".to_owned(), "lib".to_owned()]));
}

#[test]
fn answers_blobs_and_stat_lists_read_back() {
    let dir = Dir::new();
    let database = dir.open();
    let (chain, diff_id, blob) = (ChainId([1; 32]), DiffId([2; 32]), BlobDigest([3; 32]));
    database.put_answer(&chain, "tree /x", "yes").expect("a write");
    assert_eq!(database.answer(&chain, "tree /x").expect("a query").as_deref(), Some("yes"));
    assert_eq!(database.answer(&ChainId::SCRATCH, "tree /x").expect("a query"), None);
    database.put_blob(&diff_id, "gzip-6/1", &blob, 1 << 40).expect("a write");
    assert_eq!(database.blob(&diff_id, "gzip-6/1").expect("a query"), Some((blob, 1 << 40)));
    assert_eq!(database.blob(&diff_id, "gzip-6/2").expect("a query"), None);
    let path = Path::new("/src/größe");
    database.put_stat_list(path, u64::MAX, vec![0, 255]).expect("a write");
    assert_eq!(database.stat_list(path, u64::MAX).expect("a query"), Some(vec![0, 255]));
    assert_eq!(database.stat_list(path, 1).expect("a query"), None, "another file system");
    database.drop_stat_list(path, u64::MAX).expect("a write");
    assert_eq!(database.stat_list(path, u64::MAX).expect("a query"), None);
}

#[test]
fn many_may_open_and_write_at_the_same_time() {
    let dir = Dir::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let stacker = &dir.stacker;
            scope.spawn(move || {
                let (database, warnings) = Database::open(stacker).expect("the database opens");
                assert!(warnings.is_empty(), "{warnings:?}");
                finish(&database, number, &result(number, 1));
            });
        }
    });
    assert_eq!(dir.open().list().expect("a query").len(), 8);
}

#[test]
fn builds_and_evictions_are_remembered() {
    let dir = Dir::new();
    let database = dir.open();
    let row = BuildRow {
        begun: 1_700_000_000_123,
        command: vec!["build".to_owned(), "--all".to_owned()],
        directory: PathBuf::from("/src"),
        commit: Some("1234abcd".to_owned()),
        jobs: 4,
        ..BuildRow::default()
    };
    let id = database.put_build(&row).expect("a build");
    let step = BuiltStep {
        scope: "/src/stacker.yaml".to_owned(),
        layer: "app".to_owned(),
        step: "run".to_owned(),
        key: Some(action(1).key()),
        reason: None,
        begun: 0.5,
        seconds: None,
        slot: 1,
        ..BuiltStep::default()
    };
    database.put_step(id, 0, &step).expect("a step");
    let ended = BuiltStep { seconds: Some(2.0), outcome: Some("built".to_owned()), ..step };
    database.put_step(id, 0, &ended).expect("a step");
    assert_eq!(database.build(id).expect("a query"), Some(row.clone()));
    let totals = Totals { layers: 1, built: 1, ..Totals::default() };
    let over = BuildRow { seconds: Some(2.5), outcome: Some(0), totals, digest: Some([7; 32]), ..row };
    let places = vec!["/stacker/imports/x".to_owned()];
    let needed = Needed { layer: 3, need: Need::Import, step: Some(1), places };
    let layer = BuiltLayer {
        scope: "/src/stacker.yaml".to_owned(),
        layer: "app".to_owned(),
        needs: vec![needed],
        keys: vec![action(1).key(), action(2).key()],
        diff_ids: vec![None, Some(DiffId([1; 32]))],
        chain: Some(ChainId([2; 32])),
        image: Some("docker://example.com/base:1@sha256:00".to_owned()),
        status: "built".to_owned(),
        seconds: 2.0,
    };
    database.end_build(id, &over, std::slice::from_ref(&layer)).expect("the end");
    assert_eq!(database.build_like(&[7; 32]).expect("a query"), Some(id));
    let again = BuildRow { same_as: Some(id), ..over.clone() };
    let second = database.put_build(&again).expect("a build");
    assert_eq!(database.builds(9).expect("a query"), [(second, again), (id, over)]);
    assert_eq!(database.build_like(&[7; 32]).expect("a query"), Some(id));
    assert_eq!(database.build_layers(id).expect("a query"), [layer]);
    assert_eq!(database.build_steps(id).expect("a query"), [ended]);
    assert_eq!(database.evicted(&action(1).key()).expect("a query"), None);
    let key = finish(&database, 1, &result(1, 100));
    database.forget(&key, &Cause::OlderThan { seconds: 60 }).expect("it is forgotten");
    let evicted = database.evicted(&key).expect("a query").expect("a row");
    let Evicted { cause, diff_id, seconds, created, .. } = evicted;
    assert_eq!((cause, diff_id), (Cause::OlderThan { seconds: 60 }, result(1, 100).diff_id));
    assert_eq!((seconds, created), (result(1, 100).seconds, 100));
    assert_eq!(database.result(&key).expect("a query"), None);
}

#[test]
fn so_many_builds_are_kept() {
    let dir = Dir::new();
    let database = dir.open();
    let layers = |hits| Totals { layers: hits, hits, ..Totals::default() };
    let put = |hits, same_as| {
        database.put_build(&BuildRow { totals: layers(hits), same_as, ..BuildRow::default() }).expect("a build")
    };
    // Each with 100 layers, and one in ten that did nothing and is the same as the first.
    let first = put(100, None);
    database.put_step(first, 0, &BuiltStep::default()).expect("a step");
    let second = put(100, None);
    database.put_step(second, 0, &BuiltStep::default()).expect("a step");
    while put(100, None) % 10 != 9 || put(100, Some(first)) < 1600 {}
    let kept = database.builds(10_000).expect("a query");
    let (newest, oldest) = (kept[0].0, kept[kept.len() - 2].0);
    assert_eq!((newest, oldest, kept.len()), (1600, 601, 1001));
    // What others are the same as is kept with them.
    assert_eq!(kept.last().expect("builds").0, first);
    assert_eq!(
        (database.build_steps(first).expect("a query").len(), database.build(second).expect("a query")),
        (1, None)
    );
    assert_eq!(database.build_steps(second).expect("a query"), []);
    // Fewer, where each is large.
    while put(50_000, None) % 32 != 0 {}
    let kept = database.builds(10_000).expect("a query");
    assert_eq!((kept.len(), kept[0].0), (4, 1632));
}
