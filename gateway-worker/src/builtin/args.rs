//! The command line, as much of OpenClaw's as a supervisor and an agent use:
//!
//! ```text
//! [gateway run] [--port PORT]
//! gateway restart
//! gateway restart-handoff capabilities --json
//! gateway restart-handoff consume --expected-pid PID --json
//! doctor [--fix] --yes --non-interactive
//! config validate --json
//! --version
//! ```

use std::ffi::OsString;

use crate::config::BasePort;

/// JavaScript's largest safe integer, which is OpenClaw's bound for a process id.
const MAX_PID: u64 = (1 << 53) - 1;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    /// Run the gateway, on this port if one is given.
    Serve {
        /// The value of `--port`, which beats the environment and the configuration.
        port: Option<BasePort>,
    },
    /// Do one thing beside the gateway, say what came of it, and end.
    Do(Tool),
    /// Print the version.
    Version,
}

/// A command that does not serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tool {
    /// Ask the running gateway to restart.
    Restart,
    /// Say which version of the restart handoff is spoken.
    HandoffCapabilities,
    /// Take the restart handoff that the process of this id left behind; `None` if no usable id was given.
    HandoffConsume(Option<u64>),
    /// Look for faults in the configuration.
    Doctor(Treatment),
    /// Say whether the configuration can be served from.
    ValidateConfig,
}

/// What the doctor does about a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Treatment {
    /// Name it.
    Diagnose,
    /// Mend it.
    Fix,
}

/// Why a command line was not understood.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum UsageError {
    /// An argument that means nothing here.
    #[error("unknown argument `{0}`; usage: builtin-gateway [gateway run] [--port PORT]")]
    Unknown(String),
    /// `--port` without a value, or with one that is no port.
    #[error("`--port` needs a number from 1 to 65535")]
    Port,
}

/// Reads the arguments that follow the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Wish, UsageError> {
    let arguments: Vec<_> =
        arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["gateway", "restart", ref flags @ ..] => {
            only(flags, &["--json", "--safe", "--force"]).map(|()| Wish::Do(Tool::Restart))
        }
        ["gateway", "restart-handoff", "capabilities", ref flags @ ..] => {
            only(flags, &["--json"]).map(|()| Wish::Do(Tool::HandoffCapabilities))
        }
        ["gateway", "restart-handoff", "consume", ref rest @ ..] => {
            Ok(Wish::Do(Tool::HandoffConsume(expected_pid(rest))))
        }
        ["doctor", ref flags @ ..] => {
            only(flags, &["--fix", "--yes", "--non-interactive"])?;
            let fix = flags.contains(&"--fix");
            Ok(Wish::Do(Tool::Doctor(if fix { Treatment::Fix } else { Treatment::Diagnose })))
        }
        ["config", "validate", ref flags @ ..] => {
            only(flags, &["--json"]).map(|()| Wish::Do(Tool::ValidateConfig))
        }
        ref words if words.contains(&"--version") => Ok(Wish::Version),
        ref words => serve(words),
    }
}

fn serve(arguments: &[&str]) -> Result<Wish, UsageError> {
    let mut words = ["gateway", "run"].into_iter();
    let mut port = None;
    let mut arguments = arguments.iter().copied();
    while let Some(argument) = arguments.next() {
        if argument == "--port" {
            port = Some(port_of(arguments.next().unwrap_or_default())?);
        } else if let Some(value) = argument.strip_prefix("--port=") {
            port = Some(port_of(value)?);
        } else if words.next() != Some(argument) {
            return Err(UsageError::Unknown(argument.to_owned()));
        }
    }
    Ok(Wish::Serve { port })
}

fn port_of(value: &str) -> Result<BasePort, UsageError> {
    BasePort::parse(value).ok_or(UsageError::Port)
}

fn only(flags: &[&str], known: &[&str]) -> Result<(), UsageError> {
    match flags.iter().find(|flag| !known.contains(flag)) {
        Some(unknown) => Err(UsageError::Unknown((*unknown).to_owned())),
        None => Ok(()),
    }
}

/// The one usable process id, or `None`: OpenClaw answers a machine's mistake here with JSON, not with usage.
fn expected_pid(arguments: &[&str]) -> Option<u64> {
    let mut found = None;
    let mut arguments = arguments.iter().copied().filter(|argument| *argument != "--json");
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--expected-pid") {
            Some("") => arguments.next()?,
            Some(rest) => rest.strip_prefix('=')?,
            None => return None,
        };
        if found.replace(pid_of(value)?).is_some() {
            return None;
        }
    }
    found
}

fn pid_of(value: &str) -> Option<u64> {
    let pid = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())??;
    (1..=MAX_PID).contains(&pid).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Wish, UsageError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn openclaws_words_and_no_words_both_serve() {
        let plain = Ok(Wish::Serve { port: None });
        assert_eq!(parsed(&[]), plain);
        assert_eq!(parsed(&["gateway"]), plain);
        assert_eq!(parsed(&["gateway", "run"]), plain);
    }

    #[test]
    fn a_port_may_stand_anywhere_and_in_both_forms() {
        let wish = Ok(Wish::Serve { port: BasePort::parse("19789") });
        assert_eq!(parsed(&["gateway", "run", "--port", "19789"]), wish);
        assert_eq!(parsed(&["--port=19789", "gateway", "run"]), wish);
    }

    #[test]
    fn openclaws_tools_are_known_by_their_words() {
        for (line, tool) in [
            ("gateway restart", Tool::Restart),
            ("gateway restart-handoff capabilities --json", Tool::HandoffCapabilities),
            ("gateway restart-handoff consume --expected-pid 12 --json", Tool::HandoffConsume(Some(12))),
            ("gateway restart-handoff consume --json --expected-pid=12", Tool::HandoffConsume(Some(12))),
            ("doctor --fix --yes --non-interactive", Tool::Doctor(Treatment::Fix)),
            ("doctor", Tool::Doctor(Treatment::Diagnose)),
            ("config validate --json", Tool::ValidateConfig),
        ] {
            assert_eq!(parsed(&line.split(' ').collect::<Vec<_>>()), Ok(Wish::Do(tool)), "{line}");
        }
    }

    #[test]
    fn an_unusable_process_id_is_for_the_machine_to_hear_of() {
        for line in [
            "",
            "--expected-pid",
            "--expected-pid 0",
            "--expected-pid +1",
            "--expected-pid 1 2",
            "-x",
            "--expected-pid 1 --expected-pid 1",
            "--expected-pid 9007199254740992",
            "--expected-pid=",
        ] {
            let mut words = vec!["gateway", "restart-handoff", "consume"];
            words.extend(line.split_whitespace());
            assert_eq!(parsed(&words), Ok(Wish::Do(Tool::HandoffConsume(None))), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (line, word) in [
            ("run", "run"),
            ("gateway run --force", "--force"),
            ("gateway restart --now", "--now"),
            ("doctor --deep", "--deep"),
            ("config validate --yaml", "--yaml"),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(parsed(&words), Err(UsageError::Unknown(word.into())));
        }
        for bad in [&["--port"][..], &["--port", "0"], &["--port=65536"], &["--port", "x"]] {
            assert_eq!(parsed(bad), Err(UsageError::Port));
        }
    }
}
