//! Specs there and back, and masks.

use proptest::{prelude::*, sample::subsequence};
use prost::Message;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};

use super::*;
use crate::spec::arbitrary;

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

fn paths(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(|violation| violation.path.to_string()).collect()
}

#[test]
fn what_proto_cannot_mean_is_refused_by_field() {
    let spec = v1::InstanceSpec {
        runtime: 99,
        port: 70_000,
        rescues: vec!["main".into(), "Main".into()],
        stop_grace: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        restart: Some(v1::RestartPolicy { condition: 9, ..Default::default() }),
        probes: Some(v1::Probes {
            liveness: Some(v1::Probe { check: 77, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = from_proto(&spec).unwrap_err();
    assert_eq!(
        paths(&refused),
        ["runtime", "port", "rescues[1]", "restart.condition", "probes.liveness.check", "stop_grace"]
    );
    let command = v1::InstanceSpec { runtime: v1::Runtime::Command as i32, ..Default::default() };
    assert_eq!(paths(&from_proto(&command).unwrap_err()), ["program"]);
}

#[test]
fn nothing_set_is_nothing_asked_for() {
    assert_eq!(from_proto(&v1::InstanceSpec::default()).unwrap(), InstanceSpec::default());
    assert_eq!(to_proto(&InstanceSpec::default()), v1::InstanceSpec::default());
    let zero = v1::InstanceSpec {
        restart: Some(v1::RestartPolicy { jitter_permille: Some(0), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(
        from_proto(&zero).unwrap().restart.jitter_permille,
        Some(0),
        "0 is a wish where it can be told apart"
    );
}

#[test]
fn a_mask_replaces_what_it_names_and_nothing_else() {
    let current = InstanceSpec {
        stop_grace: Some(Span::secs(30)),
        restart: Restart { budget: Some(5), window: Some(Span::secs(60)), ..Restart::default() },
        ..InstanceSpec::default()
    };
    let update = v1::InstanceSpec {
        restart: Some(v1::RestartPolicy { budget: 7, ..Default::default() }),
        port: 18_789,
        ..Default::default()
    };
    let masked = |paths: &[&str]| masked(&current, &update, mask(paths).as_ref());
    let nested = masked(&["restart.budget"]).unwrap();
    assert_eq!(
        nested.restart,
        Restart { budget: Some(7), window: Some(Span::secs(60)), ..Restart::default() }
    );
    assert_eq!((nested.stop_grace, nested.port), (current.stop_grace, None));
    let group = masked(&["restart", "port"]).unwrap();
    assert_eq!((group.restart.window, group.port), (None, Some(18_789)));
    let unset = masked(&["stop_grace", "restart.window"]).unwrap();
    assert_eq!((unset.stop_grace, unset.restart), (None, Restart { budget: Some(5), ..Restart::default() }));
    for whole in [&["*"][..], &[]] {
        assert_eq!(masked(whole).unwrap(), from_proto(&update).unwrap());
    }
    let unknown = masked(&["stop_grace", "restrat", "env.LANG"]).unwrap_err();
    assert_eq!(paths(&unknown), ["update_mask.paths[1]", "update_mask.paths[2]"]);
}

#[test]
fn a_mask_cannot_make_an_invalid_spec() {
    let update = v1::InstanceSpec { runtime: v1::Runtime::Command as i32, ..Default::default() };
    let refused = masked(&InstanceSpec::default(), &update, mask(&["runtime"]).as_ref()).unwrap_err();
    assert_eq!(paths(&refused), ["program"]);
}

/// Every field of the message, with the fields of its messages; well-known types are single values.
fn fields_of(set: &FileDescriptorSet, message: &str, prefix: &str) -> Vec<String> {
    let files = set.file.iter();
    let found = files
        .flat_map(|file| &file.message_type)
        .find(|known| message == format!(".openclaw.supervisor.v1.{}", known.name()))
        .unwrap_or_else(|| panic!("{message}"));
    found
        .field
        .iter()
        .flat_map(|field| {
            let path = if prefix.is_empty() {
                field.name().to_owned()
            } else {
                format!("{prefix}.{}", field.name())
            };
            let ours = field.r#type() == Type::Message
                && field.type_name().starts_with(".openclaw.")
                && !field.type_name().ends_with("Entry");
            let below = if ours { fields_of(set, field.type_name(), &path) } else { Vec::new() };
            std::iter::once(path).chain(below)
        })
        .collect()
}

#[test]
fn every_field_of_the_contract_can_be_masked_and_no_other() {
    let set = FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap();
    let mut contract = fields_of(&set, ".openclaw.supervisor.v1.InstanceSpec", "");
    let mut ours: Vec<String> = FIELDS.iter().map(|field| (*field).to_owned()).collect();
    for (group, fields) in GROUPS {
        ours.extend(fields.iter().map(|field| format!("{group}.{field}")));
    }
    contract.sort();
    ours.sort();
    assert_eq!(contract, ours);
    assert!(contract.iter().all(|path| is_field(path)));
}

proptest! {
    #[test]
    fn a_spec_survives_the_api(spec in arbitrary::spec()) {
        prop_assert_eq!(read(&to_proto(&spec)), Ok(spec));
    }

    #[test]
    fn a_full_mask_is_the_update_and_an_empty_update_unsets(
        current in arbitrary::spec(),
        update in arbitrary::spec(),
        some in subsequence(FIELDS.to_vec(), 0..FIELDS.len()),
    ) {
        let outcome = masked(&current, &to_proto(&update), mask(&FIELDS).as_ref());
        prop_assert_eq!(outcome, valid(update.clone()));
        // Field by field: what is named comes from the update, what is not from the current spec.
        if let Ok(result) = masked(&current, &to_proto(&update), mask(&some).as_ref()) && !some.is_empty() {
            let json = |spec: &InstanceSpec| serde_json::to_value(spec).unwrap();
            let (current, update, result) = (json(&current), json(&update), json(&result));
            for field in FIELDS {
                let from = if some.contains(&field) { &update } else { &current };
                prop_assert_eq!(result.get(field), from.get(field), "{}", field);
            }
        }
    }
}
