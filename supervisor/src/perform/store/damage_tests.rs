//! What damages a store, on real files: it is put aside, and nothing that was copied is lost.

use std::{
    io::{Read, Seek, SeekFrom, Write as _},
    os::unix::fs::FileExt,
};

use nix::fcntl::{Flock, FlockArg};
use supervisor_core::{
    action::Launch, action::Write, fence::Channels, ids::Incarnation, ladder::Purpose, ports::Block,
    record::Wish,
};
use tempfile::TempDir;

use super::{
    tests::{KEEP, Open, batch, begin, name, record, sqlite},
    *,
};

/// Bits flipped in one run of the test; each run begins elsewhere.
const FLIPS: u64 = 150;

/// A store that was written to, copied and closed: two instances, at revision 5.
fn closed() -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    open.store.persist(batch(5, vec![Write::Put(of("main", 18_789)), Write::Put(of("rescue", 19_789))]));
    open.stored(5);
    finish(open);
    directory
}

fn of(name: &str, base: u16) -> Record {
    Record { block: Block { base }, ..record(name, 3) }
}

/// Ends a store; its last act is a copy.
fn finish(open: Open) {
    let Open { store, reports } = open;
    drop(reports);
    store.finish();
}

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join(FILE)
}

fn aside(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(".damaged-")).collect()
}

/// The newest event's severity, type and message.
fn last_event(directory: &TempDir) -> (i64, String, String) {
    let sql = "SELECT severity, type, message FROM events ORDER BY revision DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    sqlite(directory).query_row(sql, [], row).unwrap()
}

/// The next supervisor finds what was copied, and the alarm says what happened.
fn assert_restored(directory: &TempDir, why: &str) -> Restored {
    let restored = begin(directory);
    let known: Vec<_> = restored.records.iter().map(|record| (&*record.name, record.block.base)).collect();
    assert_eq!(known, [("main", 18_789), ("rescue", 19_789)]);
    for record in &restored.records {
        assert!(record.reserved > Incarnation(50_000), "numbers used since the copy are used again");
    }
    let (severity, kind, message) = last_event(directory);
    assert_eq!((severity, kind.as_str()), (3, "supervisor.store_damaged"));
    assert!(message.contains(why), "{message}");
    assert!(restored.epoch > 1_000 && restored.revision.0 > 1_000_000, "{restored:?}");
    restored
}

/// The one file put aside is `damaged`, byte for byte.
fn assert_kept(directory: &TempDir, damaged: &[u8]) {
    let kept: Vec<PathBuf> =
        aside(directory).into_iter().filter(|path| path.extension().is_some_and(|e| e != "wal")).collect();
    let [kept] = kept.iter().filter(|path| !path.to_string_lossy().ends_with("-wal")).collect::<Vec<_>>()[..]
    else {
        panic!("{kept:?}")
    };
    assert_eq!(fs::read(kept).unwrap(), damaged);
    assert!(last_event(directory).2.contains(&*kept.to_string_lossy()), "the alarm names it");
}

fn damage(directory: &TempDir, how: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = fs::read(path(directory)).unwrap();
    how(&mut bytes);
    fs::write(path(directory), &bytes).unwrap();
    bytes
}

#[test]
fn a_file_of_garbage_is_kept_and_answered_from_its_copy() {
    let directory = closed();
    let damaged = damage(&directory, |bytes| *bytes = b"no database".repeat(1_000));
    assert_restored(&directory, "file is not a database");
    assert_kept(&directory, &damaged);
}

#[test]
fn a_file_of_zeros_is_kept_and_answered_from_its_copy() {
    let directory = closed();
    let damaged = damage(&directory, |bytes| bytes.fill(0));
    assert_restored(&directory, "");
    assert_kept(&directory, &damaged);
}

#[test]
fn an_empty_file_is_not_taken_for_a_new_one() {
    let directory = closed();
    let damaged = damage(&directory, Vec::clear);
    assert_restored(&directory, "it is empty");
    assert_kept(&directory, &damaged);
}

