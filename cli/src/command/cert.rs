//! `openclawctl cert`: the certificates by which callers from other hosts are known.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCompleter;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use supervisor_proto::v1::{
    InitAuthorityRequest, IssueCertificateRequest, IssueCertificateResponse, ListCertificatesRequest,
    RevokeCertificateRequest,
};

use crate::{
    complete,
    connect::request_id,
    context::{Consent, Context, Show},
    contexts::{
        COPIES, Door, Entry, Overwrite, READY, Tcp, check_address, make_secret_directory, ready, write,
    },
    error::{Cause, Error, Failure, Operation},
    render::{certificate, style::talk},
};

const HELP: &str = "\
A supervisor is reached from other hosts by TCP with mutual TLS 1.3, and in no
other way. Its private authority issues a certificate to each caller; the role in
it says what that caller may do:

  viewer    sees everything, changes nothing
  operator  starts, stops, mends and upgrades what there is
  admin     says what there is, and with that which programs run
  rescue    sees one instance and its primaries, and mends those

Examples:
  openclawctl cert init --name box.example.org   on the supervisor's host, once
  openclawctl cert issue laptop --role operator  into the directory `laptop`
  openclawctl cert list
  openclawctl cert revoke laptop
  openclawctl cert request laptop                on a host that keeps its own key

It listens once settings.yaml in its data directory says where, as in
`listen: [{tcp: \"0.0.0.0:7443\"}]`, and `openclawctl supervisor reload` has read
that. Take the directory `laptop` to the other host, and there:

  openclawctl context add box --from laptop
  openclawctl --context box status

For a key that never leaves the other host, `cert request` makes it there, and
`cert issue --request` signs what it has written.";

const ISSUE_HELP: &str = "\
Examples:
  openclawctl cert issue laptop --role operator         into the directory `laptop`
  openclawctl cert issue spare --role rescue --instance spare
  openclawctl cert issue ci --role viewer --valid 30d --dir /run/ci
  openclawctl cert issue laptop --role admin --request laptop.csr";

/// The longest signing request that is read.
const MAX_REQUEST: u64 = 64 << 10;
/// What a request to sign is called, beside its key.
const REQUEST: &str = "client.csr";

/// The certificates of callers from other hosts
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Cert {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a private authority, and a certificate for the supervisor
    ///
    /// The authority is made once; the supervisor's certificate is made anew each time,
    /// for the loopback and the hosts named here.
    Init {
        /// A name or address by which others reach this host; may be given more than once
        #[arg(long = "name", value_name = "HOST", value_hint = ValueHint::Hostname)]
        hosts: Vec<String>,
    },
    Issue(Issue),
    /// Make a key on this host, and a request to sign
    Request {
        /// Whom the certificate is to be for
        name: String,
        /// Where to write both [default: a directory called NAME]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
        /// Replace the files that are there
        #[arg(long)]
        force: bool,
    },
    /// List the authority, the supervisor's certificate, and those that were issued
    List,
    /// Take certificates back; whoever calls with one is disconnected
    Revoke {
        /// All certificates of this name
        #[arg(required_unless_present = "serial", conflicts_with = "serial")]
        name: Option<String>,
        /// Only the one with this serial number
        #[arg(long, value_name = "NUMBER")]
        serial: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Issue a certificate to a caller
#[derive(Debug, Args)]
#[command(after_help = ISSUE_HELP)]
struct Issue {
    /// Whom it is for
    name: String,
    /// What its holder may do
    #[arg(long, value_enum)]
    role: Role,
    /// Which instance a rescue is
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    #[arg(required_if_eq("role", "rescue"))]
    instance: Option<String>,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "365d")]
    valid: Duration,
    /// Sign the request in this file, whose key is elsewhere; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    request: Option<PathBuf>,
    /// Where to write it, its key, and a context [default: a directory called NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Where the supervisor is reached, for the context [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    address: Option<String>,
    /// Replace the files that are there
    #[arg(long)]
    force: bool,
}

/// `--role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Viewer,
    Operator,
    Admin,
    Rescue,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Rescue => "rescue",
        }
    }
}

fn address(text: &str) -> Result<String, String> {
    check_address(text).map(|()| text.to_owned())
}

/// Does what was asked.
pub(crate) async fn run(args: &Cert, context: &Context) -> Result<(), Failure> {
    match &args.verb {
        Verb::Init { hosts } => init(hosts, context).await?,
        Verb::Issue(args) => issue(args, context).await?,
        Verb::Request { name, dir, force } => request(name, dir.as_deref(), overwrite(*force))?,
        Verb::List => list(context).await?,
        Verb::Revoke { name, serial, yes } => {
            let consent = Consent::from_flag(*yes);
            revoke((name.as_deref(), serial.as_deref()), consent, context).await?;
        }
    }
    Ok(())
}

fn overwrite(force: bool) -> Overwrite {
    if force { Overwrite::Yes } else { Overwrite::No }
}

async fn init(hosts: &[String], context: &Context) -> Result<(), Error> {
    let operation = Operation::new("make the authority");
    let supervisor = context.connect(&operation).await?;
    let request = InitAuthorityRequest { hosts: hosts.to_vec(), request_id: request_id() };
    let call = async || supervisor.certificates().init_authority(request.clone()).await;
    let answer = supervisor.call(&operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "InitAuthorityResponse", &answer)
        }
        Show::Text(_) => {
            answer.steps.iter().for_each(|step| talk(step));
            Ok(())
        }
    }
}

