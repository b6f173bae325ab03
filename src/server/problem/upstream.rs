//! What is wrong with an upstream, as problems: 502 for what it did, 503 for what it was spared,
//! 504 for what it did not do in time.

use super::Kind;
use crate::proxy::Fault;

#[rustfmt::skip]
pub(super) fn kind(fault: Fault) -> Kind {
    match fault {
        Fault::Unreachable => ("upstream_unreachable", 502, "Upstream unreachable",
            "No connection to the upstream can be made."),
        Fault::Tls => ("upstream_tls_failed", 502, "Upstream not trusted",
            "No TLS connection to the upstream can be made, or its certificate is not good."),
        Fault::BrokeOff => ("upstream_broke_off", 502, "Upstream broke off",
            "The upstream closed the connection before it answered."),
        Fault::Garbled => ("upstream_garbled", 502, "Upstream garbled",
            "What the upstream said is not HTTP."),
        Fault::ConnectTimeout => ("upstream_connect_timeout", 504, "Upstream connect timeout",
            "The connection to the upstream was not made in time."),
        Fault::Timeout => ("upstream_timeout", 504, "Upstream timeout",
            "The upstream did not answer in time."),
        Fault::CircuitOpen { .. } => ("upstream_circuit_open", 503, "Upstream left out",
            "The upstream failed several times in a row and is left alone for a while. Try again."),
        Fault::Unhealthy { .. } => ("upstream_unhealthy", 503, "Upstream not healthy",
            "By its health checks the upstream cannot serve at the moment. Try again."),
        Fault::Busy => ("upstream_busy", 503, "Upstream busy",
            "The upstream works at as many requests as it may. Try again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_code_of_its_own() {
        let retry_after = std::time::Duration::from_secs(1);
        let all = [
            (Fault::Unreachable, "upstream_unreachable", 502),
            (Fault::Tls, "upstream_tls_failed", 502),
            (Fault::BrokeOff, "upstream_broke_off", 502),
            (Fault::Garbled, "upstream_garbled", 502),
            (Fault::ConnectTimeout, "upstream_connect_timeout", 504),
            (Fault::Timeout, "upstream_timeout", 504),
            (Fault::CircuitOpen { retry_after }, "upstream_circuit_open", 503),
            (Fault::Unhealthy { retry_after }, "upstream_unhealthy", 503),
            (Fault::Busy, "upstream_busy", 503),
        ];
        for (fault, code, status) in all {
            assert_eq!((kind(fault).0, kind(fault).1), (code, status));
        }
    }
}
