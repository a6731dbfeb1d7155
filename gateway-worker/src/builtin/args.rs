//! The command line, as much of OpenClaw's as a supervisor uses: `gateway run [--port N]`.

use std::ffi::OsString;

use crate::config::BasePort;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    /// Run the gateway, on this port if one is given.
    Serve {
        /// The value of `--port`, which beats the environment and the configuration.
        port: Option<BasePort>,
    },
    /// Print the version.
    Version,
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
    let mut arguments = arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned());
    let mut words = ["gateway", "run"].into_iter();
    let mut port = None;
    while let Some(argument) = arguments.next() {
        if argument == "--version" {
            return Ok(Wish::Version);
        } else if argument == "--port" {
            port = Some(port_of(&arguments.next().unwrap_or_default())?);
        } else if let Some(value) = argument.strip_prefix("--port=") {
            port = Some(port_of(value)?);
        } else if words.next() != Some(argument.as_str()) {
            return Err(UsageError::Unknown(argument));
        }
    }
    Ok(Wish::Serve { port })
}

fn port_of(value: &str) -> Result<BasePort, UsageError> {
    BasePort::parse(value).ok_or(UsageError::Port)
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
    fn what_is_not_understood_is_refused() {
        assert_eq!(parsed(&["run"]), Err(UsageError::Unknown("run".into())));
        assert_eq!(parsed(&["gateway", "run", "--force"]), Err(UsageError::Unknown("--force".into())));
        for bad in [&["--port"][..], &["--port", "0"], &["--port=65536"], &["--port", "x"]] {
            assert_eq!(parsed(bad), Err(UsageError::Port));
        }
    }
}
