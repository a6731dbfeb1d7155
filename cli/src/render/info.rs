//! Everything about the supervisor.

use supervisor_proto::v1::GetInfoResponse;

use super::{
    sheet::Sheet,
    style::{self, paint, printable},
    time::{Clock, between, humane, now},
};

/// Appends everything about the supervisor to `out`.
pub(crate) fn sheet(info: &GetInfoResponse, out: &mut String) {
    out.push_str(&format!("{}  {}\n", paint(style::STRONG, "supervisor"), paint(style::GOOD, "running")));
    let mut sheet = Sheet::new(out);
    sheet.line("version", &printable(&info.version));
    sheet.line("process", &format!("pid {}, life {} on its data directory", info.pid, info.epoch));
    if let Some(start) = &info.start_time {
        sheet.line(
            "uptime",
            &format!("{}, since {}", humane(between(start, &now())), Clock::local().time(start)),
        );
    }
    sheet.line("instances", &info.instances.to_string());
    sheet.line("revision", &info.revision.to_string());
    sheet.line("data", &printable(&info.data_dir));
    sheet.line("socket", &printable(&info.socket));
    sheet.line("can", &printable(&info.capabilities.join(", ")));
}
