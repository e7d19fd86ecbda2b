//! Flags, environment and file become checked settings. The only reader of the environment.
