//! Misbehaviour on purpose, so that a supervisor can be tested fast against every fault that a real gateway
//! has. It is asked for by the environment variable `BUILTIN_GATEWAY_MISBEHAVE`, which only this gateway
//! knows; without it nothing here costs anything.
//!
//! The variable holds clauses, separated by `;`. Each is a word, mostly with a value, then perhaps
//! qualifiers, separated by `,`:
//!
//! ```text
//! starts-slowly=60s,phases=6
//! not-ready=channels:telegram+db,after=5s,until=20s
//! exit=78,while-config-has=poison; doctor=mends
//! exit=1,times=3; hang,while-file=/run/hang
//! ```
//!
//! | clause | what the gateway does |
//! |---|---|
//! | `starts-slowly=TIME` | `/startupz` says `starting`, with `pendingReason` `phase-1-of-1`, for this time |
//! | … `,phases=N` | … in N phases of equal length, `phase-1-of-N` and so on |
//! | … `,stuck-in=K` | … and never leaves phase K |
//! | `not-ready=NAME+NAME` | `/readyz` answers 503 with these in `failing` |
//! | `exit=CODE` | it exits with this status |
//! | `die=SIGNAL` | it dies by this signal, such as `SIGKILL` or `SIGSEGV` |
//! | `hang` | its event loop stands still: it accepts connections and answers nothing, signals neither |
//! | `mute` | it takes WebSockets and says nothing in them; HTTP answers |
//! | `ignore-sigterm` | SIGTERM is ignored |
//! | `drain=TIME` | its drain lasts this long |
//! | `grow=N,up-to=M` | it takes N MiB of memory a second, up to M MiB |
//! | `doctor=mends` | after `doctor --fix`, the clauses of faults (`starts-slowly`, `not-ready`, `exit`, `die`, `hang`, `mute`) hold no more |
//! | `doctor=fails`, `doctor=hangs` | the doctor exits with status 1 and changes nothing; never ends |
//! | `tools-take=TIME` | each tool (`restart`, `restart-handoff`, `doctor`, `config validate`) begins with this pause |
//! | `without-handoff` | `restart-handoff` is an unknown command, and a restart leaves none behind |
//! | `version=TEXT` | this is its version |
//!
//! `not-ready`, `exit`, `die`, `hang` and `mute` hold from the start, or as long as **all** of their qualifiers do:
//!
//! | qualifier | holds |
//! |---|---|
//! | `after=TIME` | from this time after the start on |
//! | `until=TIME` | up to this time after the start |
//! | `while-file=PATH` | as long as there is such a file |
//! | `while-config-has=TEXT` | if the configuration that the gateway started with contains this text |
//! | `times=N` | N times, counted in the state directory across restarts (not for `not-ready` and `mute`) |
//!
//! No value holds a `,` or a `;`. Times are written `250ms`, `5s`, `1m 30s`. An `exit` or `die` that holds at once comes before any port is
//! bound.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::Environment;

/// Where misbehaviour is asked for.
const VARIABLE: &str = "BUILTIN_GATEWAY_MISBEHAVE";
/// The signals that kill this process and that it does not handle itself.
const DEADLY: [Signal; 8] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGHUP,
    Signal::SIGILL,
    Signal::SIGKILL,
    Signal::SIGQUIT,
    Signal::SIGSEGV,
];
/// Nothing under test needs more, and a typing error must not take the host's memory.
const MOST_MIB: usize = 4096;

/// Why a misbehaviour was not understood.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum MisbehaveError {
    /// A clause that begins with an unknown word.
    #[error("{VARIABLE}: `{0}` is no misbehaviour that the built-in gateway knows")]
    Unknown(String),
    /// A value that does not fit its word.
    #[error("{VARIABLE}: `{word}` needs {expected}, not `{found}`")]
    Value {
        /// The word before the value.
        word: String,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A qualifier that its clause does not know.
    #[error("{VARIABLE}: `{act}` cannot be qualified by `{qualifier}`")]
    Qualifier {
        /// The clause's word.
        act: String,
        /// The qualifier's word.
        qualifier: String,
    },
}

