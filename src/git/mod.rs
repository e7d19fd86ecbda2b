//! The repository as it really is: a bare mirror, transfers in a killable child process, and the journal of notes and state.
