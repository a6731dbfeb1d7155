//! The private authority: makes itself, the server's certificate, those of callers, and takes them back.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::{
    Files, PRIVATE, PUBLIC, PkiError,
    certificate::{Facts, Subject, hex},
    read, read_private, write,
};
use crate::role::Grant;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the authority is good for: nobody should have to visit every caller because of a date.
const AUTHORITY_FOR: Duration = Duration::from_secs(3_650 * 24 * 3600);

/// How long the server's certificate is good for: some clients take none that is good for longer.
const SERVER_FOR: Duration = Duration::from_secs(820 * 24 * 3600);

/// The longest that a caller's may be good for.
pub(crate) const LONGEST: Duration = AUTHORITY_FOR;

/// Clocks that are this far behind take a certificate at once.
const SKEW: Duration = Duration::from_secs(300);

/// Certificates that are known. Each is a file of a kilobyte, read when they are listed.
const MOST: usize = 10_000;

/// For so long after its end a certificate is still listed.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Hosts in the server's certificate.
const MOST_HOSTS: usize = 64;

/// A request to sign, as text: a key of 16 Kibit and some names.
const MOST_REQUEST: usize = 16 << 10;

/// The hosts that are always this one.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What makes certificates, with its key.
pub(crate) struct Authority {
    files: Files,
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

/// What there is after a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The authority's certificate, as text.
    pub(crate) ca: String,
    /// The server's.
    pub(crate) server: Facts,
    /// What was done, a sentence each without its full stop.
    pub(crate) steps: Vec<String>,
}

/// A certificate that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// For whom.
    pub(crate) subject: Subject,
    /// What its holder may do.
    pub(crate) grant: Grant,
    /// How long it is good for.
    pub(crate) valid_for: Duration,
    /// The request to sign (PKCS #10), as text. Only its key is taken from it.
    pub(crate) request: String,
}

/// One that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    /// The certificate, as text.
    pub(crate) certificate: String,
    /// The authority's.
    pub(crate) ca: String,
    /// What it says.
    pub(crate) facts: Facts,
}

/// One that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What it says.
    pub(crate) facts: Facts,
    /// When it was revoked, in seconds since the Unix epoch.
    pub(crate) revoked: Option<i64>,
}

/// Which certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All that this one has.
    Of(Subject),
    /// The one with this number.
    Serial(String),
}

impl Selection {
    fn contains(&self, facts: &Facts) -> bool {
        match self {
            Self::Of(subject) => facts.name == subject.as_str(),
            Self::Serial(serial) => facts.serial == *serial,
        }
    }

    fn described(&self) -> String {
        match self {
            Self::Of(subject) => format!("is `{subject}`'s"),
            Self::Serial(serial) => format!("has the serial number {}", serial.escape_default()),
        }
    }
}

impl Authority {
    /// Begins: makes an authority unless there is one, and a certificate for the server under these names.
    pub(crate) fn init(files: &Files, hosts: &[String]) -> Result<Made, PkiError> {
        let hosts = check_hosts(hosts)?;
        files.make()?;
        let mut steps = Vec::new();
        let authority = match Self::open(files) {
            Ok(authority) => authority,
            Err(PkiError::Missing { path }) if path == files.ca() => {
                steps.push(format!("made a private authority in `{}`", files.0.display()));
                Self::make(files)?
            }
            Err(error) => return Err(error),
        };
        // Its list of revoked certificates cannot be made again: they are written down nowhere else.
        revoked(files)?;
        let server = authority.make_server(&hosts)?;
        steps.push(format!("made the server's certificate for {}", server.hosts.join(", ")));
        Ok(Made { ca: authority.certificate()?, server, steps })
    }

