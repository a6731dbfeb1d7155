//! The store under torture: a real supervisor whose disk fails, fills, lies, or is its last sight.
//!
//! ```text
//! cargo test -p openclaw-supervisor --test store                            a sample of all calls, some 20 s
//! STORE_TORTURE=all cargo test -p openclaw-supervisor --test store          every call, some minutes
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod damaged;
mod failing;
mod full;
mod killed;
mod layer;
mod script;
mod small;
