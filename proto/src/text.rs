//! What agents have written stands in messages as it is. Whoever shows it to people leaves some of it out.

/// Whether people who read this character's surroundings could take them for something else: a control character, which
/// orders a terminal about; one that ends a line; one that turns the direction of what stands around it (Unicode's
/// `Bidi_Control`).
#[must_use]
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::misleads;

    #[test]
    fn letters_of_all_scripts_are_shown_and_what_turns_them_is_not() {
        assert!(!"aä中ع🦞\u{200d}".chars().any(misleads));
        assert!("\u{1b}\n\u{85}\u{61c}\u{200f}\u{2029}\u{202e}\u{2066}".chars().all(misleads));
    }
}
