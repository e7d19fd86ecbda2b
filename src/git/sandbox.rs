//! What the process for transfers gives up before it reads a byte of the remote: privileges to gain, memory, time, files and processes.

use std::io;
use std::time::Duration;

use rlimit::Resource;

/// Memory: 4 GiB, so that a pack made to explode ends this process and no other.
const MEMORY_BYTES: u64 = 4 << 30;
/// The largest file that it may write: the largest pack, and its index beside it.
const FILE_BYTES: u64 = (4 << 30) + (512 << 20);
/// Open files at once: libgit2 holds each pack of a repository open, and there are at most some hundreds before they are made one.
const OPEN_FILES: u64 = 1024;
/// Seconds of computing beyond the transfer's own deadline, at which the parent has ended it long ago.
const SPARE_SECONDS: u64 = 60;

/// Closes the memory of this process, with the tokens and keys in it, to everybody but root: no core file is left, no program that collects such
/// is called, and no other process of the same user can attach to it or read its memory, environment and descriptors in `/proc`. To be called before
/// the first secret is read.
///
/// # Errors
/// When the system refuses one of these; the others hold all the same.
pub fn close_memory() -> io::Result<()> {
    // Heeded by programs that collect core files too (systemd-coredump and apport), where the system lacks what follows.
    let limited = Resource::CORE.set(0, 0);
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    limited
}

/// Lowers what this process may use, for good. `total` is how long the transfer may take. Nothing here fails: where the system lacks a
/// limit, or has a lower one already, that one has to do.
///
/// Threads and processes of its own are over from here on (for all users but root, to whom that limit does not apply): what is
/// needed runs already, and a remote that takes libgit2 over could start no program.
pub(super) fn enter(total: Duration) {
    for (resource, limit) in [
        (Resource::DATA, MEMORY_BYTES),
        (Resource::CPU, total.as_secs().saturating_add(SPARE_SECONDS)),
        (Resource::FSIZE, FILE_BYTES),
        (Resource::NOFILE, OPEN_FILES),
        (Resource::NPROC, 0),
    ] {
        lower(resource, limit);
    }
    #[cfg(target_os = "linux")]
    {
        // Kernels since 3.5 have it; the limits above hold without it.
        let _kept = rustix::thread::set_no_new_privs(true);
    }
}

/// Sets both limits, never higher than they are.
fn lower(resource: Resource, limit: u64) {
    let limit = resource.get().map_or(limit, |(_, hard)| limit.min(hard));
    let _lowered = resource.set(limit, limit);
}
