//! OpenClaw's database, shown to a version that is to take it over.
//!
//! A database is opened by its path, and by what lies beside it. An agent that swaps directories for links meanwhile
//! would be shown a neighbour's, and SQLite does what its journal says. So the copy is made by a process of its own,
//! behind the walls that the agent is behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{prepare::Host, reach};
use crate::tool::Tool;

/// The first argument by which the supervisor's program does this and nothing else.
pub const CONSOLIDATE: &str = "consolidate";

/// That program, beside the worker. By its own word a process has been run from a file that an update has removed since.
const DAEMON: &str = "openclaw-supervisor";

/// What it prints then.
const DONE: &str = "done";

/// Its writer may hold the database for a moment.
const BUSY: Duration = Duration::from_secs(30);

/// A database may have gigabytes.
const MOST: Duration = Duration::from_secs(180);

/// Has `database` copied by a program in the surroundings of `tool`, and behind its walls.
pub(crate) fn consolidated_by(host: &Host, tool: &Tool, database: &Path, copy: &Path) -> Result<(), String> {
    let program = host.beside_daemon.join(DAEMON);
    if let Some(user) = tool.user() {
        reach::look(&user, &program).map_err(|barred| barred.to_string())?;
    }
    let mut tool = tool.clone();
    if let Some(inside) = &mut tool.inside
        && !inside.walls.read.is_empty()
    {
        inside.walls.read.push(program.to_string_lossy().into_owned());
    }
    tool.args =
        [Path::new(CONSOLIDATE), database, copy].map(|word| word.to_string_lossy().into_owned()).into();
    tool.program = program;
    match tool.run(MOST) {
        Some(ran) if ran.status == 0 && ran.output == DONE => Ok(()),
        Some(ran) => Err(ran.output),
        None => Err(format!("it could not be copied, or not within {} s", MOST.as_secs())),
    }
}

/// What the supervisor's program does with the arguments after [`CONSOLIDATE`]: makes one file that holds all that a
/// database does, whoever writes to it meanwhile.
pub fn consolidate(mut arguments: impl Iterator<Item = PathBuf>) -> Result<(), String> {
    let (Some(database), Some(copy)) = (arguments.next(), arguments.next()) else {
        return Err(format!("`{CONSOLIDATE}` takes a database and the name of its copy"));
    };
    consolidated(&database, &copy).map_err(|error| error.to_string())?;
    println!("{DONE}");
    Ok(())
}

fn consolidated(database: &Path, copy: &Path) -> Result<(), rusqlite::Error> {
    let _ = fs::remove_file(copy);
    // What is copied is shown to the agent, which may have put a link in its place.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let source = Connection::open_with_flags(database, flags)?;
    source.busy_timeout(BUSY)?;
    source.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_written_to_is_shown_as_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let (database, copy) = (directory.path().join("a.sqlite"), directory.path().join("b.sqlite"));
        let writer = Connection::open(&database).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "user_version", 7).unwrap();
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        for _ in 0..2 {
            consolidated(&database, &copy).unwrap();
            let shown = Connection::open(&copy).unwrap();
            assert_eq!(shown.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
            assert_eq!(shown.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        }
        assert!(!directory.path().join("b.sqlite-wal").exists());
    }

    #[test]
    fn a_link_that_an_agent_puts_in_place_of_the_database_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().canonicalize().unwrap().join(name);
        Connection::open(at("others.sqlite")).unwrap().execute_batch("CREATE TABLE secret (x)").unwrap();
        std::os::unix::fs::symlink(at("others.sqlite"), at("openclaw.sqlite")).unwrap();
        consolidated(&at("openclaw.sqlite"), &at("copy.sqlite")).unwrap_err();
        assert!(!at("copy.sqlite").exists());
    }
}
