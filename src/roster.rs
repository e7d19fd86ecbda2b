//! The agents connected here: group, configuration, failures -> offers and tallies.