async fn issue(args: &Issue, context: &Context) -> Result<(), Error> {
    let operation = Operation::new(format!("issue a certificate to `{}`", args.name));
    let fail = |cause: Cause| cause.during(&operation);
    let (key, signing_request) = match &args.request {
        Some(path) => (None, read(path).map_err(fail)?),
        None => {
            let (key, request) = make_key(&args.name).map_err(fail)?;
            (Some(key), request)
        }
    };
    let dir = args.dir.clone().unwrap_or_else(|| args.name.clone().into());
    // Before anything is issued that could then not be written down.
    make_secret_directory(&dir).map_err(|error| fail(error.into()))?;
    let supervisor = context.connect(&operation).await?;
    let request = IssueCertificateRequest {
        name: args.name.clone(),
        role: args.role.word().into(),
        instance: args.instance.clone().unwrap_or_default(),
        valid_for: prost_types::Duration::try_from(args.valid).ok(),
        signing_request,
        request_id: request_id(),
    };
    let call = async || supervisor.certificates().issue_certificate(request.clone()).await;
    let answer = supervisor.call(&operation, call).await?;
    keep(args, &dir, &answer, key.as_ref()).map_err(fail)?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "IssueCertificateResponse", &answer)
        }
        Show::Text(_) => {
            let issued = answer.issued.as_ref().map(certificate::end).unwrap_or_default();
            talk(&format!("issued a certificate to {} ({}), {issued}", args.name, args.role.word()));
            talk(&format!("wrote it to {}", dir.display()));
            if args.address.is_none() && answer.addresses.is_empty() {
                talk(
                    "the supervisor listens nowhere by TCP yet; name its address with --address for a context",
                );
            }
            Ok(())
        }
    }
}

/// Writes what was issued, and a context that uses it.
fn keep(
    args: &Issue,
    dir: &Path,
    answer: &IssueCertificateResponse,
    key: Option<&KeyPair>,
) -> Result<(), Cause> {
    let [ca, certificate, key_file] = COPIES;
    let overwrite = overwrite(args.force);
    if let Some(key) = key {
        write(&dir.join(key_file), key.serialize_pem().as_bytes(), overwrite)?;
    }
    write(&dir.join(ca), answer.ca_certificate.as_bytes(), overwrite)?;
    write(&dir.join(certificate), answer.certificate.as_bytes(), overwrite)?;
    let address = args.address.as_ref().or(answer.addresses.first());
    let Some(address) = address else { return Ok(()) };
    let door = Door::Tcp(Tcp {
        address: address.clone(),
        ca: ca.into(),
        certificate: certificate.into(),
        key: key_file.into(),
        server_name: None,
    });
    let text = ready(&Entry { door, token_file: None })?;
    write(&dir.join(READY), text.as_bytes(), overwrite)?;
    Ok(())
}

fn request(name: &str, dir: Option<&Path>, overwrite: Overwrite) -> Result<(), Error> {
    let operation = Operation::new(format!("make a key for `{name}`"));
    let dir = dir.unwrap_or(Path::new(name));
    let made = || -> Result<(), Cause> {
        let (key, request) = make_key(name)?;
        make_secret_directory(dir)?;
        let [_, _, key_file] = COPIES;
        write(&dir.join(key_file), key.serialize_pem().as_bytes(), overwrite)?;
        write(&dir.join(REQUEST), request.as_bytes(), overwrite)?;
        Ok(())
    };
    made().map_err(|cause| cause.during(&operation))?;
    talk(&format!("made a key in {}", dir.display()));
    talk(&format!(
        "on the supervisor's host: openclawctl cert issue {name} --role ROLE --request {REQUEST}, then add what it \
         writes to {}",
        dir.display()
    ));
    Ok(())
}

/// A key, and a request to sign it.
fn make_key(name: &str) -> Result<(KeyPair, String), Cause> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

fn read(path: &Path) -> Result<String, Cause> {
    let failed = |source: io::Error| {
        let (name, is_text) = (path.display().to_string(), source.kind() != io::ErrorKind::InvalidData);
        if is_text { Cause::ReadFile { name, source } } else { Cause::FileEncoding }
    };
    let mut text = String::new();
    let from: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        Some(_) | None => Box::new(File::open(path).map_err(failed)?),
    };
    from.take(MAX_REQUEST).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

async fn list(context: &Context) -> Result<(), Error> {
    let operation = Operation::new("list the certificates");
    let supervisor = context.connect(&operation).await?;
    let call = async || supervisor.certificates().list_certificates(ListCertificatesRequest {}).await;
    let answer = supervisor.call(&operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "ListCertificatesResponse", &answer)
        }
        Show::Text(_) => context.print(&operation, &certificate::list(&answer)),
    }
}

async fn revoke(
    (name, serial): (Option<&str>, Option<&str>),
    consent: Consent,
    context: &Context,
) -> Result<(), Error> {
    let whose = match (name, serial) {
        (Some(name), _) => format!("the certificates of `{name}`"),
        (None, serial) => format!("the certificate {}", serial.unwrap_or_default()),
    };
    let operation = Operation::new(format!("revoke {whose}"));
    let supervisor = context.connect(&operation).await?;
    consent.obtain(&format!("revoke {whose} for good"), &operation)?;
    let request = RevokeCertificateRequest {
        name: name.unwrap_or_default().into(),
        serial: serial.unwrap_or_default().into(),
        request_id: request_id(),
    };
    let call = async || supervisor.certificates().revoke_certificate(request.clone()).await;
    let answer = supervisor.call(&operation, call).await?;
    match context.show {
        Show::Encoded(encoding) => {
            context.print_message(&operation, encoding, "RevokeCertificateResponse", &answer)
        }
        Show::Text(_) => {
            for revoked in &answer.revoked {
                talk(&format!("revoked {} of {}", revoked.serial, revoked.name));
            }
            Ok(())
        }
    }
}
