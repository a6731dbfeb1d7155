//! What processes show of themselves in `/proc`.
//!
//! A process makes its command line and its environment as long as it likes, a terabyte of zeros that takes no place
//! (prctl(2), PR_SET_MM_MAP), and everybody may read the one. So no more is read than something is looked for in.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Of a command line.
pub(crate) const COMMAND: u64 = 16 << 10;

/// Of an environment. Those of agents are a few KiB.
pub(crate) const ENVIRONMENT: u64 = 256 << 10;

/// So much of a file, at most.
pub(crate) fn read(file: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(file)?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// The same where a process that has ended, or is hidden, shows nothing.
pub(crate) fn look(file: impl AsRef<Path>, most: u64) -> Vec<u8> {
    read(file, most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_read_to_where_it_was_to_be() {
        assert_eq!(read("/dev/zero", 7).unwrap(), [0; 7]);
        assert!(look("/proc/none/cmdline", COMMAND).is_empty());
    }
}
