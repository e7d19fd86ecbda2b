//! Joins what the repository says, who gets it when, and who is there.
