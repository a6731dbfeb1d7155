//! Differences shown, secrets not.

use proptest::prelude::*;

use super::*;

fn between(old: &str, new: &str) -> String {
    let side = |label: &'static str, content: &str| (label, content.to_owned());
    let (old, new) = (side("snapshot 1", old), side("now", new));
    diff(
        &Side { label: old.0, content: old.1.as_bytes() },
        &Side { label: new.0, content: new.1.as_bytes() },
        &[],
    )
}

fn shown(text: &str) -> String {
    Withheld::new(&[]).shown(text)
}

#[test]
fn a_diff_is_unified_and_says_whose_it_is() {
    let old = "{\n  gateway: {\n    port: 18789,\n  },\n}\n";
    assert_eq!(
        between(old, &old.replace("18789", "19001")),
        "--- snapshot 1\n+++ now\n@@ -1,5 +1,5 @@\n {\n   gateway: {\n-    port: 18789,\n+    port: 19001,\n   },\n }\n"
    );
    assert_eq!(between(old, old), "");
    assert!(between("", old).contains("+  gateway: {"));
}

#[test]
fn a_changed_secret_shows_as_changed_and_in_no_other_way() {
    let text = between("{token: 'first-one', same: 1}\n", "{token: 'second-one', same: 1}\n");
    assert!(text.contains("-{token: '[withheld 1]', same: 1}\n+{token: '[withheld 2]', same: 1}"), "{text}");
    let moved = between("{token: 'one'}\n", "{\n  token: 'one'}\n");
    assert!(moved.contains("+  token: '[withheld 1]'}") && !moved.contains("withheld 2"), "{moved}");
}

