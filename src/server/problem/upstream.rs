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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_code_of_its_own() {
        let all = [
            (Fault::Unreachable, "upstream_unreachable", 502),
            (Fault::Tls, "upstream_tls_failed", 502),
            (Fault::BrokeOff, "upstream_broke_off", 502),
            (Fault::Garbled, "upstream_garbled", 502),
            (Fault::ConnectTimeout, "upstream_connect_timeout", 504),
            (Fault::Timeout, "upstream_timeout", 504),
        ];
        for (fault, code, status) in all {
            assert_eq!((kind(fault).0, kind(fault).1), (code, status));
        }
    }
}
