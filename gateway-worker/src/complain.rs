//! Words for the operator, on standard error, which the supervisor has given a file.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

/// Writes one line. A standard error that cannot be written to is no reason to end a gateway, so unlike
/// `eprintln!` this does not panic then.
pub(crate) fn complain(what: fmt::Arguments<'_>) {
    let line = format!("gateway-worker: {what}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