#[test]
fn a_missing_file_is_not_taken_for_a_new_one() {
    let directory = closed();
    fs::remove_file(path(&directory)).unwrap();
    assert_restored(&directory, "it is missing");
    assert!(aside(&directory).is_empty());
}

#[test]
fn a_file_cut_short_anywhere_is_kept_and_answered_from_its_copy() {
    for pages in 1..5 {
        let directory = closed();
        let damaged = damage(&directory, |bytes| bytes.truncate(pages * 4096 - 100));
        assert_restored(&directory, "");
        assert_kept(&directory, &damaged);
    }
}

#[test]
fn a_record_that_cannot_be_understood_is_answered_from_the_copy() {
    let directory = closed();
    file::put_record(&sqlite(&directory), "main", "sesame").unwrap();
    assert_restored(&directory, "the record of `main` cannot be understood");
    let (.., message) = last_event(&directory);
    assert!(!message.contains("sesame"), "it may hold secrets: {message}");
}

#[test]
fn a_record_changed_behind_the_supervisors_back_is_answered_from_the_copy() {
    let directory = closed();
    let change = "UPDATE instances SET record = replace(record, '18789', '18790') WHERE name = 'main'";
    assert_eq!(sqlite(&directory).execute(change, []).unwrap(), 1);
    assert_restored(&directory, "the record of `main` is not what was written");
}

#[test]
fn a_store_without_its_log_is_older_than_its_copy_and_answered_from_that() {
    let directory = TempDir::new().unwrap();
    let mut open = Open::new(&directory, KEEP);
    // Whoever reads keeps the log from being emptied into the file.
    let reader = sqlite(&directory);
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    open.store.persist(batch(5, vec![Write::Put(of("main", 18_789)), Write::Put(of("rescue", 19_789))]));
    open.stored(5);
    finish(open);
    let without = TempDir::new().unwrap();
    for file in [FILE.to_owned(), format!("{FILE}.good")] {
        fs::copy(directory.path().join(&file), without.path().join(&file)).unwrap();
    }
    assert_restored(&without, "");
}

#[test]
fn damage_met_by_a_write_is_told_and_mended_by_the_next_supervisor() {
    let directory = closed();
    let mut open = Open::new(&directory, KEEP);
    let other = sqlite(&directory);
    file::put_meta(&other, "nobody", "needs this").unwrap();
    other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let store = fs::File::options().write(true).open(path(&directory)).unwrap();
    let size = usize::try_from(store.metadata().unwrap().len()).unwrap();
    // All but the first page, which says what the others are.
    store.write_all_at(&vec![0xa5; size - 4096], 4096).unwrap();
    open.store.persist(batch(6, vec![Write::Put(of("main", 18_789))]));
    assert!(open.failing().contains("restart the supervisor, which restores the last good copy"));
    open.store.finish();
    drop(open);
    assert_restored(&directory, "malformed");
    assert!(copy::suspicion(&path(&directory)).is_none());
}

