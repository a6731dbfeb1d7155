//! What the tests share.

pub(crate) mod tell;
pub(crate) mod world;
