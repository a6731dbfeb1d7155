//! What people are told to type, as they can type it.
//!
//! Names are often an agent's, or another user's: what a shell would run in one is quoted, so that whoever does as he is
//! told does no more.

use std::ffi::OsStr;

/// A name or a path as one word of a shell's command line.
pub(crate) fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_typed_as_it_is_shown() {
        assert_eq!(word("/home/me/.openclaw"), "/home/me/.openclaw");
        assert_eq!(word("/home/my bot's"), r"'/home/my bot'\''s'");
        assert_eq!(word("/srv/$(reboot);`reboot`"), "'/srv/$(reboot);`reboot`'");
        assert_eq!(word(""), "''");
    }
}
