//! The unit files that fleet has put on this machine.

use fleet_core::unit::{Content, Hash, ServiceType, UnitFile, service_type};

/// A unit file that fleet has put here.
pub(in crate::agent) struct InPlace {
    pub(super) content: Content,
    pub(in crate::agent) hash: Hash,
    pub(in crate::agent) service: ServiceType,
}

impl InPlace {
    pub(super) fn new(content: Content) -> Self {
        let file = UnitFile::parse(content.as_bytes());
        Self {
            hash: Hash::of(file.options()),
            service: service_type(&file),
            content,
        }
    }
}
