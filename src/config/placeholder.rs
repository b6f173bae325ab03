//! Stand-ins for the sections of rooms that are not here yet: `server`, `postgres`, `proxy`.
//! They carry the names that the contract fixes, and give way to those rooms' own `Config`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Where Postgres is, or the pooler before it.
    pub url: Option<DatabaseUrl>,
    /// Straight to Postgres, when `url` leads to a transaction pooler.
    pub direct_url: Option<DatabaseUrl>,
    /// Connections that lookups may use.
    pub auth_pool_max: u32,
}

impl Default for Postgres {
    fn default() -> Self {
        Self { url: None, direct_url: None, auth_pool_max: 10 }
    }
}

/// A URL that may carry a password: never printed.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String")]
pub struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(SecretString::from(url.into()))
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
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
    /// Only these methods; for all when absent.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// The operation; by the method when not set.
    #[serde(default)]
    pub operation: Option<String>,
}
