//! What a terminal sends, as keys.
//!
//! It is read here and not by crossterm, which reads without end once a terminal has hung up, and blocks on half a
//! sequence. Pasted text is told apart from typed text: nothing that somebody pastes by mistake restarts a gateway.

/// The longest sequence of one key; what is longer is nobody's.
const LONGEST: usize = 32;
/// The most of a pasted text that is kept.
const MOST_PASTED: usize = 256;

const ESC: u8 = 0x1b;
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// A key, as far as this program has a use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Backspace,
    Char(char),
    /// With Ctrl held; the letter in lower case.
    Ctrl(char),
    Pasted(String),
}

/// Turns bytes into keys, however they come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
    pasted: Option<Vec<u8>>,
}

/// What the beginning of the bytes is.
enum Step {
    /// So many bytes, which are a key, or one that nobody needs.
    Key(usize, Option<Key>),
    /// More bytes may follow that belong to it.
    Unfinished,
}

impl Decoder {
    /// Takes in what was read and gives the keys that it completes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for byte in bytes {
            self.pending.push(*byte);
            self.advance(&mut keys);
        }
        keys
    }

    /// Whether a key may have begun that is not complete: a lone ESC may be the key or begin a sequence.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty() && self.pasted.is_none()
    }

    /// Nothing has followed: what is there is all.
    pub(crate) fn give_up(&mut self) -> Option<Key> {
        let alone = self.pending == [ESC];
        self.pending.clear();
        alone.then_some(Key::Esc)
    }

    fn advance(&mut self, keys: &mut Vec<Key>) {
        if let Some(pasted) = &mut self.pasted {
            pasted.append(&mut self.pending);
            if pasted.ends_with(PASTE_ENDS) {
                let text = &pasted[..pasted.len() - PASTE_ENDS.len()];
                let text = String::from_utf8_lossy(&text[..text.len().min(MOST_PASTED)]).into_owned();
                self.pasted = None;
                keys.push(Key::Pasted(text));
            } else if pasted.len() > MOST_PASTED + PASTE_ENDS.len() {
                // The end has to be seen; what lies between is not kept.
                pasted.remove(MOST_PASTED);
            }
            return;
        }
        if self.pending == PASTE_BEGINS {
            self.pending.clear();
            self.pasted = Some(Vec::new());
            return;
        }
        while let Some(first) = self.pending.first() {
            let step = match *first {
                ESC => sequence(&self.pending),
                other => plain(other, &self.pending),
            };
            match step {
                Step::Key(length, key) => {
                    self.pending.drain(..length);
                    keys.extend(key);
                }
                Step::Unfinished if self.pending.len() < LONGEST => return,
                Step::Unfinished => self.pending.clear(),
            }
        }
    }
}

/// A key that is a character.
fn plain(first: u8, bytes: &[u8]) -> Step {
    let key = match first {
        b'\r' | b'\n' => Key::Enter,
        0x08 | 0x7f => Key::Backspace,
        // Ctrl with a letter sends its place in the alphabet.
        1..=26 => Key::Ctrl(char::from(first - 1 + b'a')),
        0..0x20 => return Step::Key(1, None),
        0x20..0x7f => Key::Char(char::from(first)),
        0x80.. => return beyond_ascii(bytes),
    };
    Step::Key(1, Some(key))
}

fn beyond_ascii(bytes: &[u8]) -> Step {
    match std::str::from_utf8(bytes) {
        Ok(text) => Step::Key(bytes.len(), text.chars().next().map(Key::Char)),
        Err(error) if error.error_len().is_none() => Step::Unfinished,
        Err(_) => Step::Key(1, None),
    }
}

/// A key that begins with ESC: "CSI parameters final" or "SS3 final", as xterm and its like send them.
fn sequence(bytes: &[u8]) -> Step {
    match bytes {
        [] | [_] | [_, b'[' | b'O'] => Step::Unfinished,
        [_, b'O', last] => Step::Key(3, named(*last)),
        [_, b'[', rest @ ..] => match rest.iter().position(|byte| (0x40..=0x7e).contains(byte)) {
            None => Step::Unfinished,
            Some(end) => Step::Key(end + 3, numbered(&rest[..end], rest[end])),
        },
        // ESC twice is the key twice; with anything else it is Alt, which means nothing here.
        [_, ESC, ..] => Step::Key(1, Some(Key::Esc)),
        [_, _, ..] => Step::Key(2, None),
    }
}

fn numbered(parameters: &[u8], last: u8) -> Option<Key> {
    match (parameters, last) {
        (b"1" | b"7", b'~') => Some(Key::Home),
        (b"4" | b"8", b'~') => Some(Key::End),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        // `CSI … M` is a click, which nobody has asked for.
        (_, b'~' | b'M') => None,
        (_, last) => named(last),
    }
}

fn named(last: u8) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        b'M' => Some(Key::Enter),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        Decoder::default().feed(bytes)
    }

    #[test]
    fn the_keys_of_usual_terminals_are_known() {
        assert_eq!(keys(b"\x1b[A\x1bOA\x1b[1;5A"), [Key::Up, Key::Up, Key::Up]);
        assert_eq!(keys(b"\x1b[B\x1bOB"), [Key::Down, Key::Down]);
        assert_eq!(keys(b"\x1b[5~\x1b[6~"), [Key::PageUp, Key::PageDown]);
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1bOH\x1b[7~"), [Key::Home, Key::Home, Key::Home, Key::Home]);
        assert_eq!(keys(b"\x1b[F\x1b[4~\x1bOF\x1b[8~"), [Key::End, Key::End, Key::End, Key::End]);
        assert_eq!(keys(b"\r\n\x7f\x08"), [Key::Enter, Key::Enter, Key::Backspace, Key::Backspace]);
        assert_eq!(keys(b"\x03q<"), [Key::Ctrl('c'), Key::Char('q'), Key::Char('<')]);
        assert_eq!(keys("é✓".as_bytes()), [Key::Char('é'), Key::Char('✓')]);
    }

    #[test]
    fn what_nobody_needs_is_passed_over_whole() {
        assert_eq!(keys(b"\x1b[15~\x1b[?62;c\x1b[<0;1;1M\x1bxq"), [Key::Char('q')]);
        assert_eq!(keys(b"\xff\xc3q"), [Key::Char('q')]);
        assert_eq!(keys(&[b"\x1b[", [b'1'; 64].as_slice(), b"q"].concat()).last(), Some(&Key::Char('q')));
    }

    #[test]
    fn a_sequence_may_come_in_pieces_and_a_lone_escape_is_the_key() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert!(decoder.is_waiting());
        assert_eq!(decoder.feed(b"["), []);
        assert_eq!(decoder.feed(b"A"), [Key::Up]);
        assert!(!decoder.is_waiting());
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert_eq!(decoder.give_up(), Some(Key::Esc));
        assert_eq!(decoder.feed(b"\x1b\x1b[A"), [Key::Esc, Key::Up]);
        assert_eq!(decoder.feed(b"\xe2\x9c"), []);
        assert_eq!(decoder.give_up(), None);
    }

    #[test]
    fn pasted_text_is_no_keys() {
        assert_eq!(
            keys(b"a\x1b[200~r\ny\x1b[A\x1b[201~q"),
            [Key::Char('a'), Key::Pasted("r\ny\x1b[A".into()), Key::Char('q')]
        );
        let long = [PASTE_BEGINS, [b'x'; 4_096].as_slice(), PASTE_ENDS, b"q"].concat();
        assert_eq!(keys(&long), [Key::Pasted("x".repeat(MOST_PASTED)), Key::Char('q')]);
    }
}
