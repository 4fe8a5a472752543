//! How much memory samples may take.

use bytesize::ByteSize;
use sysinfo::System;

use crate::arguments::Train;

/// Bytes that a number of the inputs takes while samples are read and prepared: twice 8, where the
/// file has it and as it is parsed, or standardised.
pub(crate) const BYTES_OF_NUMBER: u64 = 16;

impl Train {
    /// The most memory that samples may take.
    pub(crate) fn memory_for_samples(&self) -> ByteSize {
        self.memory.unwrap_or_else(|| ByteSize(available() / 2))
    }
}

/// The memory that is available, also to a container; without bound where the system does not say.
fn available() -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    let free = Some(system.available_memory()).filter(|&bytes| bytes > 0).unwrap_or(u64::MAX);
    system.cgroup_limits().map_or(free, |limits| limits.free_memory.min(free))
}
