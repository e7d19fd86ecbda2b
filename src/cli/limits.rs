//! Limits on a fleet's files, for those whose daemon has others than the defaults.

use clap::Args;

use crate::cli::Failure;
use crate::fleet::snapshot::SnapshotLimits;
use crate::git::snapshot_limits;
use crate::settings;

/// The daemon's settings of the same names.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What the daemon's settings allow")]
pub(super) struct LimitArgs {
    /// Files below the fleet root [default: 200000]
    #[arg(long, value_name = "NUMBER")]
    max_files: Option<String>,
    /// The largest YAML file [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    max_file_size: Option<String>,
    /// All YAML files together [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    max_fleet_size: Option<String>,
    /// Directories within directories [default: 32]
    #[arg(long, value_name = "NUMBER")]
    max_directory_depth: Option<String>,
    /// Maps and lists within each other in a YAML file [default: 64]
    #[arg(long, value_name = "NUMBER")]
    max_yaml_depth: Option<String>,
    /// The largest rendered configuration [default: 512KiB]
    #[arg(long, value_name = "SIZE")]
    max_config_size: Option<String>,
}

impl LimitArgs {
    /// These limits.
    ///
    /// # Errors
    /// When one of them cannot be.
    pub(super) fn limits(&self) -> Result<SnapshotLimits, Failure> {
        let flags = [
            ("max-files", &self.max_files),
            ("max-file-size", &self.max_file_size),
            ("max-fleet-size", &self.max_fleet_size),
            ("max-directory-depth", &self.max_directory_depth),
            ("max-yaml-depth", &self.max_yaml_depth),
            ("max-config-size", &self.max_config_size),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        Ok(snapshot_limits(&settings::content_limits(given)?))
    }
}
