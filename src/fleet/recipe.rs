//! What a configuration is made of, as something to compare: equal recipes give equal configurations as long as the files are the same.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::fleet::group_file::{Layer, Variables};

/// Most bytes of all variables of one group, names included.
pub(super) const MOST_VARIABLE_BYTES: usize = 64 << 10;

/// The layers by their paths, the variables with their values, and whether it is partial, as a digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recipe([u8; 32]);

impl Recipe {
    /// Of a group with these layers and levels of variables.
    pub(super) fn new(layers: &[Layer], vars: &[Arc<Variables>], partial: bool) -> Self {
        let mut hasher = Sha256::new();
        let mut add = |part: &str| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        add(if partial { "partial" } else { "whole" });
        add(&layers.len().to_string());
        layers.iter().for_each(|layer| add(&layer.path));
        match merge_variables(vars) {
            Some(vars) => vars.iter().flat_map(|(name, value)| [name, value]).for_each(|part| add(part)),
            // Too many are an error, whatever they are.
            None => add("too large"),
        }
        Self(hasher.finalize().into())
    }
}

/// All variables of a group, the nearest winning; `None` when there are too many.
pub(super) fn merge_variables(levels: &[Arc<Variables>]) -> Option<Variables> {
    let mut merged = Variables::new();
    let mut bytes = 0;
    for (name, value) in levels.iter().flat_map(|level| level.iter()) {
        bytes += name.len() + value.len();
        if bytes > MOST_VARIABLE_BYTES {
            return None;
        }
        merged.insert(name.clone(), value.clone());
    }
    Some(merged)
}
