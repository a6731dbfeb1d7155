//! Port blocks as a table.

use supervisor_proto::v1::{InstancePorts, PortUse};

use super::{
    status::Breadth,
    style::{self, INDENT, paint, printable, stdout_width, wrapped},
    table::{Cell, Side, Table},
};

/// The table, then a line for each squatter.
pub(crate) fn text(instances: &[InstancePorts], breadth: Breadth) -> String {
    let mut table = Table::new([
        ("NAME", Side::Left),
        ("BLOCK", Side::Left),
        ("PORT", Side::Left),
        ("PURPOSE", Side::Left),
        ("HELD BY", Side::Left),
    ])
    .within(stdout_width())
    .ranked(&["NAME", "PORT", "HELD BY", "PURPOSE", "BLOCK"])
    .flexible("HELD BY");
    let mut squatters = Vec::new();
    for instance in instances {
        let name = printable(&instance.instance);
        let mut title =
            Some((Cell::styled(&name, style::STRONG), format!("{}-{}", instance.base, instance.last)));
        for run in runs(&instance.ports) {
            let (name, block) = title.take().unwrap_or((Cell::from(""), String::new()));
            table.row(vec![
                name,
                block.into(),
                span(run).into(),
                printable(&run[0].purpose).into(),
                holder(&run[0], breadth),
            ]);
        }
        if let Some((name, block)) = title {
            table.row(vec![name, block.into(), Cell::none(), Cell::none(), Cell::none()]);
        }
        squatters.extend(instance.ports.iter().filter(|port| port.foreign).map(|port| squatter(&name, port)));
    }
    let mut out = String::new();
    table.render(&mut out);
    if !squatters.is_empty() {
        out.push('\n');
    }
    for line in squatters {
        out.push_str(&line);
    }
    out
}

/// Neighbouring ports of one purpose that nobody holds go on one line.
fn runs(ports: &[PortUse]) -> impl Iterator<Item = &[PortUse]> {
    ports.chunk_by(|a, b| a.pid == 0 && b.pid == 0 && a.purpose == b.purpose && a.port + 1 == b.port)
}

fn span(run: &[PortUse]) -> String {
    match run {
        [] => String::new(),
        [only] => only.port.to_string(),
        [first, .., last] => format!("{}-{}", first.port, last.port),
    }
}

fn holder(port: &PortUse, breadth: Breadth) -> Cell {
    let command = match breadth {
        Breadth::Narrow => program(&port.command),
        Breadth::Wide => &port.command,
    };
    match (port.pid, port.foreign) {
        (0, false) => Cell::none(),
        (_, false) => Cell::from(process(port.pid, command)),
        (_, true) => Cell::styled(format!("{}, foreign", process(port.pid, command)), style::BAD),
    }
}

/// The name of the program in a command line, without its directory and arguments.
fn program(command: &str) -> &str {
    let path = command.split_whitespace().next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

fn process(pid: i32, command: &str) -> String {
    match (pid, command.is_empty()) {
        (0, _) => "unknown process".to_owned(),
        (pid, true) => format!("pid {pid}"),
        (pid, false) => format!("pid {pid} ({})", printable(command)),
    }
}

fn squatter(instance: &str, port: &PortUse) -> String {
    let hint = paint(style::HINT, "hint:");
    let remedy = match port.pid {
        0 => "find it as root with `openclawctl ports`".to_owned(),
        pid => format!("end process {pid}, or give {instance} another `port` in the fleet file"),
    };
    let holder = process(port.pid, &port.command);
    let told = format!("port {} of {instance} is held by {holder}, which is not its own", port.port);
    let width = stdout_width();
    format!("{}\n{}\n", wrapped(&told, width, INDENT), wrapped(&format!("  {hint} {remedy}"), width, INDENT))
}
