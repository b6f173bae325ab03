//! How many connections each address has, so that none can take all of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::server::peers::Trusted;

/// The addresses that are here. There are never more of them than connections.
pub(super) struct Guests {
    max: usize,
    /// Whoever comes through these comes with many others.
    exempt: Trusted,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Guests {
    /// At most `max` connections from each address that is not `exempt`.
    pub fn new(max: usize, exempt: Trusted) -> Arc<Self> {
        Arc::new(Self { max, exempt, counts: Mutex::default() })
    }

    /// Lets one more in; an error where its address has as many as it may.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Option<Guest>, Full> {
        let ip = ip.to_canonical();
        if self.exempt.contains(ip) {
            return Ok(None);
        }
        let ip = network(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= self.max {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(Guest { guests: Arc::clone(self), ip }))
    }
}

/// An address has as many connections as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// One connection of an address.
pub(super) struct Guest {
    guests: Arc<Guests>,
    ip: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.ip) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What one party has: an address, or in IPv6 a network of 64 bits.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Forwarding;

    fn trusting(networks: &[&str]) -> Trusted {
        let networks = networks.iter().map(|net| net.parse().expect("a network")).collect();
        Trusted::new(networks, Forwarding::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let guests = Guests::new(2, trusting(&["10.0.0.0/8"]));
        let first = guests.admit(ip("192.0.2.1")).expect("room");
        let _second = guests.admit(ip("::ffff:192.0.2.1")).expect("room");
        assert!(guests.admit(ip("192.0.2.1")).is_err());
        let _other = guests.admit(ip("192.0.2.2")).expect("room of its own");
        drop(first);
        let _third = guests.admit(ip("192.0.2.1")).expect("room again");
        for _ in 0..9 {
            assert!(guests.admit(ip("10.1.2.3")).expect("exempt").is_none());
        }
    }

    #[test]
    fn in_ipv6_a_network_is_one_party_and_nothing_is_left_behind() {
        let guests = Guests::new(1, trusting(&[]));
        let guest = guests.admit(ip("2001:db8::1")).expect("room");
        assert!(guests.admit(ip("2001:db8::2")).is_err());
        let other = guests.admit(ip("2001:db8:0:1::1")).expect("room");
        drop((guest, other));
        assert!(guests.counts.lock().expect("no panic").is_empty());
    }
}
