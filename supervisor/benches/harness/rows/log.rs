//! Log capture: a child that writes as fast as it can, until everything is in the log's files, and all of it is
//! what was written.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use supervisor_proto::v1::{self, InstanceSpec, LogPolicy};

use crate::{
    bench::Bench,
    child::LINE,
    floor,
    host::{self, Client, Host},
    stats::Samples,
    table::{Line, Verdict, digits},
    watch,
};

/// 1 GiB.
const BYTES: u64 = 1 << 30;

/// So many files that nothing is dropped before it is looked at: the default size of a file is 16 MiB.
const FILES: u32 = 100;

/// MB/s.
const LEAST: f64 = 500.0;

/// Beside the same child that writes a file by itself.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    let (mut captured, mut written) = (Vec::new(), Vec::new());
    for number in 0..bench.runs {
        captured.push(capture(bench, &mut client, &format!("log-{number}")).await?);
        written.push(floor::write_lines(bench, BYTES).await?);
    }
    let (captured, written) = (Samples::new(captured)?, Samples::new(written)?);
    let rate = |samples: &Samples| BYTES as f64 / samples.median().as_secs_f64() / 1e6;
    Ok(vec![Line {
        what: "log capture with rotation, nothing lost".into(),
        target: format!("{} MB/s", digits(LEAST)),
        measured: format!("{} MB/s", digits(rate(&captured))),
        verdict: Verdict::of(rate(&captured) >= LEAST),
        runs: captured.count(),
        beside: format!(
            "1 GiB, every line checked; the child to a file by itself {} MB/s",
            digits(rate(&written))
        ),
    }])
}

/// How long it takes until all lines are in the log.
async fn capture(bench: &Bench, client: &mut Client, name: &str) -> anyhow::Result<Duration> {
    let log = LogPolicy { max_files: FILES, ..Default::default() };
    let spec = InstanceSpec { log: Some(log), ..host::child(bench, &[BYTES.to_string()]) };
    let status = client.run(name, spec).await?;
    let port = host::gateway_port(&status)?;
    let directory = PathBuf::from(status.directories.context("an instance has no directories")?.logs);
    // The first connection is also what sets it off.
    let begun = watch::at_once("the child listens", || watch::is_listening(port))?;
    let all = || Ok(files(&directory)?.iter().map(|(_, size)| size).sum::<u64>() >= BYTES);
    let kept = watch::until("all lines are in the log", all).await?;
    check(&directory)?;
    client.down(name).await?;
    let request = v1::DeleteInstanceRequest { name: name.into(), purge: true, ..Default::default() };
    client.instances.delete_instance(request).await.context("failed to delete an instance")?;
    Ok(kept - begun)
}

/// The log's files in their order, and their sizes.
fn files(directory: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("gateway-") && name.ends_with(".log") {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Every line is there, once, in its place and whole.
fn check(directory: &Path) -> anyhow::Result<()> {
    let mut expected: u64 = 0;
    let mut line = Vec::with_capacity(LINE);
    for (path, _) in files(directory)? {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
        while reader.read_until(b'\n', &mut line)? > 0 {
            let number =
                line.get(..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            let whole = line.len() == LINE && line.iter().skip(12).take(LINE - 13).all(|byte| *byte == b'x');
            anyhow::ensure!(whole && number == Some(expected), "line {expected} is {}", line.escape_ascii());
            expected += 1;
            line.clear();
        }
    }
    let lines = BYTES / LINE as u64;
    anyhow::ensure!(expected == lines, "{expected} of {lines} lines are in the log");
    Ok(())
}
