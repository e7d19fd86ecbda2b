//! What operators order.

use crate::controller::Controller;
use crate::time::Timestamp;
use crate::view::command::{Command, Impact, Order, Refusal};

impl Controller {
    /// What this command would do now; nothing is changed.
    ///
    /// # Errors
    /// When it cannot be carried out, with what to do instead.
    pub fn preview(&self, command: &Command, _now: Timestamp) -> Result<Impact, Refusal> {
        Err(Refusal::new(format!("`{}` is not known to this daemon", command.name())))
    }

    /// Carries out an order, and has it recorded in the journal.
    ///
    /// # Errors
    /// When it cannot be carried out, with what to do instead; then nothing was changed.
    pub fn handle_order(&mut self, order: &Order, now: Timestamp) -> Result<Impact, Refusal> {
        self.preview(&order.command, now)
    }
}
