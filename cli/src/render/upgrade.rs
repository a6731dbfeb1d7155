//! Versions of OpenClaw, and what an upgrade has done, as text.

use supervisor_proto::v1::{InstalledRuntime, Upgrade, UpgradeInstanceResponse};

use super::{
    import,
    style::{self, INDENT, clause, paint, printable, stdout_width, wrapped},
    table::{Cell, Side, Table},
    time::ago,
};

/// What was done to one.
pub(crate) fn done(name: &str, answer: &UpgradeInstanceResponse) -> String {
    if answer.unchanged {
        return format!("{}: it is on {} already\n", printable(name), printable(&answer.version));
    }
    import::done(name, &answer.steps, &answer.notes)
}

/// The installed versions, and below them those that failed on somebody.
pub(crate) fn list(runtimes: &[InstalledRuntime], upgrades: &[Upgrade]) -> String {
    let mut text = String::new();
    if runtimes.is_empty() {
        text.push_str(&wrapped(
            "no version of OpenClaw is installed by this supervisor",
            stdout_width(),
            INDENT,
        ));
        text.push('\n');
    } else {
        let mut table = Table::new([
            ("VERSION", Side::Left),
            ("INSTALLED", Side::Left),
            ("FROM", Side::Left),
            ("USED BY", Side::Left),
        ])
        .within(stdout_width())
        .ranked(&["VERSION", "USED BY", "INSTALLED"])
        .flexible("USED BY");
        for runtime in runtimes {
            let users: Vec<String> = runtime.instances.iter().map(|name| printable(name)).collect();
            table.row(vec![
                printable(&runtime.version).into(),
                runtime.install_time.as_ref().map_or_else(Cell::none, |time| ago(time).into()),
                printable(&runtime.source).into(),
                if users.is_empty() { Cell::none() } else { users.join(", ").into() },
            ]);
        }
        table.render(&mut text);
    }
    let width = stdout_width();
    let mut line = |what: &str| {
        text.push_str(&wrapped(what, width, INDENT));
        text.push('\n');
    };
    for upgrade in upgrades {
        let name = printable(&upgrade.name);
        if !upgrade.under_way.is_empty() {
            line(&format!("{name}: is being moved to {}", printable(&upgrade.under_way)));
        }
        for failed in &upgrade.failed {
            let (version, when) = (printable(&failed.version), failed.fail_time.as_ref().map(ago));
            let when = when.map(|when| format!(" {when}")).unwrap_or_default();
            let label = paint(style::WARNING, &format!("{version} failed{when}:"));
            line(&format!("{name}: {label} {}", clause(&failed.reason)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use supervisor_proto::v1::FailedVersion;

    use super::*;

    #[test]
    fn versions_are_listed_with_who_uses_them_and_where_they_failed() {
        let runtime = |version: &str, instances: &[&str]| InstalledRuntime {
            version: version.into(),
            source: "npm".into(),
            instances: instances.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let failed = FailedVersion { version: "2026.9.6".into(), reason: "it died".into(), fail_time: None };
        let upgrade = Upgrade { name: "main".into(), failed: vec![failed], ..Default::default() };
        let listed = list(&[runtime("2026.2.9", &["main", "lab"]), runtime("2026.9.6", &[])], &[upgrade]);
        let text = anstream::adapter::strip_str(&listed).to_string();
        let expected = "\
VERSION   INSTALLED  FROM  USED BY
2026.2.9  -          npm   main, lab
2026.9.6  -          npm   -
main: 2026.9.6 failed: it died
";
        assert_eq!(text, expected);
        assert_eq!(list(&[], &[]), "no version of OpenClaw is installed by this supervisor\n");
    }
}
