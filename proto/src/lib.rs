//! The contract: the supervisor's gRPC API and the frames between supervisor and worker.
//!
//! The `.proto` files beside this crate are the manual; this is the Rust generated from them. Another
//! language needs nothing but those files.
//!
//! * [`worker`] (feature `messages`): `openclaw.worker.v1`, plain messages, and [`frame`], their framing.
//! * [`text`]: what of a message people are not to be shown.
//! * [`v1`] (feature `grpc`): `openclaw.supervisor.v1`, messages, clients and servers.

/// The frames between supervisor and worker, `openclaw.worker.v1`.
pub mod worker {
    include!(concat!(env!("OUT_DIR"), "/openclaw.worker.v1.rs"));
}

#[cfg(feature = "grpc")]
mod codec;
pub mod frame;
pub mod text;

/// The control API, `openclaw.supervisor.v1`.
#[cfg(feature = "grpc")]
pub mod v1 {
    tonic::include_proto!("openclaw.supervisor.v1");

    /// The encoded `FileDescriptorSet` of these files and what they import: for reflection and proto JSON.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.bin"));

    /// `google.rpc.ErrorInfo.domain` of every refusal.
    pub const ERROR_DOMAIN: &str = "openclaw.supervisor";
}
