//! The table that holds at the moment.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::RouteTable;

/// The routes in force, exchanged whole. A request goes on with the table that it began with.
#[derive(Debug)]
pub struct Routes(ArcSwap<RouteTable>);

impl Routes {
    /// With these to begin with.
    pub fn new(table: RouteTable) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// Those in force now.
    pub fn current(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }

    /// Puts others in force.
    pub fn replace(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }
}
