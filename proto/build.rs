//! Compiles the `.proto` files in pure Rust: no system `protoc` is needed.

use std::{env, fs, path::PathBuf};

const CONTROL: &[&str] = &[
    "openclaw/supervisor/v1/reason.proto",
    "openclaw/supervisor/v1/instance.proto",
    "openclaw/supervisor/v1/fleet.proto",
    "openclaw/supervisor/v1/event.proto",
    "openclaw/supervisor/v1/log.proto",
    "openclaw/supervisor/v1/system.proto",
    "openclaw/supervisor/v1/doctor.proto",
    "openclaw/supervisor/v1/config.proto",
    "openclaw/supervisor/v1/incident.proto",
    "openclaw/supervisor/v1/setup.proto",
    "openclaw/supervisor/v1/upgrade.proto",
    "openclaw/supervisor/v1/audit.proto",
    "openclaw/supervisor/v1/certificate.proto",
    "openclaw/supervisor/v1/web.proto",
    "openclaw/supervisor/v1/alert.proto",
];
const WORKER: &[&str] = &["openclaw/worker/v1/worker.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in CONTROL.iter().chain(WORKER) {
        println!("cargo:rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let worker = protox::compile(WORKER, ["."])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(worker)?;

    let control = protox::compile(CONTROL, ["."])?;
    fs::write(out.join("control.bin"), prost::Message::encode_to_vec(&control))?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::codec::SizedCodec")
        .boxed(".openclaw.supervisor.v1.WatchInstancesResponse.change.changed")
        .compile_fds(control)?;
    Ok(())
}
