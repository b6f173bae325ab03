//! Whose word counts about a request's origin: the trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use axum::http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::proxy::{Forwarding, address, senders};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub ip: IpAddr,
    /// Whether it is one of `server.trusted_proxies`.
    pub trusted: bool,
    /// Whether it speaks to us over TLS.
    pub secure: bool,
}

/// Stands at a request whose connection began with a handshake.
#[derive(Clone, Copy)]
pub struct OverTls;

/// `server.trusted_proxies`
#[derive(Clone, Debug)]
pub struct Trusted {
    networks: Vec<IpNet>,
    forwarding: Forwarding,
}

impl Trusted {
    /// The networks whose word counts, and where they say it.
    pub fn new(networks: Vec<IpNet>, forwarding: Forwarding) -> Self {
        Self { networks, forwarding }
    }

    /// The peer of a request; an unknown one is trusted with nothing.
    pub fn peer(&self, extensions: &Extensions) -> Peer {
        let secure = extensions.get::<OverTls>().is_some();
        match extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(address)) => {
                let ip = address.ip().to_canonical();
                Peer { ip, trusted: self.contains(ip), secure }
            }
            None => Peer { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), trusted: false, secure },
        }
    }

    /// Who really asks: behind trusted proxies the last address in `X-Forwarded-For`, or in
    /// `Forwarded` where they write that, which is not one of them. `None` when a trusted proxy
    /// names something that is no address.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        if !peer.trusted {
            return Some(peer.ip);
        }
        if self.forwarding == Forwarding::Rfc7239 {
            let lines = headers.get_all(FORWARDED).iter().rev();
            let lines = lines.map(|line| line.to_str().ok().and_then(senders));
            return self.last_stranger(peer.ip, lines.map(|line| Some(line?.into_iter().rev())));
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        self.last_stranger(peer.ip, lines.map(|line| Some(line.to_str().ok()?.rsplit(','))))
    }

    /// The first that is not one of them, of hops from the nearest on.
    fn last_stranger<'a, L>(
        &self,
        mut client: IpAddr,
        lines: impl Iterator<Item = Option<L>>,
    ) -> Option<IpAddr>
    where
        L: Iterator<Item = &'a str>,
    {
        for line in lines {
            for hop in line? {
                client = address(hop.trim())?.to_canonical();
                if !self.contains(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }

    /// Whether an address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Trusted {
        let networks = ["127.0.0.0/8", "10.0.0.0/8", "::1/128"];
        let networks = networks.map(|net| net.parse().expect("a network")).to_vec();
        Trusted::new(networks, Forwarding::default())
    }

    fn client(peer: &str, chain: &[&str]) -> Option<String> {
        named(&trusted(), "x-forwarded-for", peer, chain)
    }

    fn named(
        trusted: &Trusted,
        header: &'static str,
        peer: &str,
        chain: &[&str],
    ) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in chain {
            headers.append(header, line.parse().expect("a value"));
        }
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().expect("an address"), 9)));
        let peer = trusted.peer(&extensions);
        trusted.client(peer, &headers).map(|ip| ip.to_string())
    }

    #[test]
    fn where_proxies_write_forwarded_that_alone_is_read() {
        let reads = Trusted { forwarding: Forwarding::Rfc7239, ..trusted() };
        let client = |peer, chain: &[&str]| named(&reads, "forwarded", peer, chain);
        let chain = ["for=127.0.0.1, for=\"[2001:db8::1]:80\";proto=http", "For=10.0.0.3"];
        assert_eq!(client("127.0.0.1", &chain).as_deref(), Some("2001:db8::1"));
        assert_eq!(client("192.0.2.1", &chain).as_deref(), Some("192.0.2.1"));
        assert_eq!(client("127.0.0.1", &["for=_hidden"]), None);
        assert_eq!(client("127.0.0.1", &["proto=http"]), None);
        assert_eq!(client("127.0.0.1", &["for=\"1.2.3.4"]), None);
        let spoofed = named(&reads, "x-forwarded-for", "127.0.0.1", &["203.0.113.5"]);
        assert_eq!(spoofed.as_deref(), Some("127.0.0.1"));
        let unread = named(&trusted(), "forwarded", "127.0.0.1", &["for=203.0.113.5"]);
        assert_eq!(unread.as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn strangers_cannot_name_another_client() {
        assert_eq!(client("192.0.2.1", &["127.0.0.1"]).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn behind_proxies_the_last_stranger_is_the_client() {
        let through = client("127.0.0.1", &["127.0.0.1, 203.0.113.5", "10.0.0.3"]);
        assert_eq!(through.as_deref(), Some("203.0.113.5"));
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:80"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(client("127.0.0.1", &[]).as_deref(), Some("127.0.0.1"));
        assert_eq!(client("127.0.0.1", &["10.0.0.9"]).as_deref(), Some("10.0.0.9"));
        assert_eq!(client("127.0.0.1", &["unknown"]), None);
    }

    #[test]
    fn mapped_addresses_are_what_they_map() {
        let mut extensions = Extensions::new();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        extensions.insert(ConnectInfo(SocketAddr::new(mapped, 1)));
        assert!(trusted().peer(&extensions).trusted);
        assert!(!trusted().peer(&Extensions::new()).trusted);
    }

    #[test]
    fn any_bytes_name_a_client_or_nobody_and_never_of_a_stranger() {
        let good = [
            "x-forwarded-for: 127.0.0.1, 203.0.113.5\nx-forwarded-for: [2001:db8::1]:80",
            "forwarded: for=127.0.0.1, for=\"[2001:db8::1]:80\";a=b\nforwarded: For=10.0.0.3",
        ];
        let reads = [Forwarding::XForwarded, Forwarding::Rfc7239, Forwarding::Both];
        let reads = reads.map(|forwarding| Trusted { forwarding, ..trusted() });
        crate::fuzz::each("peers", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let headers = crate::fuzz::fields(bytes);
            for trusted in &reads {
                let ip = "192.0.2.1".parse().expect("an address");
                let mut peer = Peer { ip, trusted: false, secure: false };
                assert_eq!(trusted.client(peer, &headers), Some(ip), "nobody asks a stranger");
                peer.trusted = true;
                let _client = trusted.client(peer, &headers);
            }
        });
    }
}