/// Everything that the gateway does wrong.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Misbehaviour {
    /// The faults of a gateway, each with when it has them.
    pub(crate) faults: Vec<Planned>,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) ignores_sigterm: bool,
    pub(crate) drain: Duration,
    pub(crate) growth: Option<Growth>,
    pub(crate) doctor: Option<Doctor>,
    pub(crate) tools_take: Duration,
    pub(crate) without_handoff: bool,
    pub(crate) version: Option<String>,
}

/// A fault and when it is there.
#[derive(Debug, PartialEq)]
pub(crate) struct Planned {
    /// Its place among the faults, by which it is known across restarts.
    pub(crate) number: usize,
    pub(crate) fault: Fault,
    pub(crate) when: When,
}

/// A fault that comes and goes.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// `/readyz` names these as failing.
    NotReady(Vec<String>),
    /// The process exits with this status.
    Exit(u8),
    /// The process dies by this signal.
    Die(Signal),
    /// The event loop stands still.
    Hang,
    /// Nothing is said in a WebSocket.
    Mute,
}

/// When a fault is there: while all of these hold.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct When {
    pub(crate) after: Duration,
    pub(crate) until: Option<Duration>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) config_has: Option<String>,
    pub(crate) times: Option<u64>,
}

/// A start in phases.
#[derive(Debug, PartialEq)]
pub(crate) struct SlowStart {
    pub(crate) time: Duration,
    pub(crate) phases: u32,
    /// The phase that never ends, from 1.
    pub(crate) stuck_in: Option<u32>,
}

/// A leak, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    pub(crate) per_second: usize,
    pub(crate) up_to: usize,
}

/// How the doctor is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Doctor {
    Mends,
    Fails,
    Hangs,
}

impl Misbehaviour {
    /// Reads what the environment asks for.
    pub(crate) fn read(environment: &Environment) -> Result<Self, MisbehaveError> {
        environment.text(VARIABLE).map_or_else(|| Ok(Self::default()), |text| text.parse())
    }

    fn add(&mut self, clause: &str) -> Result<(), MisbehaveError> {
        let mut parts = clause.split(',').map(Part::of);
        let Some(act) = parts.next() else { return Ok(()) };
        let qualifiers: Vec<_> = parts.collect();
        let plain = |given: ()| act.without(&qualifiers).map(|()| given);
        match act.word {
            "starts-slowly" => self.slow_start = Some(SlowStart::of(&act, &qualifiers)?),
            "not-ready" => {
                let names = act.text()?.split('+').map(|name| name.trim().to_owned()).collect();
                self.plan(Fault::NotReady(names), When::of(&act, &qualifiers)?);
            }
            "exit" => self.plan(Fault::Exit(act.number()?), When::of(&act, &qualifiers)?),
            "die" => self.plan(Fault::Die(act.signal()?), When::of(&act, &qualifiers)?),
            "hang" => self.plan(act.alone(Fault::Hang)?, When::of(&act, &qualifiers)?),
            "mute" => self.plan(act.alone(Fault::Mute)?, When::of(&act, &qualifiers)?),
            "ignore-sigterm" => self.ignores_sigterm = plain(()).and(act.alone(true))?,
            "drain" => self.drain = plain(()).and(act.time())?,
            "grow" => self.growth = Some(Growth::of(&act, &qualifiers)?),
            "doctor" => self.doctor = Some(plain(()).and(act.doctor())?),
            "tools-take" => self.tools_take = plain(()).and(act.time())?,
            "without-handoff" => self.without_handoff = plain(()).and(act.alone(true))?,
            "version" => self.version = Some(plain(()).and(act.text())?.to_owned()),
            unknown => return Err(MisbehaveError::Unknown(unknown.to_owned())),
        }
        Ok(())
    }

    fn plan(&mut self, fault: Fault, when: When) {
        self.faults.push(Planned { number: self.faults.len(), fault, when });
    }
}

impl FromStr for Misbehaviour {
    type Err = MisbehaveError;

    fn from_str(text: &str) -> Result<Self, MisbehaveError> {
        let mut misbehaviour = Self::default();
        for clause in text.split(';').map(str::trim).filter(|clause| !clause.is_empty()) {
            misbehaviour.add(clause)?;
        }
        Ok(misbehaviour)
    }
}

