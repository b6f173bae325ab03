//! Stand-ins for the sections of rooms that are not in the house yet: `server`, `postgres`, `proxy`.
//! They carry the names that the contract fixes, and give way to those rooms' own `Config`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where requests arrive.
    pub listen: SocketAddr,
    /// Whose `X-Forwarded-*` and `X-Original-*` headers count.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `/echo` answers with what it got. For development.
    pub echo: bool,
}

impl Default for Server {
    fn default() -> Self {
        let v4 = IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8).trunc();
        let v6 = IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            trusted_proxies: vec![v4, v6],
            echo: false,
        }
    }
}

/// `[postgres]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Where lookups, the drain and direct writes go.
    pub url: String,
    /// Past a transaction pooler: for the feed and the migrations.
    #[serde(default)]
    pub direct_url: Option<String>,
    /// Connections that lookups may use.
    #[serde(default = "auth_pool_max")]
    pub auth_pool_max: u32,
}

fn auth_pool_max() -> u32 {
    10
}

/// `[[upstreams]]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// What routes call it.
    pub name: String,
    /// Base URLs, used in turn.
    pub targets: Vec<String>,
}

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A path pattern; `{table}` in it names the table.
    pub path: String,
    /// The name of an `[[upstreams]]`.
    pub upstream: String,
    /// Only this host.
    #[serde(default)]
    pub host: Option<String>,
    /// Only these methods; empty: all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The operation; by the method when not set.
    #[serde(default)]
    pub operation: Option<String>,
}
