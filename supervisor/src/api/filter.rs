//! Filters of `ListInstances` (a small part of AIP-160): `name = "ma*" AND phase != READY`.

use supervisor_proto::v1::{Instance, Phase, Role, Wish};

use super::status::Refusal;

/// Conditions that must all hold. More than this many is not a filter but a list.
const MOST: usize = 32;

/// What a list is narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    what: What,
    sense: Sense,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    Is,
    IsNot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// `*` stands for any letters.
    Name(String),
    Phase(Phase),
    Wish(Wish),
    Role(Role),
}

impl Filter {
    /// Reads a filter; an empty one lets everything through.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let words = words(text)?;
        let conditions: Vec<_> = words.split(|word| *word == Word::Plain("AND")).map(condition).collect();
        if conditions.len() > MOST {
            return Err(refuse(format!("the filter has more than {MOST} conditions")));
        }
        conditions.into_iter().collect::<Result<_, _>>().map(Self)
    }

    /// Whether `instance` is wanted.
    pub(super) fn admits(&self, instance: &Instance) -> bool {
        self.0.iter().all(|condition| condition.what.fits(instance) == (condition.sense == Sense::Is))
    }
}

impl What {
    fn fits(&self, instance: &Instance) -> bool {
        let status = instance.status.as_ref();
        match self {
            Self::Name(pattern) => matches(pattern.as_bytes(), instance.name.as_bytes()),
            Self::Phase(phase) => status.is_some_and(|status| status.phase() == *phase),
            Self::Wish(wish) => status.is_some_and(|status| status.wish() == *wish),
            Self::Role(role) => status
                .and_then(|status| status.failover.as_ref())
                .is_some_and(|failover| failover.role() == *role),
        }
    }
}

/// Whether `text` is `pattern`, where `*` stands for any bytes. Looks back only to the last `*`, so it takes at
/// most the product of the two lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(byte), _) if Some(byte) == text.get(t) => {
                p += 1;
                t += 1;
            }
            (_, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(&'a str),
    Is,
    IsNot,
}

fn refuse(message: String) -> Refusal {
    Refusal::InvalidFilter(message)
}

fn words(text: &str) -> Result<Vec<Word<'_>>, Refusal> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let after;
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, end) = quoted
                .split_once('"')
                .ok_or_else(|| refuse("the filter has a quotation mark without its other one".into()))?;
            words.push(Word::Quoted(word));
            after = end;
        } else if let Some(end) = rest.strip_prefix("!=") {
            words.push(Word::IsNot);
            after = end;
        } else if let Some(end) = rest.strip_prefix('=') {
            words.push(Word::Is);
            after = end;
        } else {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
            let length = rest.find(|c| !plain(c)).unwrap_or(rest.len());
            let (word, end) = rest.split_at(length);
            if word.is_empty() {
                return Err(refuse(format!("the filter has a `{first}` where none can be")));
            }
            words.push(Word::Plain(word));
            after = end;
        }
        rest = after.trim_start();
    }
    Ok(words)
}

fn condition(words: &[Word<'_>]) -> Result<Condition, Refusal> {
    let [Word::Plain(field), operator, Word::Plain(value) | Word::Quoted(value)] = words else {
        return Err(refuse("each condition of a filter is a field, `=` or `!=`, and a value".into()));
    };
    let sense = match operator {
        Word::Is => Sense::Is,
        Word::IsNot => Sense::IsNot,
        Word::Plain(word) | Word::Quoted(word) => {
            return Err(refuse(format!("`{word}` stands where `=` or `!=` should be")));
        }
    };
    let unknown = || refuse(format!("`{value}` is not a {field}"));
    let of_enum = |prefix: &str| format!("{prefix}_{value}");
    let what = match *field {
        "name" => What::Name((*value).to_owned()),
        "phase" => What::Phase(Phase::from_str_name(&of_enum("PHASE")).ok_or_else(unknown)?),
        "wish" => What::Wish(Wish::from_str_name(&of_enum("WISH")).ok_or_else(unknown)?),
        "role" => What::Role(Role::from_str_name(&of_enum("ROLE")).ok_or_else(unknown)?),
        other => return Err(refuse(format!("`{other}` cannot be filtered by"))),
    };
    Ok(Condition { what, sense })
}

#[cfg(test)]
mod tests {
    use supervisor_proto::v1::{FailoverStatus, InstanceStatus};

    use super::*;

    fn instance(name: &str, phase: Phase, role: Role) -> Instance {
        let failover = FailoverStatus { role: role.into(), ..FailoverStatus::default() };
        let status = InstanceStatus {
            phase: phase.into(),
            wish: Wish::Up.into(),
            failover: Some(failover),
            ..InstanceStatus::default()
        };
        Instance { name: name.into(), status: Some(status), ..Instance::default() }
    }

    fn admits(filter: &str) -> bool {
        Filter::parse(filter).unwrap().admits(&instance("main-2", Phase::Ready, Role::Primary))
    }

    #[test]
    fn conditions_are_joined_and_may_be_negated() {
        for filter in [
            "",
            "name = \"ma*\"",
            "name=main-2",
            "name = *-* AND phase = READY",
            "phase != FAILED AND wish = UP AND role=PRIMARY",
            "name = \"*\"",
            "name != \"*x*\"",
        ] {
            assert!(admits(filter), "{filter}");
        }
        for filter in
            ["name = ma", "phase != READY", "role = ACTIVE", "name = main-2 AND wish = DOWN", "name = \"\""]
        {
            assert!(!admits(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_not_a_filter_is_refused_with_the_reason() {
        for filter in [
            "name",
            "name = ",
            "name = a b",
            "name = a OR name = b",
            "phase = ASLEEP",
            "phase = ready",
            "colour = red",
            "name ~ a",
            "name = \"a",
            "AND",
            "name = a AND",
            "name AND = a",
            "phase = UNSPECIFIED AND (name = a)",
        ] {
            assert!(matches!(Filter::parse(filter), Err(Refusal::InvalidFilter(_))), "{filter}");
        }
        let many = vec!["name = a"; MOST + 1].join(" AND ");
        assert!(Filter::parse(&many).is_err());
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_reasonable_time() {
        let pattern = "*a".repeat(1_000);
        assert!(!matches(pattern.as_bytes(), "a".repeat(999).as_bytes()));
        assert!(matches(pattern.as_bytes(), "ba".repeat(1_000).as_bytes()));
    }
}
