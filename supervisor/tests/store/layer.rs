//! The layer between a supervisor and its disk; `layer.c` says what it does.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use nix::fcntl::{Flock, FlockArg};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails with EIO.
    Fail,
    /// It finds no room.
    Full,
    /// The disk has become read-only.
    ReadOnly,
    /// Half of it is done.
    Short,
    /// It is the supervisor's last, and not begun.
    KillBefore,
    /// It is the supervisor's last, and done: a write by half.
    KillAfter,
}

/// Which call it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When<'a> {
    /// The call of this number.
    At(u64),
    /// All, as long as this file exists.
    While(&'a Path),
}

/// The layer, compiled once for all tests of this file's process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/layer.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store-layer.so");
        // Other processes may run the same tests: one compiles, and none loads half a library.
        let lock = File::create(library.with_extension("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let new = library.with_extension(format!("new-{}", std::process::id()));
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut compile = Command::new(compiler);
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&new).arg(&source);
        let status = compile.arg("-ldl").status().expect("a C compiler, which SQLite needs as well");
        assert!(status.success(), "{source:?} does not compile");
        fs::rename(new, &library).unwrap();
        library
    })
}

/// Counts the calls of one supervisor.
pub(crate) struct Count {
    file: PathBuf,
}

impl Count {
    pub(crate) fn new(directory: &Path) -> Self {
        let file = directory.join("calls");
        fs::write(&file, [0; 8]).unwrap();
        Self { file }
    }

    pub(crate) fn so_far(&self) -> u64 {
        u64::from_le_bytes(fs::read(&self.file).unwrap().try_into().unwrap())
    }
}

/// Puts the layer under a supervisor that is to be started.
pub(crate) fn put_under(command: &mut Command, fault: Fault, when: When<'_>, count: &Count) {
    let (word, errno) = match fault {
        Fault::Fail => ("fail", nix::libc::EIO),
        Fault::Full => ("fail", nix::libc::ENOSPC),
        Fault::ReadOnly => ("fail", nix::libc::EROFS),
        Fault::Short => ("short", nix::libc::ENOSPC),
        Fault::KillBefore => ("kill-before", 0),
        Fault::KillAfter => ("kill-after", 0),
    };
    command.env("LD_PRELOAD", library());
    command.env("STORE_FAULT", word).env("STORE_FAULT_ERRNO", errno.to_string());
    command.env("STORE_FAULT_COUNT", OsStr::new(&count.file));
    match when {
        When::At(number) => command.env("STORE_FAULT_AT", number.to_string()),
        When::While(file) => command.env("STORE_FAULT_WHILE", file),
    };
}
