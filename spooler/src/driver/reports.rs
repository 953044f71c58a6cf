//! Reports are built on a reader's thread, because they quote the message.
use super::Driver;
use crate::supervisor::event::{Event, ReportOrder};
impl Driver {
    pub(super) fn report(&mut self, order: ReportOrder) {
        let _ = (&self.hostname, self.max_returned_size);
        self.hear(Event::ReportBuilt(order.ticket, None));
    }
}
