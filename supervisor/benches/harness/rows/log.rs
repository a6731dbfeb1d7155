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
    table::{Line, Verdict, digits, time},
    watch,
};

/// 1 GiB.
const BYTES: u64 = 1 << 30;

/// What other supervisors were measured with: about 100 MB, in whole lines.
const PEERS_BYTES: u64 = 100_000_000 / LINE as u64 * LINE as u64;

/// So many files that nothing is dropped before it is looked at: the default size of a file is 16 MiB.
const FILES: u32 = 100;

/// MB/s.
const LEAST: f64 = 500.0;

/// Beside the same child that writes a file by itself.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut host = Host::start(bench).await?;
    let mut client = host.connect().await?;
    let (mut captured, mut small, mut written, mut stalls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..bench.runs {
        let (took, stall) = capture(bench, &mut client, &format!("log-{number}"), BYTES).await?;
        captured.push(took);
        stalls.push(stall);
        small.push(capture(bench, &mut client, &format!("small-{number}"), PEERS_BYTES).await?.0);
        written.push(floor::write_lines(bench, BYTES).await?);
    }
    let (captured, small, written) = (Samples::new(captured)?, Samples::new(small)?, Samples::new(written)?);
    let stalls = Samples::new(stalls)?;
    let speed = |bytes: u64, samples: &Samples| bytes as f64 / samples.median().as_secs_f64() / 1e6;
    let rate = |samples: &Samples| speed(BYTES, samples);
    Ok(vec![Line {
        what: "log capture with rotation, nothing lost".into(),
        target: format!("{} MB/s", digits(LEAST)),
        measured: format!("{} MB/s", digits(rate(&captured))),
        verdict: Verdict::of(rate(&captured) >= LEAST),
        runs: captured.count(),
        beside: format!(
            "1 GiB, every line checked, the child's longest wait {}; 100 MB {} MB/s; the child to a file by itself {} MB/s",
            time(stalls.percentile(100)),
            digits(speed(PEERS_BYTES, &small)),
            digits(rate(&written))
        ),
    }])
}

/// How long it takes until all lines are in the log, and how long the child waited at most in one write.
async fn capture(
    bench: &Bench,
    client: &mut Client,
    name: &str,
    bytes: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let log = LogPolicy { max_files: FILES, ..Default::default() };
    let spec = InstanceSpec { log: Some(log), ..host::child(bench, &[bytes.to_string()]) };
    let status = client.run(name, spec).await?;
    let port = host::gateway_port(&status)?;
    let directory = PathBuf::from(status.directories.context("an instance has no directories")?.logs);
    // The first connection is also what sets it off.
    let begun = watch::at_once("the child listens", || watch::is_listening(port))?;
    let all = || Ok(files(&directory)?.iter().map(|(_, size)| size).sum::<u64>() >= bytes);
    let kept = watch::until("all lines are in the log", all).await?;
    // Aside, or the supervisor would miss this client's answers and let it go.
    let checked = tokio::task::spawn_blocking(move || check(&directory, bytes)).await;
    checked.context("failed to check the log")??;
    let stall = PathBuf::from(format!("/proc/{}/cwd/stall", status.pid));
    watch::until("the child has said how long it waited", || {
        Ok(fs::read_to_string(&stall).is_ok_and(|text| text.ends_with('\n')))
    })
    .await?;
    let stall =
        fs::read_to_string(stall)?.trim().parse().context("failed to read how long the child waited")?;
    client.down(name).await?;
    let request = v1::DeleteInstanceRequest { name: name.into(), purge: true, ..Default::default() };
    client.instances.delete_instance(request).await.context("failed to delete an instance")?;
    Ok((kept - begun, Duration::from_nanos(stall)))
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
fn check(directory: &Path, bytes: u64) -> anyhow::Result<()> {
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
    let lines = bytes / LINE as u64;
    anyhow::ensure!(expected == lines, "{expected} of {lines} lines are in the log");
    Ok(())
}
