//! Networks as people write them, in policies and in the configuration.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error};

/// Reads a list of networks. Stricter than the library, to which `010.0.0.0/08` is `10.0.0.0/8`:
/// others read a leading zero as octal, and a list that protects something must mean one thing.
///
/// # Errors
/// With the place in the list, when a text is no network.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let written = Vec::<Written>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|Written(network)| network).collect())
}

struct Written(IpNet);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a network; write it like \"10.0.0.0/8\" or \"2001:db8::/32\", \
                 without leading zeros"
            ))
        })
    }
}

fn parse(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let plain = length == "0" || !length.starts_with(['0', '+']);
    let length = length.parse().ok().filter(|_| plain)?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// The network that one in IPv6 stands for, where that is in IPv4: addresses are compared as what
/// they map.
pub fn mapped(network: &IpNet) -> Option<IpNet> {
    let IpAddr::V4(plain) = network.network().to_canonical() else { return None };
    let IpNet::V6(network) = network else { return None };
    let length = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(plain, length).ok().map(IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_in_one_way() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:0db8::/32", "::/0"] {
            assert_eq!(parse(text), text.parse().ok(), "{text}");
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "10.0.0.0",
            "010.0.0.0/8",
            "10.0.00.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/00",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "/8",
            " 10.0.0.0/8",
            "10.0/8",
            "::ffff:010.0.0.0/104",
            "2001:db8::/032",
            "fe80::1%1/64",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
