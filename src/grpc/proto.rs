//! The messages and services that `build.rs` generated from `proto/`, and their descriptors.

#![expect(
    clippy::allow_attributes,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated; the proto files hold the documentation"
)]

/// Mirrors the package names, as the generated paths expect.
pub mod latchkey {
    /// Package `latchkey.v1`.
    pub mod v1 {
        tonic::include_proto!("latchkey.v1");
    }
    /// Package `latchkey.admin`.
    pub mod admin {
        /// Package `latchkey.admin.v1`.
        pub mod v1 {
            tonic::include_proto!("latchkey.admin.v1");
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));

pub use latchkey::admin::v1 as admin;
pub use latchkey::v1;

/// The encoded `FileDescriptorSet` of the contract, with comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