    /// The one that there is.
    pub(crate) fn open(files: &Files) -> Result<Self, PkiError> {
        let path = files.ca();
        let content = read(&path)?;
        let der =
            CertificateDer::from_pem_slice(&content).map_err(|error| PkiError::damaged(&path, &error))?;
        let not_after = Facts::read(&der).map_err(|what| PkiError::damaged(&path, &what))?.not_after;
        let key_path = files.ca_key();
        let key = match read_private(&key_path) {
            Err(PkiError::Missing { .. }) => return Err(PkiError::NoKey { directory: files.0.clone() }),
            key => text(&key_path, key?)?,
        };
        let key = KeyPair::from_pem(&key).map_err(|_| PkiError::damaged(&key_path, "it holds no key"))?;
        let of_this_key = parse_x509_certificate(&der)
            .is_ok_and(|(_, ca)| *ca.public_key().subject_public_key.data == *key.public_key_raw());
        if !of_this_key {
            return Err(PkiError::damaged(&key_path, "it is not the key of `ca.crt`"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| PkiError::damaged(&path, &error))?;
        Ok(Self { files: files.clone(), issuer, not_after })
    }

    /// What is left over from a beginning that was broken off, before there was a certificate, is replaced.
    fn make(files: &Files) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params("OpenClaw supervisor", AUTHORITY_FOR, i64::MAX);
        // Two authorities must not have one name: a client that trusts both would try the wrong one.
        params.distinguished_name.push(DnType::OrganizationalUnitName, hex(&key.public_key_raw()[1..9]));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?;
        write(&files.ca_key(), &key.serialize_pem(), PRIVATE)?;
        let not_after = params.not_after.unix_timestamp();
        let authority = Self { files: files.clone(), issuer: Issuer::new(params, key), not_after };
        authority.write_list(&Revoked { number: 1, ..Revoked::default() })?;
        write(&files.ca(), &certificate.pem(), PUBLIC)?;
        Ok(authority)
    }

    fn certificate(&self) -> Result<String, PkiError> {
        let path = self.files.ca();
        text(&path, read(&path)?)
    }

    fn make_server(&self, hosts: &[String]) -> Result<Facts, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params("OpenClaw supervisor", SERVER_FOR, self.not_after);
        params.subject_alt_names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        // One file, so that nobody ever sees a certificate with the key of another.
        write(&self.files.server(), &format!("{}{}", certificate.pem(), key.serialize_pem()), PRIVATE)?;
        Facts::read(certificate.der()).map_err(|what| PkiError::damaged(&self.files.server(), &what))
    }