#[test]
fn secrets_are_withheld_by_their_keys() {
    for (text, expected) in [
        ("{botToken: 'a b'}", "{botToken: '[withheld 1]'}"),
        ("{\"apiKey\" : \"x\"}", "{\"apiKey\" : \"[withheld 1]\"}"),
        ("{password:\n  'x',}", "{password:\n  '[withheld 1]',}"),
        ("{env: {vars: {MY_KEY: 'x', PORT: '1'}}}", "{env: {vars: {MY_KEY: '[withheld 1]', PORT: '1'}}}"),
        ("{tokens: ['x', 'y']}", "{tokens: ['[withheld 1]', '[withheld 2]']}"),
        ("{headers: {Accept: 'x'}}", "{headers: {Accept: '[withheld 1]'}}"),
        ("{headers: {Accept: 'x'}, mode: 'y'}", "{headers: {Accept: '[withheld 1]'}, mode: 'y'}"),
        ("{args: ['--api-key', 'x', '-v', 'y']}", "{args: ['--api-key', '[withheld 1]', '-v', 'y']}"),
        (
            "{args: ['-u', 'me:word', '-H', 'X-Api-Key: k']}",
            "{args: ['-u', '[withheld 1]', '-H', 'X-Api-Key: [withheld 2]']}",
        ),
        ("{args: ['--token=x', '--port=1']}", "{args: ['--token=[withheld 1]', '--port=1']}"),
        ("{pin: 1234}", "{pin: [withheld 1]}"),
        ("{env: [{name: 'API_KEY', value: 'x'}]}", "{env: [{name: 'API_KEY', value: '[withheld 1]'}]}"),
        ("{env: [{name: 'COLOUR', value: 'x'}]}", "{env: [{name: 'COLOUR', value: 'x'}]}"),
        ("{env: [{value: 'x', name: 'API_KEY'}]}", "{env: [{value: '[withheld 1]', name: 'API_KEY'}]}"),
        (
            "{token: // of the bot\n 'x', a: 'y'}",
            "{token: // [withheld 1] [withheld 2] [withheld 3]\n '[withheld 4]', a: 'y'}",
        ),
        (
            "{token: /* old\n one */ 'x', a: 'y'}",
            "{token: /* [withheld 1]\n [withheld 2] */ '[withheld 3]', a: 'y'}",
        ),
        (
            "{args: ['sh', '-c', 'mcp --api-key x -v']}",
            "{args: ['sh', '-c', 'mcp --api-key [withheld 1] -v']}",
        ),
        ("{args: ['{\"exaApiKey\":\"x\"}']}", "{args: ['{\"exaApiKey\":\"[withheld 1]\"}']}"),
        ("{token: null, secret: true}", "{token: null, secret: true}"),
        ("{auth: {mode: 'token', token: 'x'}}", "{auth: {mode: 'token', token: '[withheld 1]'}}"),
        ("{maxTokens: 4096, model: 'anthropic/claude'}", "{maxTokens: 4096, model: 'anthropic/claude'}"),
        ("{tokenFile: '/run/token'}", "{tokenFile: '/run/token'}"),
        ("// botToken: 'x'\n{}", "// botToken: '[withheld 1]'\n{}"),
        ("// the token is mine\n{a: 'b'}", "// the token is mine\n{a: 'b'}"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn secrets_are_withheld_in_texts_that_are_broken() {
    for text in [
        "{token: 'hush,\n port: 1}",
        "{token: hush, port: 1}",
        "{token hush: 1, token: hush}",
        "{\"token\" \"hush\"}",
        "{token: {a: {b: 'hush'",
        "{token: 'hush\\",
        "{'token: 'a', token: 'hush'",
        "token = hush",
        "{a: 'x' token: 'hush'}",
    ] {
        let text = text.replace("hush", "hush-hush");
        let found = shown(&text);
        let value = found.rfind("hush-hush");
        assert!(value.is_none() || found[..value.unwrap()].ends_with("token "), "{text}: {found}");
    }
}

#[test]
fn secrets_are_withheld_by_their_looks() {
    for secret in [
        "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        "sk-ant-REDACTED",
        "xoxb-1234567890-abc",
        "ghp_abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "0123456789abcdef0123456789abcdef0123456789abcdef",
        "Bearer abcdefghijk",
        "syt_Ym9i_abcdefgh_0abcde",
        "gsk_abcdefghijklmnop",
    ] {
        let found = shown(&format!("{{harmless: '{secret}', b: 1}}"));
        assert_eq!(found, "{harmless: '[withheld 1]', b: 1}");
    }
    assert_eq!(shown("{note: 123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw}"), "{note: [withheld 1]}");
    assert_eq!(shown("{cdpUrl: 'http://me:word@host:1/a'}"), "{cdpUrl: 'http://[withheld 1]@host:1/a'}");
    assert_eq!(
        shown(
            "{a: {cdpUrl: \"https://h.example/v1?token=x1&v=2\"}, b: 'https://hooks.example/s/T0/Abcdef0123456789'}"
        ),
        "{a: {cdpUrl: \"https://h.example/v1?token=[withheld 1]&v=2\"}, b: 'https://hooks.example/s/T0/[withheld 2]'}"
    );
    assert_eq!(
        shown("// was https://h.example/?k=x1 once\n"),
        "// was https://h.example/?k=[withheld 1] once\n"
    );
    for harmless in
        ["/home/me/.openclaw/workspace-of-my-main-bot-2026", "claude-opus-4-5-20251101", "18789", "a@b.c"]
    {
        let text = format!("{{a: '{harmless}'}}");
        assert_eq!(shown(&text), text);
    }
}

#[test]
fn what_is_known_to_be_secret_is_withheld_wherever_it_stands() {
    let known = ["the-gateways-own", "abc"];
    let found = Withheld::new(&known).shown("{a: 'http://host/?x=the-gateways-own', b: 'abc', abcd: 'abcd'}");
    assert_eq!(found, "{a: 'http://host/?x=[withheld 1]', b: '[withheld 2]', abcd: 'abcd'}");
}

#[test]
fn a_diff_is_bounded_whatever_is_compared() {
    let many: String = (0..200_000).map(|n| format!("{}\n", n % 7)).collect();
    let other: String = (0..200_000).map(|n| format!("{}\n", n % 11)).collect();
    let long = format!("{{a: '{}'}}\n", "x ".repeat(1 << 20));
    for (old, new) in [(&many, &other), (&long, &"{}\n".to_owned()), (&"a:".repeat(1 << 20), &many)] {
        let text = between(old, new);
        assert!(text.len() <= MAX_DIFF + 2 * MAX_LINE, "{}", text.len());
        assert!(text.lines().all(|line| line.len() <= MAX_LINE + 8));
    }
    assert!(between(&many, &other).ends_with("[the rest is left out: it is too long]\n"));
    let bytes = diff(&Side { label: "a", content: b"\xff\n" }, &Side { label: "b", content: b"x\n" }, &[]);
    assert!(bytes.contains("+x"));
}

#[test]
fn a_difference_that_cannot_be_shown_is_said() {
    let sides = |content| Side { label: "a", content };
    let text = diff(&sides(b"\xff\n"), &sides(b"\xfe\n"), &[]);
    assert_eq!(text, "--- a\n+++ a\nOnly what cannot be shown differs.\n");
}

proptest! {
    #[test]
    fn no_text_breaks_the_withholding(text in "[a-z0-9{}\\[\\]:,='\"$/\\\\ \nä…]{0,80}") {
        shown(&text);
    }

    #[test]
    fn a_token_never_shows(before in "[{}\\[\\]:,'\"/ \na-z]{0,30}", quote in "['\"]") {
        let text = format!("{before}\n, botToken: {quote}s3cr3t-s3cr3t{quote} }}");
        let found = shown(&text);
        prop_assert!(!found.contains("s3cr3t-s3cr3t"), "{}", found);
    }
}
