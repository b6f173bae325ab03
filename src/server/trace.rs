//! W3C trace context: `traceparent` and `tracestate` are passed on when they are well-formed. What
//! is not would break the trace of whoever reads it next, so it is dropped, and no trace is begun
//! here: the request's own id is enough to find it by.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `traceparent` of a version that is not known yet.
const PARENT_MAX: usize = 256;
/// The longest `tracestate`, in bytes and in members (§3.3.1.1).
const STATE_MAX: usize = 512;
const MEMBERS_MAX: usize = 32;

/// A trace's id: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceId(HeaderValue);

impl TraceId {
    /// The trace that a request belongs to.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next().filter(|parent| is_parent(parent.as_bytes()))?;
        parents.next().is_none().then(|| Self(parent.clone()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.get(3..35)).unwrap_or_default()
    }
}

/// Drops what cannot be passed on, and says which trace is left.
pub fn clean(headers: &mut HeaderMap) -> Option<TraceId> {
    let trace = TraceId::of(headers);
    if trace.is_none() {
        headers.remove(TRACEPARENT);
    }
    if trace.is_none() || !is_state(headers) {
        headers.remove(TRACESTATE);
    }
    trace
}

/// `00-<trace>-<span>-<flags>`; later versions may say more behind another hyphen (§3.2.2, §4.3).
fn is_parent(text: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d));
    let some = |part: &[u8]| part.iter().any(|digit| *digit != b'0');
    let Some((known, rest)) = text.split_at_checked(55) else { return false };
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let hyphens = [2, 35, 52].into_iter().all(|at| known[at] == b'-');
    let end = match version {
        b"00" => rest.is_empty(),
        _ if rest.is_empty() => true,
        _ => rest[0] == b'-' && text.len() <= PARENT_MAX && rest.iter().all(u8::is_ascii_graphic),
    };
    hyphens
        && end
        && version != b"ff"
        && [version, trace, span, flags].into_iter().all(digits)
        && some(trace)
        && some(span)
}

fn is_state(headers: &HeaderMap) -> bool {
    let values = || headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
    let bytes: usize = values().map(<[u8]>::len).sum();
    let members = values().flat_map(|value| value.split(|byte| *byte == b',')).count();
    let printable = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\t';
    bytes <= STATE_MAX && members <= MEMBERS_MAX && values().flatten().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn cleaned(pairs: &[(&'static str, &str)]) -> (Option<String>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        (clean(&mut headers).map(|trace| trace.as_str().to_owned()), headers)
    }

    #[test]
    fn what_is_well_formed_is_passed_on_as_it_is() {
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        for parent in [GOOD, &later] {
            let (trace, left) = cleaned(&[("traceparent", parent), ("tracestate", "a=1,b=2")]);
            assert_eq!(trace.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"), "{parent}");
            assert_eq!(left["traceparent"], parent);
            assert_eq!(left["tracestate"], "a=1,b=2");
        }
    }

    #[test]
    fn what_is_not_is_dropped_with_its_state() {
        let long = format!("{GOOD}-more");
        let never = GOOD.replacen("00", "ff", 1);
        let (upper, zero) =
            (GOOD.to_uppercase(), GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)));
        let none = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let endless = format!("01{}-{}", &GOOD[2..], "x".repeat(256));
        for bad in ["", "x", "00-1-2-3", &GOOD[..54], &long, &never, &upper, &zero, &none, &endless]
        {
            let (trace, left) = cleaned(&[("traceparent", bad), ("tracestate", "a=1")]);
            assert_eq!((trace, left.len()), (None, 0), "{bad}");
        }
        let twice = [("traceparent", GOOD), ("traceparent", GOOD)];
        assert_eq!(cleaned(&twice).1.len(), 0);
        assert_eq!(cleaned(&[("tracestate", "a=1")]).1.len(), 0);
    }

    #[test]
    fn a_state_that_is_too_long_goes_alone() {
        for state in ["a=1,".repeat(33), "x".repeat(513), "a=\u{e9}".to_owned()] {
            let (trace, left) = cleaned(&[("traceparent", GOOD), ("tracestate", &state)]);
            assert!(trace.is_some() && left.len() == 1, "{state}");
        }
    }

    #[test]
    fn any_bytes_are_a_trace_or_go() {
        let good = [
            format!("traceparent: {GOOD}\ntracestate: a=b,c=d"),
            format!("traceparent: cc{}-what-comes", &GOOD[2..]),
        ];
        crate::fuzz::each("trace", &good.map(String::into_bytes), |bytes| {
            let mut headers = crate::fuzz::fields(bytes);
            let trace = clean(&mut headers);
            assert_eq!(trace.is_some(), headers.contains_key(TRACEPARENT));
            assert!(trace.is_some() || !headers.contains_key(TRACESTATE));
            if let Some(trace) = trace {
                assert_eq!(trace.as_str().len(), 32);
                assert!(trace.as_str().bytes().all(|digit| digit.is_ascii_hexdigit()));
            }
        });
    }
}
