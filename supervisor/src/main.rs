//! The supervisor daemon.
fn main() {}
