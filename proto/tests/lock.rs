//! Keeps the contract: what clients and running workers rely on is never removed, renumbered or retyped.
//!
//! `descriptors.lock` lists every message field, enum value and method. New ones are added to it with
//! `UPDATE_LOCK=1 cargo test -p supervisor-proto`; nothing in it may go.

use std::{collections::BTreeSet, env, fs, path::Path};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, ServiceDescriptor};

const FILES: [&str; 12] = [
    "openclaw/supervisor/v1/config.proto",
    "openclaw/supervisor/v1/doctor.proto",
    "openclaw/supervisor/v1/event.proto",
    "openclaw/supervisor/v1/fleet.proto",
    "openclaw/supervisor/v1/incident.proto",
    "openclaw/supervisor/v1/instance.proto",
    "openclaw/supervisor/v1/log.proto",
    "openclaw/supervisor/v1/reason.proto",
    "openclaw/supervisor/v1/setup.proto",
    "openclaw/supervisor/v1/system.proto",
    "openclaw/supervisor/v1/upgrade.proto",
    "openclaw/worker/v1/worker.proto",
];

fn field(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map(|oneof| format!(" oneof {}", oneof.name())).unwrap_or_default();
    let (number, kind, many) = (field.number(), field.kind(), field.cardinality());
    format!("field {} = {number} {kind:?} {many:?}{oneof}", field.full_name())
}

fn message(message: &MessageDescriptor) -> Vec<String> {
    message.fields().map(|one| field(&one)).collect()
}

fn values(enumeration: &EnumDescriptor) -> Vec<String> {
    enumeration.values().map(|value| format!("value {} = {}", value.full_name(), value.number())).collect()
}

fn methods(service: &ServiceDescriptor) -> Vec<String> {
    let streams = |streams: bool| if streams { "stream " } else { "" };
    let one = |method: prost_reflect::MethodDescriptor| {
        let (input, output) = (method.input(), method.output());
        let (sends, answers) = (streams(method.is_client_streaming()), streams(method.is_server_streaming()));
        format!(
            "method {} ({sends}{}) -> {answers}{}",
            method.full_name(),
            input.full_name(),
            output.full_name()
        )
    };
    service.methods().map(one).collect()
}

fn contract() -> BTreeSet<String> {
    let set = protox::compile(FILES, [env!("CARGO_MANIFEST_DIR")]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let lines = pool
        .all_messages()
        .flat_map(|one| message(&one))
        .chain(pool.all_enums().flat_map(|one| values(&one)))
        .chain(pool.services().flat_map(|one| methods(&one)));
    lines.filter(|line| line.contains(" openclaw.")).collect()
}

#[test]
fn nothing_that_was_promised_is_taken_back() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors.lock");
    let current = contract();
    let locked = fs::read_to_string(&path).unwrap_or_default();
    let locked: BTreeSet<String> = locked.lines().map(str::to_owned).collect();
    let gone: Vec<&String> = locked.difference(&current).collect();
    assert!(gone.is_empty(), "taken back: {gone:#?}");
    let new: Vec<&String> = current.difference(&locked).collect();
    if env::var_os("UPDATE_LOCK").is_some() {
        let text: String = current.iter().map(|line| format!("{line}\n")).collect();
        fs::write(path, text).unwrap();
    } else {
        assert!(new.is_empty(), "not in the lock yet; run with UPDATE_LOCK=1: {new:#?}");
    }
}
