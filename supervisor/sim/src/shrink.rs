//! Makes a world smaller that shows something: fewer names, a shorter time, fewer kinds of faults, and of those that
//! struck only the ones that matter.

use std::collections::BTreeSet;

use crate::{
    chance::{Injection, Lot},
    fault::{Faults, Setup},
    trace::{Header, Scribe, Trace},
    world::{Outcome, run},
};

/// Runs that may be spent on one world. Each takes about a millisecond, so this is less than a minute.
const RUNS: u32 = 20_000;

/// What a smaller world still has to show.
#[derive(Debug)]
pub enum Show {
    /// A violation of the same kind.
    Failure(String),
    /// All of these words, one after the other, and a good end.
    Story(Vec<String>),
}

impl Show {
    fn is_shown(&self, setup: &Setup) -> Option<BTreeSet<Injection>> {
        let (shown, outcome) = match self {
            Self::Failure(kind) => {
                let outcome = run(setup, Scribe::Idle);
                (kind_of(&outcome).as_ref() == Some(kind), outcome)
            }
            Self::Story(words) => {
                let (trace, outcome) = Trace::of(Header { title: "any".into(), setup: setup.clone() });
                (outcome.violation.is_none() && trace.tells(words), outcome)
            }
        };
        shown.then(|| outcome.struck.into_iter().collect())
    }
}

/// The kind of a violation: its sentence without names, numbers and whatever it quotes.
#[must_use]
pub fn kind_of(outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    let debug = format!("{violation:?}");
    let variant = debug.split(['(', '{', ' ']).next().unwrap_or_default().to_owned();
    // Core's rules and what has not settled say which in words: `name: rule: …`.
    let sentence = violation.to_string();
    let rule = match variant.as_str() {
        "Invariant" | "NotSettled" => sentence.split(": ").nth(2).unwrap_or_default().to_owned(),
        "Reference" | "Misstep" => debug.split(['(', '{', ' ']).nth(1).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    Some(format!("{variant} {rule}"))
}

/// The smallest world that is found to show the same.
#[must_use]
pub fn shrink(setup: &Setup, show: &Show) -> Option<Setup> {
    let kept = show.is_shown(setup)?;
    let mut small = Smaller { best: Setup { kept: Some(kept), ..setup.clone() }, show, runs: 0 };
    loop {
        let before = small.best.clone();
        small.simplify();
        small.leave_out();
        if small.best == before || small.runs >= RUNS {
            return Some(small.best);
        }
    }
}

struct Smaller<'a> {
    best: Setup,
    show: &'a Show,
    runs: u32,
}

impl Smaller<'_> {
    /// Takes `setup` if it shows the same. What does not strike any more is left out.
    fn attempt(&mut self, setup: Setup) -> bool {
        self.runs += 1;
        if setup == self.best || self.runs > RUNS {
            return false;
        }
        let Some(struck) = self.show.is_shown(&setup) else { return false };
        let kept = setup.kept.as_ref().map(|kept| kept.intersection(&struck).copied().collect());
        self.best = Setup { kept, ..setup };
        true
    }

    fn attempt_faults(&mut self, change: impl FnOnce(&mut Faults)) -> bool {
        let mut setup = self.best.clone();
        change(&mut setup.faults);
        self.attempt(setup)
    }

    /// Fewer names, a shorter time, nothing late, fewer kinds of faults.
    fn simplify(&mut self) {
        for instances in 1..self.best.instances {
            if self.attempt(Setup { instances, ..self.best.clone() }) {
                break;
            }
        }
        while self.best.faults.span_s > 1 && self.attempt_faults(|faults| faults.span_s /= 2) {}
        self.attempt_faults(|faults| faults.write_ms = 1);
        self.attempt_faults(|faults| faults.late_ticks_ms = 0);
        self.attempt_faults(|faults| faults.channels = false);
        self.attempt_faults(|faults| faults.configured = false);
        for lot in Lot::ALL {
            if let Some(faults) = self.best.faults.without(*lot) {
                self.attempt(Setup { faults, ..self.best.clone() });
            }
        }
    }

    /// Leaves out what struck: halves, quarters, and in the end one by one (Zeller, Hildebrandt: "Simplifying and
    /// Isolating Failure-Inducing Input", 2002).
    fn leave_out(&mut self) {
        let mut size = self.kept().len().div_ceil(2);
        while size > 0 {
            let mut place = 0;
            while place < self.kept().len() {
                let kept = self.kept();
                let rest = kept.iter().enumerate().filter(|(n, _)| !(place..place + size).contains(n));
                let kept = Some(rest.map(|(_, injection)| *injection).collect());
                if !self.attempt(Setup { kept, ..self.best.clone() }) {
                    place += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn kept(&self) -> Vec<Injection> {
        self.best.kept.iter().flatten().copied().collect()
    }
}
