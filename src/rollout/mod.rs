//! Who gets it, when: the rollout of one group, its budget and what must be remembered of it.
