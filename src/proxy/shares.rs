//! How much of something each address has, so that none can take all of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// What the addresses have that are here. There are never more of them than shares.
pub struct Shares {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Shares {
    /// At most `max` for each address.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, counts: Mutex::default() })
    }

    /// One more for an address; none where it has as much as it may.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Share> {
        let ip = party(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), ip })
    }
}

/// What an address has, until it is dropped.
pub struct Share {
    shares: Arc<Shares>,
    ip: IpAddr,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.ip) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What one party has: an address, or in IPv6 a network of 64 bits.
fn party(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let shares = Shares::new(2);
        let first = shares.take(ip("192.0.2.1")).expect("room");
        let _second = shares.take(ip("::ffff:192.0.2.1")).expect("room");
        assert!(shares.take(ip("192.0.2.1")).is_none());
        let _other = shares.take(ip("192.0.2.2")).expect("room of its own");
        drop(first);
        let _third = shares.take(ip("192.0.2.1")).expect("room again");
    }

    #[test]
    fn in_ipv6_a_network_is_one_party_and_nothing_is_left_behind() {
        let shares = Shares::new(1);
        let share = shares.take(ip("2001:db8::1")).expect("room");
        assert!(shares.take(ip("2001:db8::2")).is_none());
        let other = shares.take(ip("2001:db8:0:1::1")).expect("room");
        drop((share, other));
        assert!(shares.counts.lock().expect("no panic").is_empty());
    }
}
