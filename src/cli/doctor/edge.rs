//! The data plane: its certificate, and room for its connections.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::model::Timestamp;
use crate::server::Certificates;

/// A certificate that ends sooner should have been renewed by what renews it.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Journal, cache, Postgres, the control plane: whatever else is open.
const OTHER_FILES: usize = 256;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    vec![certificate(config, SystemClock::new().now()), files(config, limit)]
}

fn certificate(config: &Config, now: Timestamp) -> Check {
    const NAME: &str = "certificate";
    let Some(tls) = &config.server.tls else {
        return Check::ok(NAME, "none is configured: plain HTTP");
    };
    match Certificates::good_until(tls, now) {
        Err(error) => Check::fail(NAME, error.to_string()),
        Ok(end) if end < now.plus(RENEWED_BEFORE) => {
            let hint = "renew it, then reload";
            Check::warn(NAME, format!("{} ends soon, at {end}; {hint}", tls.cert.display()))
        }
        Ok(end) => Check::ok(NAME, format!("{} is good until {end}", tls.cert.display())),
    }
}

/// `limit` is this process' own: a service may have another.
fn files(config: &Config, limit: usize) -> Check {
    const NAME: &str = "open files";
    let server = &config.server;
    let upstreams = config.upstreams.iter().fold(0_usize, |sum, upstream| {
        let each = upstream.max_in_flight.saturating_add(upstream.max_idle);
        sum.saturating_add(upstream.targets.len().saturating_mul(each))
    });
    let wanted = server.max_connections + upstreams.min(server.max_requests) + OTHER_FILES;
    let message = format!("this shell allows {limit}; connections may take {wanted}");
    if limit >= wanted {
        return Check::ok(NAME, if limit == usize::MAX { "no limit".into() } else { message });
    }
    let hint = "raise `ulimit -n` or the service's LimitNOFILE, or lower server.max_connections";
    Check::warn(NAME, format!("{message}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn connections_need_files() {
        let config = Config::default();
        assert_eq!(files(&config, usize::MAX).status, Level::Ok);
        assert_eq!(files(&config, 10_256).status, Level::Ok);
        let few = files(&config, 1024);
        assert_eq!(few.status, Level::Warn);
        assert!(few.message.contains("10256") && few.message.contains("LimitNOFILE"));
    }
}