#[test]
fn a_flipped_bit_anywhere_changes_nothing_or_is_noticed() {
    let seed = u64::from(std::process::id());
    let pristine = closed();
    let size = fs::metadata(path(&pristine)).unwrap().len();
    let mut noticed = 0;
    for flip in 0..FLIPS {
        let bit = (seed.wrapping_mul(0x9e37_79b9).wrapping_add(flip * 7_919 * 31)) % (size * 8);
        let directory = TempDir::new().unwrap();
        for file in [FILE.to_owned(), format!("{FILE}.good")] {
            fs::copy(pristine.path().join(&file), directory.path().join(&file)).unwrap();
        }
        let mut file = fs::File::options().read(true).write(true).open(path(&directory)).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(bit / 8)).unwrap();
        file.read_exact(&mut byte).unwrap();
        byte[0] ^= 1 << (bit % 8);
        file.seek(SeekFrom::Start(bit / 8)).unwrap();
        file.write_all(&byte).unwrap();
        drop(file);
        match open(directory.path(), ("boot", 7)) {
            Ok((_, restored)) => {
                let known: Vec<_> =
                    restored.records.iter().map(|r| (&*r.name, r.block.base, r.generation)).collect();
                assert_eq!(known, [("main", 18_789, 3), ("rescue", 19_789, 3)], "bit {bit}");
                assert!(restored.epoch > 1, "bit {bit}");
                noticed += u32::from(!aside(&directory).is_empty());
            }
            // The bit was one of the version's.
            Err(StoreError::Newer { .. }) => noticed += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert!(noticed > 0, "no flip was noticed at all");
}

#[test]
fn a_damaged_copy_is_replaced_and_harms_nobody() {
    let directory = closed();
    fs::write(copy::path_of(&path(&directory)), "no database").unwrap();
    let open = Open::new(&directory, KEEP);
    finish(open);
    assert!(aside(&directory).is_empty());
    let copied = copy::read(&copy::path_of(&path(&directory))).unwrap().unwrap();
    assert_eq!((copied.epoch, copied.records.len()), (2, 2));
}

#[test]
fn without_a_good_copy_a_damaged_store_is_refused_by_name_and_left_as_it_is() {
    let directory = closed();
    let damaged = damage(&directory, |bytes| bytes.fill(b'x'));
    fs::write(copy::path_of(&path(&directory)), "no database").unwrap();
    let said = open(directory.path(), ("boot", 7)).unwrap_err().to_string();
    for expected in [FILE, "supervisor.db.good", "move both aside", "gateways that run are not affected"] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(fs::read(path(&directory)).unwrap(), damaged);
}

#[test]
fn only_the_last_few_damaged_stores_are_kept() {
    let directory = closed();
    for _ in 0..8 {
        damage(&directory, |bytes| bytes.fill(b'x'));
        finish(Open::new(&directory, KEEP));
    }
    assert_eq!(aside(&directory).len(), 5);
}

/// Leaves what a launch leaves, and a worker if there is to be one.
fn launched(
    directory: &TempDir,
    of: &str,
    base: u16,
    incarnation: u64,
    alive: bool,
) -> Option<Flock<fs::File>> {
    launched_by(1, directory, of, base, incarnation, alive)
}

/// The same, by the supervisor of this epoch.
fn launched_by(
    epoch: u64,
    directory: &TempDir,
    of: &str,
    base: u16,
    incarnation: u64,
    alive: bool,
) -> Option<Flock<fs::File>> {
    let launch = Launch {
        channels: Channels::On,
        credentials: Arc::new([]),
        name: name(of),
        incarnation: Incarnation(incarnation),
        block: Block { base },
        previous_base: None,
        spec: "{}".into(),
        incidents: Vec::new(),
        purpose: Purpose::Serve,
        restore: None,
    };
    let run_dir = directory.path().join("run").join(of);
    let id: String =
        sqlite(directory).query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| row.get(0)).unwrap();
    leave_trace(&run_dir, &id, epoch, &launch).unwrap();
    let lock = fs::File::create(run_dir.join("worker.lock")).unwrap();
    alive.then(|| Flock::lock(lock, FlockArg::LockExclusive).unwrap())
}

