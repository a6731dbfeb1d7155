//! Words for the operator, on standard error, which the supervisor has given a file.

use std::fmt;
use std::io::{self, Write};

/// Writes one line. A standard error that cannot be written to is no reason to end a gateway, so unlike
/// `eprintln!` this does not panic then.
pub(crate) fn complain(what: fmt::Arguments<'_>) {
    let line = format!("gateway-worker: {what}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