impl When {
    fn of(act: &Part<'_>, qualifiers: &[Part<'_>]) -> Result<Self, MisbehaveError> {
        let mut when = Self::default();
        for qualifier in qualifiers {
            match qualifier.word {
                "after" => when.after = qualifier.time()?,
                "until" => when.until = Some(qualifier.time()?),
                "while-file" => when.file = Some(PathBuf::from(qualifier.text()?)),
                "while-config-has" => when.config_has = Some(qualifier.text()?.to_owned()),
                "times" if act.word != "not-ready" => when.times = Some(qualifier.number()?),
                _ => return Err(act.refuses(qualifier)),
            }
        }
        Ok(when)
    }
}

impl SlowStart {
    fn of(act: &Part<'_>, qualifiers: &[Part<'_>]) -> Result<Self, MisbehaveError> {
        let mut start = Self { time: act.time()?, phases: 1, stuck_in: None };
        for qualifier in qualifiers {
            match qualifier.word {
                "phases" => start.phases = qualifier.number::<u32>()?.max(1),
                "stuck-in" => start.stuck_in = Some(qualifier.number::<u32>()?.max(1)),
                _ => return Err(act.refuses(qualifier)),
            }
        }
        Ok(start)
    }

    /// The phase that it is in this long after the start, or `None` once it is over.
    pub(crate) fn phase(&self, elapsed: Duration) -> Option<u32> {
        let phases = u128::from(self.phases);
        let over = (elapsed.as_nanos() * phases).checked_div(self.time.as_nanos()).unwrap_or(phases);
        let begun = over.min(phases) as u32 + 1;
        match self.stuck_in {
            Some(stuck) => Some(begun.min(stuck).min(self.phases)),
            None => (begun <= self.phases).then_some(begun),
        }
    }
}

impl Growth {
    fn of(act: &Part<'_>, qualifiers: &[Part<'_>]) -> Result<Self, MisbehaveError> {
        let mut growth = Self { per_second: act.number()?, up_to: MOST_MIB };
        for qualifier in qualifiers {
            match qualifier.word {
                "up-to" => growth.up_to = qualifier.number::<usize>()?.min(MOST_MIB),
                _ => return Err(act.refuses(qualifier)),
            }
        }
        Ok(growth)
    }
}

