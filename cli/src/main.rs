//! openclawctl.
fn main() {}