    /// Issues what is wished for. It is written down before this returns.
    pub(crate) fn issue(&self, wish: &Wish) -> Result<Issued, PkiError> {
        if !(DAY / 24..=LONGEST).contains(&wish.valid_for) {
            return Err(PkiError::Unfit("a certificate is good for one hour to ten years".into()));
        }
        if wish.request.len() > MOST_REQUEST {
            return Err(PkiError::Unfit(format!("the request to sign is longer than {MOST_REQUEST} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(&wish.request)
            .map_err(|error| PkiError::Unfit(format!("the request to sign cannot be used: {error}")))?;
        let known = self.forget_old()?;
        if known >= MOST {
            return Err(PkiError::TooMany(known));
        }
        let mut params = params(wish.subject.as_str(), wish.valid_for, self.not_after);
        for uri in Facts::uris(&wish.grant) {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        let facts = Facts::read(certificate.der()).map_err(PkiError::Unfit)?;
        let path = self.files.issued().join(format!("{}.crt", facts.serial));
        write(&path, &certificate.pem(), PUBLIC)?;
        Ok(Issued { certificate: certificate.pem(), ca: self.certificate()?, facts })
    }

    /// Takes certificates back. They are refused from now on, and what they have opened is closed.
    pub(crate) fn revoke(&self, which: &Selection) -> Result<Vec<Listed>, PkiError> {
        let (mut revoked, now) = (revoked(&self.files)?, now());
        let good = |one: &Listed| one.revoked.is_none() && one.facts.not_after > now;
        let mut taken: Vec<Listed> =
            list(&self.files)?.into_iter().filter(|one| which.contains(&one.facts) && good(one)).collect();
        if taken.is_empty() {
            return Err(PkiError::Unknown(which.described()));
        }
        for one in &mut taken {
            one.revoked = Some(now);
            revoked.serials.insert(one.facts.serial.clone(), now);
        }
        self.write_list(&Revoked { number: revoked.number + 1, ..revoked })?;
        Ok(taken)
    }

    fn write_list(&self, revoked: &Revoked) -> Result<(), PkiError> {
        let revoked_certs = revoked.serials.iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from(bytes(serial)),
            revocation_time: moment(*at),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: moment(now()),
            next_update: moment(self.not_after),
            crl_number: SerialNumber::from(revoked.number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write(&self.files.crl(), &list.signed_by(&self.issuer)?.pem()?, PUBLIC)
    }

    /// Removes the copies of certificates that ended long ago; says how many are left.
    fn forget_old(&self) -> Result<usize, PkiError> {
        let ended_before = now() - seconds(REMEMBERED);
        let mut left = 0;
        for (path, facts) in copies(&self.files)? {
            if facts.not_after >= ended_before {
                left += 1;
            } else {
                fs::remove_file(&path).map_err(|source| PkiError::Write { path, source })?;
            }
        }
        Ok(left)
    }
}

/// The certificates that were issued, by name, and of one name the newest first.
pub(crate) fn list(files: &Files) -> Result<Vec<Listed>, PkiError> {
    let revoked = match revoked(files) {
        Err(PkiError::Missing { .. }) => Revoked::default(),
        revoked => revoked?,
    };
    let listed = copies(files)?.into_iter().map(|(_, facts)| {
        let revoked = revoked.serials.get(&facts.serial).copied();
        Listed { facts, revoked }
    });
    let mut listed: Vec<Listed> = listed.collect();
    listed.sort_by(|a, b| {
        (&a.facts.name, b.facts.not_before, &a.facts.serial).cmp(&(
            &b.facts.name,
            a.facts.not_before,
            &b.facts.serial,
        ))
    });
    Ok(listed)
}

/// The authority's and the server's certificates, as far as they are there.
pub(crate) fn own(files: &Files) -> (Option<Facts>, Option<Facts>) {
    let facts = |path: PathBuf| Facts::of_pem(&path, &read(&path).ok()?).ok();
    (facts(files.ca()), facts(files.server()))
}

/// The copies that are there. What is no certificate is not ours.
fn copies(files: &Files) -> Result<Vec<(PathBuf, Facts)>, PkiError> {
    let path = files.issued();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PkiError::Read { path, source }),
    };
    // Some more than can be made here: who put others there may see them.
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).take(2 * MOST);
    let certificates = paths.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    Ok(certificates
        .filter_map(|path| {
            let facts = Facts::of_pem(&path, &read(&path).ok()?).ok()?;
            Some((path, facts))
        })
        .collect())
}

/// What was revoked, by serial number, and when.
#[derive(Debug, Default)]
struct Revoked {
    number: u64,
    serials: BTreeMap<String, i64>,
}

fn revoked(files: &Files) -> Result<Revoked, PkiError> {
    let path = files.crl();
    let content = read(&path)?;
    let der = CertificateRevocationListDer::from_pem_slice(&content)
        .map_err(|error| PkiError::damaged(&path, &error))?;
    let (_, list) = parse_x509_crl(&der).map_err(|error| PkiError::damaged(&path, &error))?;
    let number = list.crl_number().and_then(|number| number.try_into().ok()).unwrap_or_default();
    let entries = list.iter_revoked_certificates();
    let serials = entries.map(|entry| (hex(entry.raw_serial()), entry.revocation_date.timestamp()));
    Ok(Revoked { number, serials: serials.collect() })
}

/// What all certificates have in common: good from now on, never for longer than their authority.
fn params(name: &str, valid_for: Duration, at_most: i64) -> CertificateParams {
    let now = now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now - seconds(SKEW));
    params.not_after = moment((now + seconds(valid_for)).min(at_most));
    params.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::now_v7().as_bytes()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The hosts that a server's certificate is to be for: those always, and these.
fn check_hosts(hosts: &[String]) -> Result<Vec<String>, PkiError> {
    let mut all: Vec<String> = LOOPBACK.iter().map(|host| (*host).to_owned()).collect();
    for host in hosts {
        host_name(host)?;
        if !all.contains(host) {
            all.push(host.clone());
        }
    }
    match all.len() {
        0..=MOST_HOSTS => Ok(all),
        more => Err(PkiError::Unfit(format!(
            "{more} hosts do not fit into one certificate; at most {MOST_HOSTS}"
        ))),
    }
}

fn host_name(host: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    match host.len() <= 253 && name.split('.').all(label) {
        true => Ok(SanType::DnsName(host.try_into()?)),
        false => Err(PkiError::Unfit(format!(
            "`{}` is neither a host's name nor an address",
            host.escape_default()
        ))),
    }
}

fn text(path: &Path, content: Vec<u8>) -> Result<String, PkiError> {
    String::from_utf8(content).map_err(|_| PkiError::damaged(path, "it is not text"))
}

/// The number that `hex` writes.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    seconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn moment(seconds: i64) -> OffsetDateTime {
    // Out of range only for a clock thousands of years off.
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