/// `word=value`, or a word alone.
struct Part<'a> {
    word: &'a str,
    value: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn of(text: &'a str) -> Self {
        match text.split_once('=') {
            Some((word, value)) => Self { word: word.trim(), value: Some(value.trim()) },
            None => Self { word: text.trim(), value: None },
        }
    }

    fn text(&self) -> Result<&'a str, MisbehaveError> {
        self.value.filter(|value| !value.is_empty()).ok_or_else(|| self.expects("a value"))
    }

    fn time(&self) -> Result<Duration, MisbehaveError> {
        humantime::parse_duration(self.value.unwrap_or_default())
            .map_err(|_| self.expects("a time such as `5s` or `250ms`"))
    }

    fn number<T: FromStr>(&self) -> Result<T, MisbehaveError> {
        self.value.unwrap_or_default().parse().map_err(|_| self.expects("a small whole number"))
    }

    fn signal(&self) -> Result<Signal, MisbehaveError> {
        let signal = self.value.unwrap_or_default().parse().ok();
        signal
            .filter(|signal| DEADLY.contains(signal))
            .ok_or_else(|| self.expects("a deadly signal, such as `SIGKILL`"))
    }

    fn doctor(&self) -> Result<Doctor, MisbehaveError> {
        match self.value {
            Some("mends") => Ok(Doctor::Mends),
            Some("fails") => Ok(Doctor::Fails),
            Some("hangs") => Ok(Doctor::Hangs),
            Some(_) | None => Err(self.expects("`mends`, `fails` or `hangs`")),
        }
    }

    /// `given`, if the word stands alone.
    fn alone<T>(&self, given: T) -> Result<T, MisbehaveError> {
        match self.value {
            None => Ok(given),
            Some(_) => Err(self.expects("no value")),
        }
    }

    fn without(&self, qualifiers: &[Part<'_>]) -> Result<(), MisbehaveError> {
        qualifiers.first().map_or(Ok(()), |qualifier| Err(self.refuses(qualifier)))
    }

    fn expects(&self, expected: &'static str) -> MisbehaveError {
        let found = self.value.unwrap_or_default().to_owned();
        MisbehaveError::Value { word: self.word.to_owned(), expected, found }
    }

    fn refuses(&self, qualifier: &Part<'_>) -> MisbehaveError {
        MisbehaveError::Qualifier { act: self.word.to_owned(), qualifier: qualifier.word.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Misbehaviour {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<Misbehaviour>().unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_asked_for_by_nothing() {
        assert_eq!(read(" ; "), Misbehaviour::default());
    }

    #[test]
    fn a_fault_holds_under_all_of_its_qualifiers() {
        let read =
            read("exit=78,while-config-has=poison , times=2; hang,after=250ms,until=1m,while-file=/a b");
        let exit = When { config_has: Some("poison".into()), times: Some(2), ..When::default() };
        let hang = When {
            after: Duration::from_millis(250),
            until: Some(Duration::from_secs(60)),
            file: Some("/a b".into()),
            ..When::default()
        };
        let exit = Planned { number: 0, fault: Fault::Exit(78), when: exit };
        assert_eq!(read.faults, [exit, Planned { number: 1, fault: Fault::Hang, when: hang }]);
    }

    #[test]
    fn everything_else_is_read() {
        let read = read(
            "not-ready=a+b; die=SIGKILL,after=1s; ignore-sigterm; drain=2s; grow=10,up-to=99; doctor=mends; \
             tools-take=13s; without-handoff; version=2027.1.1; starts-slowly=60s,phases=6,stuck-in=2",
        );
        assert_eq!(read.faults[0].fault, Fault::NotReady(vec!["a".into(), "b".into()]));
        assert_eq!(read.faults[1].fault, Fault::Die(Signal::SIGKILL));
        assert!(read.ignores_sigterm && read.without_handoff);
        assert_eq!((read.drain, read.tools_take), (Duration::from_secs(2), Duration::from_secs(13)));
        assert_eq!(read.growth, Some(Growth { per_second: 10, up_to: 99 }));
        assert_eq!((read.doctor, read.version.as_deref()), (Some(Doctor::Mends), Some("2027.1.1")));
        let slow = SlowStart { time: Duration::from_secs(60), phases: 6, stuck_in: Some(2) };
        assert_eq!(read.slow_start, Some(slow));
    }

    #[test]
    fn a_slow_start_goes_through_its_phases() {
        let phases = |text: &str, seconds: &[u64]| -> Vec<_> {
            let start = read(text).slow_start.unwrap();
            seconds.iter().map(|seconds| start.phase(Duration::from_secs(*seconds))).collect()
        };
        let slow = phases("starts-slowly=60s,phases=6", &[0, 9, 10, 59, 60, 900]);
        assert_eq!(slow, [Some(1), Some(1), Some(2), Some(6), None, None]);
        let stuck = phases("starts-slowly=60s,phases=6,stuck-in=3", &[0, 19, 20, 900]);
        assert_eq!(stuck, [Some(1), Some(2), Some(3), Some(3)]);
        assert_eq!(phases("starts-slowly=0s", &[0]), [None]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("explode", "`explode` is no misbehaviour"),
            ("exit=", "`exit` needs a small whole number, not ``"),
            ("exit=256", "not `256`"),
            ("exit=1,sometimes", "`exit` cannot be qualified by `sometimes`"),
            ("not-ready=x,times=2", "`not-ready` cannot be qualified by `times`"),
            ("not-ready", "`not-ready` needs a value"),
            ("hang=now", "`hang` needs no value, not `now`"),
            ("die=SIGTERM", "`die` needs a deadly signal"),
            ("drain=long", "`drain` needs a time"),
            ("drain=1s,after=1s", "`drain` cannot be qualified by `after`"),
            ("doctor=sleeps", "`mends`, `fails` or `hangs`"),
            ("starts-slowly=1s,steps=2", "`starts-slowly` cannot be qualified by `steps`"),
        ] {
            let said = refused(text);
            assert!(said.starts_with("BUILTIN_GATEWAY_MISBEHAVE: ") && said.contains(named), "{said}");
        }
    }
}
