//! Runs a program for what it prints.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use prost::Message;
use supervisor_proto::worker::Walls;
use tokio::sync::oneshot;

use crate::user::User;

/// What a program has printed on both of its streams, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Its exit status, as a shell tells it.
    pub(crate) status: i32,
    /// All that it printed, mingled as a terminal would show it.
    pub(crate) output: String,
}

/// What runs a program so that its status is the last thing that is printed: whoever reaps all children may reap the
/// shell before it can be asked.
const TELL_STATUS: &str = "\"$@\" 2>&1; printf '\\n%s' \"$?\"";

/// No answer is longer.
const MOST_BYTES: u64 = 256 << 10;

/// The word by which a worker runs a program behind walls that come on its standard input.
const BEHIND: &str = "behind";

/// Where a program is run that works on what an agent has written, and may do what it says there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inside {
    /// The program that builds the walls, and ends all that is started behind them.
    pub(crate) worker: PathBuf,
    /// Those of the agent's gateway.
    pub(crate) walls: Walls,
}

/// A program and all that it is given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    /// It.
    pub(crate) program: PathBuf,
    /// Without its own name.
    pub(crate) args: Vec<String>,
    /// All of its environment; `None`: the supervisor's own.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    /// Where it is run; `None`: where the supervisor is.
    pub(crate) directory: Option<PathBuf>,
    /// Behind which walls; `None`: none.
    pub(crate) inside: Option<Inside>,
}

impl Tool {
    /// A program in the supervisor's own surroundings.
    pub(crate) fn new(program: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { program: program.to_owned(), args, environment: None, directory: None, inside: None }
    }

    /// Whom it runs as, if that is another user than the supervisor's.
    pub(crate) fn user(&self) -> Option<User> {
        let user = self.inside.as_ref()?.walls.user.as_ref()?;
        Some(User { uid: user.uid, gid: user.gid, groups: user.groups.clone() })
    }

    /// What it prints, without white space around it; `None` if that cannot be had within the limit. Blocks.
    ///
    /// It is ended by timeout(1), so that no signal has to be sent from here: the supervisor reaps all its children at
    /// once, and their pids may be others' then.
    pub(crate) fn ask(&self, limit: Duration) -> Option<String> {
        let mut command = match &self.inside {
            None => Command::new("timeout"),
            Some(inside) => {
                let mut command = Command::new(&inside.worker);
                command.args([BEHIND, "timeout"]);
                command
            }
        };
        command.args(["-k", "1", &limit.as_secs().max(1).to_string()]).arg(&self.program).args(&self.args);
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut input = child.stdin.take()?;
        if let Some(inside) = &self.inside {
            input.write_all(&inside.walls.encode_to_vec()).ok()?;
        }
        drop(input);
        let mut text = String::new();
        let read = child.stdout.take()?.take(MOST_BYTES).read_to_string(&mut text);
        // It may have been reaped already.
        let _ = child.wait();
        read.ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// What it prints and how it ends; `None` if that cannot be had within the limit, or is too much. Blocks.
    pub(crate) fn run(&self, limit: Duration) -> Option<Ran> {
        let program = self.program.to_str()?.to_owned();
        let args = ["-c".to_owned(), TELL_STATUS.to_owned(), "sh".to_owned(), program];
        let args = args.into_iter().chain(self.args.iter().cloned()).collect();
        let told = Self { program: "/bin/sh".into(), args, ..self.clone() }.ask(limit)?;
        let (output, status) = told.rsplit_once('\n').unwrap_or(("", &told));
        Some(Ran { status: status.parse().ok()?, output: output.trim_end().to_owned() })
    }

    /// The same as [`ask`](Self::ask) on a thread of its own, for who must neither wait nor keep others from the threads for file work: core
    /// asks for one such thing at a time for each instance.
    pub(crate) async fn ask_aside(self, limit: Duration) -> Option<String> {
        let (tell, answer) = oneshot::channel();
        // Who asked may have gone meanwhile.
        let ask = move || drop(tell.send(self.ask(limit)));
        thread::Builder::new().name("tool".into()).spawn(ask).ok()?;
        answer.await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_for_what_it_prints() {
        let ask =
            |program: &str, args: &[&str]| Tool::new(Path::new(program), args).ask(Duration::from_secs(60));
        assert_eq!(ask("echo", &["v24.21.0"]).as_deref(), Some("v24.21.0"));
        assert_eq!(ask("/nowhere", &[]), None);
        assert_eq!(ask("true", &[]), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_not_waited_for() {
        let asked = Tool::new(Path::new("sleep"), &["600"]).ask(Duration::from_secs(1));
        assert_eq!(asked, None);
    }

    #[test]
    fn what_a_program_prints_and_how_it_ends_are_told_together() {
        let run = |script: &str| Tool::new(Path::new("sh"), &["-c", script]).run(Duration::from_secs(60));
        let ran = |status, output: &str| Some(Ran { status, output: output.into() });
        assert_eq!(run("echo out; echo err >&2; exit 3"), ran(3, "out\nerr"));
        assert_eq!(run("true"), ran(0, ""));
        assert_eq!(Tool::new(Path::new("sleep"), &["600"]).run(Duration::from_secs(1)), None);
    }

    #[tokio::test]
    async fn it_is_asked_aside_as_it_is_asked() {
        let tool = Tool::new(Path::new("echo"), &["here"]);
        assert_eq!(tool.ask_aside(Duration::from_secs(60)).await.as_deref(), Some("here"));
    }

    #[test]
    fn it_has_the_environment_and_the_directory_it_is_given() {
        let tool = Tool {
            environment: Some(BTreeMap::from([
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
                ("WHO".to_owned(), "main".to_owned()),
            ])),
            directory: Some("/".into()),
            ..Tool::new(Path::new("sh"), &["-c", "echo $WHO $HOME $PWD"])
        };
        assert_eq!(tool.ask(Duration::from_secs(60)).as_deref(), Some("main /"));
    }
}
