//! The one loop: an event comes, the controller decides, its actions are performed.
