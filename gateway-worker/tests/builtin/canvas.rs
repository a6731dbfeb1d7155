//! The canvas's files, and the ways out of its directory.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::{Gateway, Home, Reply, TOKEN, config};

fn get(gateway: &Gateway, path: &str) -> Reply {
    Reply::to(gateway.port + 4, "GET", path, &[])
}

#[test]
fn a_new_canvas_has_a_first_page() {
    let gateway = Gateway::start();
    let page = get(&gateway, "/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.body, fs::read(gateway.home.canvas().join("index.html")).unwrap());
    assert_eq!(get(&gateway, "/__openclaw__/canvas/").body, page.body);
}

#[test]
fn a_page_that_is_there_is_kept() {
    let gateway = Gateway::start_in(|port| {
        let home = Home::new(&config(port));
        fs::create_dir(home.canvas()).unwrap();
        fs::write(home.canvas().join("index.html"), "mine").unwrap();
        home
    });
    assert_eq!(get(&gateway, "/index.html").text(), "mine");
}

#[test]
fn files_below_are_served_with_their_types() {
    let gateway = Gateway::start();
    let canvas = gateway.home.canvas();
    fs::create_dir_all(canvas.join("a b/c")).unwrap();
    fs::write(canvas.join("a b/c/x.js"), "1").unwrap();
    fs::write(canvas.join("a b/index.html"), "inner").unwrap();
    let script = get(&gateway, "/a%20b/c/x.js");
    assert_eq!((script.status, script.text()), (200, "1"));
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    let directory = get(&gateway, "/a%20b");
    assert_eq!((directory.status, directory.header("location")), (301, Some("/a%20b/")));
    assert_eq!(get(&gateway, "//a%20b").header("location"), Some("/a%20b/"));
    assert_eq!(get(&gateway, "/a%20b/").text(), "inner");
    for missing in ["/a%20b/c/", "/none", "/a%20b/c/x.js/", "/a%20b/c/x.js/y"] {
        assert_eq!(get(&gateway, missing).status, 404, "{missing}");
    }
    assert_eq!(Reply::to(gateway.port + 4, "PUT", "/new", &[]).status, 405);
}

#[test]
fn a_large_file_arrives_whole_and_a_head_request_gets_its_length() {
    let gateway = Gateway::start();
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(gateway.home.canvas().join("large.bin"), &content).unwrap();
    let large = get(&gateway, "/large.bin");
    assert_eq!(large.header("content-length"), Some("5000000"));
    assert!(large.body == content, "the content differs");
    let head = Reply::to(gateway.port + 4, "HEAD", "/large.bin", &[]);
    assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("5000000"), ""));
}

#[test]
fn no_path_and_no_link_leads_outside() {
    let gateway = Gateway::start();
    let (home, canvas) = (&gateway.home, gateway.home.canvas());
    fs::create_dir_all(home.path("canvas-secret")).unwrap();
    fs::write(home.path("canvas-secret/index.html"), TOKEN).unwrap();
    fs::create_dir(canvas.join("real")).unwrap();
    symlink(home.config(), canvas.join("config.json")).unwrap();
    symlink("..", canvas.join("up")).unwrap();
    symlink("/", canvas.join("root")).unwrap();
    symlink("../../openclaw.json", canvas.join("real/config.json")).unwrap();
    let config = home.config();
    let absolute = config.to_str().unwrap();
    for path in [
        "/../openclaw.json",
        "/%2e%2e/openclaw.json",
        "/..%2fopenclaw.json",
        "/%2e%2e%2fopenclaw.json",
        "/real/../../openclaw.json",
        "/../canvas-secret/",
        "/config.json",
        "/up/openclaw.json",
        "/up/",
        "/up",
        "/root/etc/passwd",
        "/real/config.json",
        "/%00",
        &format!("/{absolute}"),
        &format!("/root{absolute}"),
    ] {
        let refused = get(&gateway, path);
        assert_eq!(refused.status, 404, "{path}");
        assert!(!refused.text().contains(TOKEN), "{path}");
    }
}

#[test]
fn a_canvas_that_is_itself_a_link_is_refused() {
    let gateway = Gateway::start_in(|port| {
        let home = Home::new(&config(port));
        fs::create_dir(home.path("elsewhere")).unwrap();
        fs::write(home.path("elsewhere/index.html"), TOKEN).unwrap();
        symlink(home.path("elsewhere"), home.canvas()).unwrap();
        home
    });
    assert_eq!(get(&gateway, "/").status, 404);
    let said = gateway.home.err();
    assert!(said.contains("degraded: canvas: failed to prepare its directory"), "{said}");
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_pipe_in_the_canvas_does_not_hold_the_gateway() {
    let gateway = Gateway::start();
    mkfifo(&gateway.home.canvas().join("pipe"), Mode::S_IRWXU).unwrap();
    for _ in 0..4 {
        assert_eq!(get(&gateway, "/pipe").status, 404);
    }
    assert_eq!(get(&gateway, "/").status, 200);
}
