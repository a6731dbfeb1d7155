//! What a terminal can show: UTF-8 or, where its locale does not say so, ASCII.

use std::{borrow::Cow, env, sync::LazyLock};

static UTF8: LazyLock<bool> = LazyLock::new(|| {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.into_iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty());
    is_utf8_locale(&locale.unwrap_or_default())
});

fn is_utf8_locale(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Whether the locale is one of UTF-8.
pub(crate) fn is_utf8() -> bool {
    *UTF8
}

/// `text` for a terminal of this locale: as wide as it was.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if is_utf8() || text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(ascii(text)) }
}

/// `text` with the nearest that ASCII has.
fn ascii(text: &str) -> String {
    let near = |c: char| match c {
        c if c.is_ascii() => c,
        '…' => '~',
        '–' | '—' => '-',
        '‘' | '’' => '\'',
        '“' | '”' => '"',
        '→' => '>',
        _ => '?',
    };
    text.chars().map(near).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ascii_has_not_is_told_by_what_it_has() {
        assert_eq!(ascii("killed by SIG… – “ü” → done"), "killed by SIG~ - \"?\" > done");
    }

    #[test]
    fn a_locale_of_utf_8_says_so() {
        assert!(["C.UTF-8", "de_DE.utf8", "en_US.UTF-8"].into_iter().all(is_utf8_locale));
        assert!(!["", "C", "POSIX", "en_US.ISO-8859-1"].into_iter().any(is_utf8_locale));
    }
}
