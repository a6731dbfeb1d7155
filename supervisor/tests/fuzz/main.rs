//! What others wrote, and the supervisor reads: whatever is in it, nothing panics, and nothing takes more memory than
//! its bound.
//!
//! `tests/corpus` holds one small directory of real files for each reader. A test reads each file as it is, then
//! a thousand mutations, the same in each run. For others, and for longer:
//!
//! ```text
//! BOLERO_RANDOM_TEST_TIME_MS=600000 cargo test -p openclaw-supervisor --test fuzz
//! ```
//!
//! The input that failed last, and in the longer run is shrunk, is left in `target/tmp/fuzz-NAME`; put into the corpus
//! it is read for ever.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod heap;
mod input;
mod readers;
mod state;

use std::{env, fs, panic::RefUnwindSafe, path::Path};

use input::Input;

/// Mutations that every run reads: some seconds for all readers together.
const USUAL: u32 = 1_000;

/// Set where chance is wanted.
const CHANCE: &str = "BOLERO_RANDOM_TEST_TIME_MS";

/// What reading may take: so many bytes, and so many more for each byte of the input.
#[derive(Debug, Clone, Copy)]
struct Bound {
    fixed: usize,
    per_byte: usize,
}

/// Tries `read` with the corpus called `name`, and with mutations of it, in which `tokens` turn up.
fn fuzz(name: &str, tokens: &[&str], bound: Bound, read: impl Fn(&[u8]) + RefUnwindSafe) {
    let corpus = corpus(name);
    let attempt = |bytes: &[u8]| {
        let kept = Kept { name, bytes };
        let peak = heap::peak(|| read(bytes));
        let most = bound.fixed + bound.per_byte * bytes.len();
        assert!(peak <= most, "{} bytes of input took {peak} bytes; at most {most}", bytes.len());
        drop(kept);
    };
    corpus.iter().for_each(|bytes| attempt(bytes));
    if env::var_os(CHANCE).is_none() {
        return (0..USUAL).for_each(|number| attempt(&Input::number(number).bytes(&corpus, tokens)));
    }
    bolero::check!(name = name).with_type::<Input>().for_each(|input| attempt(&input.bytes(&corpus, tokens)));
}

/// The files of one reader, in their order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// An input that is left behind if reading it panics.
struct Kept<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", self.name));
            let _ = fs::write(path, self.bytes);
        }
    }
}
