//! How many connections each address has, so that none can take all of them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::proxy::{Share, Shares};
use crate::server::peers::Trusted;

/// The addresses that are here.
pub(super) struct Guests {
    /// Whoever comes through these comes with many others.
    exempt: Trusted,
    shares: Arc<Shares>,
}

impl Guests {
    /// At most `max` connections from each address that is not `exempt`.
    pub fn new(max: usize, exempt: Trusted) -> Self {
        Self { exempt, shares: Shares::new(max) }
    }

    /// Lets one more in; an error where its address has as many as it may.
    pub fn admit(&self, ip: IpAddr) -> Result<Option<Share>, Full> {
        if self.exempt.contains(ip.to_canonical()) {
            return Ok(None);
        }
        self.shares.take(ip).map(Some).ok_or(Full)
    }
}

/// An address has as many connections as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Forwarding;

    #[test]
    fn proxies_bring_many() {
        let networks = vec!["10.0.0.0/8".parse().expect("a network")];
        let guests = Guests::new(1, Trusted::new(networks, Forwarding::default()));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = guests.admit(ip("192.0.2.1")).expect("room");
        assert!(first.is_some() && guests.admit(ip("::ffff:192.0.2.1")).is_err());
        for _ in 0..9 {
            assert!(guests.admit(ip("::ffff:10.1.2.3")).expect("exempt").is_none());
        }
    }
}
