//! Certificates as a table.

use supervisor_proto::v1::{Certificate, ListCertificatesResponse, certificate::State};

use super::{
    sheet::Sheet,
    style::{self, printable, stdout_width},
    table::{Cell, Side, Table},
    time::{Clock, ago, between, humane, now},
};

/// The authority and the server's certificate, then those of callers.
pub(crate) fn list(answer: &ListCertificatesResponse) -> String {
    let mut out = String::new();
    let mut sheet = Sheet::new(&mut out);
    match &answer.authority {
        Some(authority) => sheet.line("authority", &end(authority)),
        None => sheet.line("authority", "there is none; openclawctl cert init makes it"),
    }
    if let Some(server) = &answer.server {
        sheet.line("server", &format!("{}, {}", printable(&server.hosts.join(", ")), end(server)));
    }
    match answer.addresses.as_slice() {
        [] => sheet.line("listens", "nowhere by TCP; `listen` in the settings says where"),
        addresses => sheet.line("listens", &printable(&addresses.join(", "))),
    }
    if !answer.certificates.is_empty() {
        out.push('\n');
        table(&answer.certificates, &mut out);
    }
    out
}

fn table(certificates: &[Certificate], out: &mut String) {
    let left = |title| (title, Side::Left);
    let mut table = Table::new(["NAME", "ROLE", "INSTANCE", "STATE", "SERIAL"].map(left))
        .within(stdout_width())
        .ranked(&["NAME", "STATE", "ROLE", "SERIAL"]);
    for certificate in certificates {
        let or_none = |text: &str| match text {
            "" => Cell::none(),
            text => printable(text).into(),
        };
        table.row(vec![
            Cell::styled(printable(&certificate.name), style::STRONG),
            or_none(&certificate.role),
            or_none(&certificate.instance),
            state(certificate),
            printable(&certificate.serial).into(),
        ]);
    }
    table.render(out);
}

fn state(certificate: &Certificate) -> Cell {
    match certificate.state() {
        State::Good => Cell::styled(end(certificate), style::PLAIN),
        State::Expired => Cell::styled(end(certificate), style::FAINT),
        State::Revoked => {
            let when = certificate.revoke_time.as_ref().map(|at| format!(" {}", ago(at))).unwrap_or_default();
            Cell::styled(format!("revoked{when}"), style::FAINT)
        }
        State::Unspecified => Cell::none(),
    }
}

/// Until when it is good.
pub(crate) fn end(certificate: &Certificate) -> String {
    let Some(not_after) = &certificate.not_after else { return "good".into() };
    let left = between(&now(), not_after);
    if left.is_zero() {
        format!("ended {}", ago(not_after))
    } else {
        format!("good for {}, until {}", humane(left), Clock::local().time(not_after))
    }
}
