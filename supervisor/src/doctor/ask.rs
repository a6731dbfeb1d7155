//! Asks a program for one line.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

/// More than one line is not expected.
const MOST_BYTES: u64 = 4 << 10;

/// What `program` prints, without white space around it; `None` if it cannot be had.
///
/// It is ended after five seconds by timeout(1), so that no signal has to be sent from here: the supervisor reaps
/// all its children at once, and their pids may be others' then.
pub(super) fn ask(program: &Path, args: &[&str]) -> Option<String> {
    let mut child = Command::new("timeout")
        .args(["-k", "1", "5"])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.take(MOST_BYTES).read_to_string(&mut text);
    // It may have been reaped already.
    let _ = child.wait();
    read.ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_for_a_line() {
        assert_eq!(ask(Path::new("echo"), &["v24.21.0"]).as_deref(), Some("v24.21.0"));
        assert_eq!(ask(Path::new("/nowhere"), &[]), None);
        assert_eq!(ask(Path::new("true"), &[]), None);
    }
}
