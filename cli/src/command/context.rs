//! `openclawctl context`: several supervisors, by name.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use clap_complete::ArgValueCompleter;
use serde_json::json;

use crate::{
    complete,
    context::{Context, Show},
    contexts::{self, ContextError, Door, Entry, Tcp, check_address, ready},
    error::{Cause, Error, Failure, Operation},
    render::{
        json,
        style::{self, printable, talk},
        table::{Cell, Side, Table},
    },
};

const HELP: &str = "\
A context says where a supervisor is and what to show it. The current one is used
unless --context or $OPENCLAWCTL_CONTEXT names another, or --data-dir, --socket or
their variables name a supervisor of this host. They are kept in
openclawctl/contexts.yaml in $XDG_CONFIG_HOME or ~/.config.

Examples:
  openclawctl context add box --from laptop     what `cert issue laptop` has written
  openclawctl context add lab --unix /run/openclaw/control.sock
  openclawctl context list                      what there is
  openclawctl context use box
  openclawctl context show                      what the current one says
  openclawctl context rm lab
  openclawctl --context lab status";

/// List, choose, add and remove the supervisors that you work with
#[derive(Debug, Args)]
#[command(name = "context", after_help = HELP)]
pub(crate) struct Contexts {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them; the current one has a star
    List,
    /// Make one the current one
    Use {
        /// Its name
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: String,
    },
    Add(Box<Add>),
    /// Remove one, with what was copied for it
    Rm {
        /// Its name
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: String,
    },
    /// Show what one says
    Show {
        /// Its name [default: the current one]
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: Option<String>,
    },
}

/// Add one
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["from", "unix", "tcp"])))]
struct Add {
    /// What it is to be called
    name: String,
    /// A directory that `cert issue` has written; its files are copied
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// A socket of this host
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    unix: Option<PathBuf>,
    /// An address; needs --ca, --cert and --key
    #[arg(long, value_name = "HOST:PORT", requires_all = ["ca", "cert", "key"])]
    tcp: Option<String>,
    /// The authority's certificate
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tcp")]
    ca: Option<PathBuf>,
    /// The certificate to show
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tcp")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tcp")]
    key: Option<PathBuf>,
    /// What the supervisor's certificate is for, if not the host of the address
    #[arg(long, value_name = "HOST", requires = "tcp")]
    server_name: Option<String>,
    /// A file with a token to show
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Make it the current one
    #[arg(long = "use")]
    choose: bool,
}

/// Does what was asked.
pub(crate) fn run(args: &Contexts, context: &Context) -> Result<(), Failure> {
    let operation = Operation::new(match &args.verb {
        Verb::List => "list the contexts".to_owned(),
        Verb::Use { name } => format!("use the context `{name}`"),
        Verb::Add(args) => format!("add the context `{}`", args.name),
        Verb::Rm { name } => format!("remove the context `{name}`"),
        Verb::Show { .. } => "show a context".to_owned(),
    });
    let fail = |error: ContextError| Cause::from(error).during(&operation);
    let mut contexts = contexts::Contexts::load().map_err(fail)?;
    match &args.verb {
        Verb::List => list(&contexts, context, &operation)?,
        Verb::Use { name } => {
            contexts.choose(name).map_err(fail)?;
            talk(&format!("{name} is the current context"));
        }
        Verb::Add(args) => {
            let entry = args.entry(&contexts).map_err(fail)?;
            contexts.add(&args.name, entry).map_err(fail)?;
            if args.choose {
                contexts.choose(&args.name).map_err(fail)?;
            }
            let current = contexts.current() == Some(&args.name);
            talk(&format!("added {}{}", args.name, if current { "; it is the current context" } else { "" }));
        }
        Verb::Rm { name } => {
            contexts.remove(name).map_err(fail)?;
            talk(&format!("removed {name}"));
        }
        Verb::Show { name } => {
            let name = name.as_deref().or(contexts.current()).ok_or(ContextError::NoCurrent).map_err(fail)?;
            let entry = contexts.get(name).map_err(fail)?;
            let text = match context.show {
                Show::Text(_) => ready(entry).map_err(Cause::from),
                Show::Encoded(encoding) => serde_json::to_value(entry)
                    .map_err(Cause::from)
                    .and_then(|entry| json::text(encoding, &entry)),
            };
            context.print_data(&operation, &text.map_err(|cause| cause.during(&operation))?)?;
        }
    }
    Ok(())
}

impl Add {
    fn entry(&self, contexts: &contexts::Contexts) -> Result<Entry, ContextError> {
        contexts.may_add(&self.name)?;
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let token_file = self.token_file.as_ref().map(absolute);
        if let Some(from) = &self.from {
            let entry = contexts.take_over(&self.name, from)?;
            return Ok(Entry { token_file: token_file.or(entry.token_file), ..entry });
        }
        let door = match (&self.unix, &self.tcp, &self.ca, &self.cert, &self.key) {
            (Some(path), ..) => Door::Unix(absolute(path)),
            (None, Some(address), Some(ca), Some(certificate), Some(key)) => {
                check_address(address).map_err(ContextError::Unfit)?;
                Door::Tcp(Tcp {
                    address: address.clone(),
                    ca: absolute(ca),
                    certificate: absolute(certificate),
                    key: absolute(key),
                    server_name: self.server_name.clone(),
                })
            }
            (None, ..) => return Err(ContextError::Unfit("--tcp needs --ca, --cert and --key".into())),
        };
        Ok(Entry { door, token_file })
    }
}

fn place(entry: &Entry) -> String {
    match &entry.door {
        Door::Unix(path) => path.display().to_string(),
        Door::Tcp(tcp) => tcp.address.clone(),
    }
}

fn list(contexts: &contexts::Contexts, context: &Context, operation: &Operation) -> Result<(), Error> {
    let current = contexts.current();
    let text = match context.show {
        Show::Encoded(encoding) => {
            let all = contexts.all().map(|(name, entry)| {
                json!({ "name": name, "current": current == Some(name), "address": place(entry) })
            });
            let all: Vec<_> = all.collect();
            json::text(encoding, &json!({ "contexts": all })).map_err(|cause| cause.during(operation))?
        }
        Show::Text(_) if contexts.all().next().is_none() => {
            let none = "no other supervisors are known; `openclawctl context add` adds one";
            style::wrapped(none, style::stdout_width(), style::INDENT) + "\n"
        }
        Show::Text(_) => {
            let mut table = Table::new([("", Side::Left), ("NAME", Side::Left), ("SUPERVISOR", Side::Left)])
                .within(style::stdout_width())
                .ranked(&["NAME", "SUPERVISOR"])
                .flexible("SUPERVISOR");
            for (name, entry) in contexts.all() {
                let star = if current == Some(name) { "*" } else { "" };
                let name = Cell::styled(printable(name), style::STRONG);
                table.row(vec![star.into(), name, printable(&place(entry)).into()]);
            }
            let mut out = String::new();
            table.render(&mut out);
            out
        }
    };
    context.print(operation, &text)
}
