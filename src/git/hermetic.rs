//! libgit2 made hermetic: no configuration but a repository's own, no owner check, deadlines on every read.

use std::sync::Once;
use std::time::Duration;

use git2::{ConfigLevel, opts};

static PREPARED: Once = Once::new();

/// Detaches libgit2 from the machine's and the user's configuration (an `insteadOf` or a proxy there would silently lead us
/// elsewhere), and switches its owner check off: in containers the volume often belongs to another user than the process, and
/// every directory that we open is either our own or was named by the person who started us. Every function of this room
/// that touches libgit2 calls this first; it does its work once.
pub(super) fn prepare() {
    PREPARED.call_once(|| {
        let levels = [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global];
        for level in levels {
            #[expect(unsafe_code, reason = "libgit2's options are process-wide variables without a lock")]
            // SAFETY: the options are read by libgit2 when a repository or a remote is opened. Nothing in this process does
            // that before `prepare` has returned (every entry into libgit2 calls it first), and `Once` makes others wait.
            let outcome = unsafe { opts::set_search_path(level, "") };
            // A level that this system does not know cannot lead us anywhere.
            drop(outcome);
        }
        #[expect(unsafe_code, reason = "libgit2's options are process-wide variables without a lock")]
        // SAFETY: as above.
        let outcome = unsafe { opts::set_verify_owner_validation(false) };
        drop(outcome);
    });
}

/// Sets both of libgit2's network timeouts: with only one of them it either fails every transfer at once or waits for ever.
/// For the transfer child alone, at its start.
pub(super) fn set_network_timeouts(connect: Duration, silence: Duration) -> Result<(), git2::Error> {
    let millis = |length: Duration| i32::try_from(length.as_millis()).unwrap_or(i32::MAX).max(1);
    #[expect(unsafe_code, reason = "libgit2's options are process-wide variables without a lock")]
    // SAFETY: called by the transfer child before its first remote exists, from the only thread that uses libgit2.
    unsafe {
        opts::set_server_connect_timeout_in_milliseconds(millis(connect))?;
        opts::set_server_timeout_in_milliseconds(millis(silence))
    }
}