#[test]
fn what_was_launched_after_the_copy_wins_over_it() {
    let directory = closed();
    // Deleted and replaced since the copy: `lab` runs on ports that the copy gives to `rescue`.
    let _lab = launched(&directory, "lab", 19_780, 1, true);
    // Moved and started since the copy.
    let _main = launched(&directory, "main", 20_000, 77, true);
    // Created since, and dead.
    let _gone = launched(&directory, "gone", 21_000, 4, false);
    damage(&directory, |bytes| bytes.fill(b'x'));
    let restored = begin(&directory);
    let find = |of: &str| restored.records.iter().find(|record| *record.name == *of).unwrap();
    assert_eq!((find("main").block.base, find("main").wish), (20_000, Wish::Up));
    assert!(find("main").reserved > Incarnation(77));
    assert_eq!((find("lab").block.base, find("lab").wish), (19_780, Wish::Up));
    assert_eq!((find("gone").block.base, find("gone").wish), (21_000, Wish::Down));
    let blocks: Vec<Block> = restored.records.iter().map(|record| record.block).collect();
    for (at, block) in blocks.iter().enumerate() {
        assert!(blocks[..at].iter().all(|other| !other.overlaps(*block)), "{blocks:?}");
    }
    let (.., message) = last_event(&directory);
    for expected in [
        "`lab`, unknown to it, runs and is adopted",
        "`gone`, unknown to it, is kept stopped",
        "`rescue` has the ports",
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn without_any_copy_the_registry_is_what_the_workers_were_told() {
    let directory = closed();
    let id = begin(&directory).id;
    let _main = launched(&directory, "main", 18_789, 7, true);
    damage(&directory, |bytes| bytes.fill(b'x'));
    fs::remove_file(copy::path_of(&path(&directory))).unwrap();
    let restored = begin(&directory);
    assert_eq!(restored.id, id, "or no process would be known again");
    let [main] = restored.records.as_slice() else { panic!("{restored:?}") };
    assert_eq!((main.block.base, main.wish), (18_789, Wish::Up));
    assert!(main.reserved > Incarnation(7) && restored.epoch > 1);
}

#[test]
fn a_store_that_is_older_than_what_was_launched_is_damaged() {
    let directory = closed();
    fs::remove_file(copy::path_of(&path(&directory))).unwrap();
    let _main = launched(&directory, "main", 18_789, 101, true);
    let restored = begin(&directory);
    assert!(restored.records[0].reserved > Incarnation(101), "{restored:?}");
    assert!(last_event(&directory).2.contains("older than the last start of `main`"));
}

#[test]
fn what_a_deleted_namesake_or_a_life_on_a_full_disk_left_is_no_evidence_of_damage() {
    let directory = closed();
    // The store knows epoch 1 and numbers up to 100.
    let of_a_namesake = launched(&directory, "main", 18_789, 500, false);
    let _of_a_full_disk = launched_by(2, &directory, "rescue", 19_789, 100, true);
    assert!(of_a_namesake.is_none());
    assert_eq!(begin(&directory).records[0].reserved, Incarnation(100));
    assert!(aside(&directory).is_empty());
}

#[test]
fn a_store_that_knows_fewer_supervisors_than_have_launched_is_damaged() {
    let directory = closed();
    let _gone = launched_by(3, &directory, "main", 18_789, 1, false);
    assert_restored(&directory, "older than the last start of `main`");
}

#[test]
fn every_schema_ever_shipped_is_upgraded_with_all_that_was_in_it() {
    let directory = TempDir::new().unwrap();
    let first = include_str!("../../../tests/fixtures/store-1.sql");
    sqlite(&directory).execute_batch(first).unwrap();
    let restored = begin(&directory);
    let known: Vec<_> = restored.records.iter().map(|r| (&*r.name, r.block.base, r.launched)).collect();
    assert_eq!(known, [("main", 33_000, Incarnation(1)), ("rescue", 33_020, Incarnation(1))]);
    assert_eq!((restored.epoch, restored.id.as_str()), (2, "01a1fe3867aa70baac8f626972afc906"));
    assert_eq!(restored.revision, Revision(10_017));
    assert!(aside(&directory).is_empty());
    let db = sqlite(&directory);
    let schema: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let events: i64 = db.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!((schema, events), (SCHEMA, 15));
    // And the next one finds it as it left it.
    assert_eq!(begin(&directory).records, restored.records);
    assert!(aside(&directory).is_empty());
}
