//! Specs of every shape, for property tests. All are valid in their parts, though not always as a whole.

use std::{path::PathBuf, time::Duration};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use supervisor_core::ids::Name;

use super::*;

fn span() -> BoxedStrategy<Option<Span>> {
    option::of(prop_oneof![
        (0u64..86_400_000).prop_map(|millis| Span(Duration::from_millis(millis))),
        (0u64..86_400).prop_map(Span::secs),
    ])
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        "[ -~]{0,12}",
        vec(
            any::<char>().prop_filter("refused", |c| !matches!(c, '\0' | '\u{85}' | '\u{2028}' | '\u{2029}')),
            0..8
        )
        .prop_map(|chars| chars.into_iter().collect()),
        select(vec![
            "",
            "~",
            "null",
            "true",
            "no",
            "12",
            "0x1f",
            "1e3",
            ".5",
            "-",
            "a: b",
            "#x",
            "'",
            "\"",
            "a\nb\n",
            " x ",
            "<<",
            "!x",
            "&a",
            "*a",
            "1_000",
            "0o7",
            "2024-01-01",
            "=",
            ".nan",
            "+1",
            "0755",
            "5."
        ])
        .prop_map(str::to_owned),
    ]
    .boxed()
}

fn path() -> impl Strategy<Value = PathBuf> {
    "/[a-z .#:]{1,12}(/[a-z]{1,5})?".prop_map(PathBuf::from)
}

pub(crate) fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9]{0,8}".prop_map(|text| Name::new(&text).unwrap())
}

fn rescue() -> BoxedStrategy<Rescue> {
    (
        option::of(select(vec![Standby::Cold, Standby::Warm])),
        option::of(select(vec![OnPrimaryDeath::Restart, OnPrimaryDeath::EnsureRunning])),
        option::of(select(vec![Failback::Auto, Failback::Manual])),
        span(),
    )
        .prop_map(|(standby, on_primary_death, failback, failback_after)| Rescue {
            standby,
            on_primary_death,
            failback,
            failback_after,
        })
        .boxed()
}

fn restart() -> BoxedStrategy<Restart> {
    (
        option::of(select(vec![Condition::Always, Condition::OnFailure, Condition::Never])),
        span(),
        option::of(1_000..1_000_000u32),
        span(),
        option::of(0..=1_000u32),
        option::of(1..1_000u32),
        span(),
        span(),
    )
        .prop_map(
            |(
                condition,
                initial_delay,
                multiplier_permille,
                max_delay,
                jitter_permille,
                budget,
                window,
                reset_after,
            )| {
                Restart {
                    condition,
                    initial_delay,
                    multiplier_permille,
                    max_delay,
                    jitter_permille,
                    budget,
                    window,
                    reset_after,
                }
            },
        )
        .boxed()
}

fn probe() -> BoxedStrategy<Probe> {
    (
        option::of(select(vec![
            Check::None,
            Check::Tcp,
            Check::Http,
            Check::Notify,
            Check::Websocket,
            Check::Openclaw,
        ])),
        option::of("/[a-z?=&#]{0,8}"),
        0..20u16,
        span(),
        span(),
        option::of(1..1_000u32),
        option::of(1..64u32),
        span(),
        span(),
    )
        .prop_map(|(check, path, port_offset, interval, timeout, failures, of, deadline, cap)| Probe {
            check,
            path,
            port_offset,
            interval,
            timeout,
            failures,
            of,
            deadline,
            cap,
        })
        .boxed()
}

fn ladder() -> BoxedStrategy<Ladder> {
    let yes_or_no = || option::of(any::<bool>());
    (option::of(1..1_000u32), yes_or_no(), span(), yes_or_no(), yes_or_no())
        .prop_map(|(deaths, repair, repair_limit, roll_back, quarantine)| Ladder {
            deaths,
            repair,
            repair_limit,
            roll_back,
            quarantine,
        })
        .boxed()
}

fn memory() -> BoxedStrategy<Memory> {
    let limit = || option::of((8 << 20)..1u64 << 40).prop_map(|limit| limit.map(Bytes));
    let window = option::of((0..24u8, 0..60u8, 0..24u8, 1..60u8));
    (limit(), limit(), window, span(), span())
        .prop_map(|(soft_limit, hard_limit, window, min_uptime, interval)| Memory {
            soft_limit,
            hard_limit,
            window: window.and_then(|(from, past, to, until)| {
                format!("{from:02}:{past:02}-{to:02}:{until:02}").parse().ok()
            }),
            min_uptime,
            interval,
        })
        .boxed()
}

fn walls() -> BoxedStrategy<(Walls, Limits, Option<UserName>)> {
    let yes_or_no = || option::of(any::<bool>());
    let walls = (yes_or_no(), yes_or_no(), yes_or_no(), yes_or_no(), vec(path(), 0..3), vec(path(), 0..3))
        .prop_map(|(files, ports, apart, privileges, read, write)| Walls {
            files,
            ports,
            apart,
            privileges,
            read,
            write,
        });
    let count = |least: u64| option::of(least..1u64 << 30);
    let limits = (count(128), count(64), option::of(0..1u64 << 50), option::of(50..1_000_000u32)).prop_map(
        |(files, processes, core, cpu_permille)| Limits {
            files,
            processes,
            core: core.map(Bytes),
            cpu_permille,
        },
    );
    let user = option::of("[a-z][a-z0-9]{0,8}|[1-9][0-9]{0,6}").prop_map(|user| user.map(UserName));
    (walls, limits, user).boxed()
}

fn profile() -> BoxedStrategy<Profile> {
    (path(), option::of(path()), option::of(path()))
        .prop_map(|(state_dir, config, workspace)| Profile { state_dir: Some(state_dir), config, workspace })
        .boxed()
}

/// Any spec.
pub(crate) fn spec() -> BoxedStrategy<InstanceSpec> {
    let first = (
        option::of(select(vec![Runtime::Auto, Runtime::Openclaw, Runtime::Builtin, Runtime::Command])),
        option::of("/[ -~]{1,12}"),
        vec(text(), 0..4),
        btree_map("[A-Z_][A-Z0-9_]{0,8}", text(), 0..4),
        option::of(1_024..65_000u16),
        option::of(profile()),
        vec(name(), 0..3),
    );
    let second = (
        rescue(),
        restart(),
        (probe(), probe(), probe()),
        span(),
        option::of(4_096..1u64 << 40),
        option::of(2..1_000u32),
    );
    let third = (
        ladder(),
        any::<bool>(),
        (span(), option::of(8..1_000u32)),
        (span(), option::of("[a-z0-9][a-z0-9.+-]{0,8}")),
        memory(),
        walls(),
    );
    (first, second, third)
        .prop_map(
            |(
                (runtime, program, args, env, port, profile, rescues),
                (rescue, restart, probes, stop_grace, bytes, max_files),
                (ladder, maintenance, (good_after, snapshots), (poll_expiry, version), memory, walls),
            )| {
                let (startup, liveness, readiness) = probes;
                let (walls, limits, user) = walls;
                InstanceSpec {
                    runtime,
                    program,
                    version,
                    args,
                    env,
                    port,
                    profile,
                    rescues,
                    rescue,
                    restart,
                    probes: Probes { startup, liveness, readiness },
                    stop_grace,
                    log: Log { max_file_bytes: bytes.map(Bytes), max_files },
                    ladder,
                    maintenance,
                    trial: Trial { good_after, snapshots },
                    poll_expiry,
                    memory,
                    walls,
                    limits,
                    user,
                }
            },
        )
        .boxed()
}
