//! W3C trace context: `traceparent` and `tracestate` are passed on when they are well-formed. What
//! is not would break the trace of whoever reads it next, so it is dropped. Only where spans are
//! exported a trace begins here, and what is asked of an upstream stands below the gateway's span:
//! a parent that nobody records would leave a hole.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::entropy::Entropy;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `traceparent` of a version that is not known yet.
const PARENT_MAX: usize = 256;
/// The longest `tracestate`, in bytes and in members (§3.3.1.1).
const STATE_MAX: usize = 512;
const MEMBERS_MAX: usize = 32;

/// A span's place in its trace, as a well-formed `traceparent` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(HeaderValue);

impl TraceParent {
    /// The span that a request belongs to.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next().filter(|parent| is_parent(parent.as_bytes()))?;
        parents.next().is_none().then(|| Self(parent.clone()))
    }

    /// A new span that is recorded: below `parent`, or of a new trace.
    pub fn below(parent: Option<&Self>, entropy: &dyn Entropy) -> Self {
        let mut random = [0; 24];
        entropy.fill(&mut random);
        let (trace, span) = random.split_at(16);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
        // Zero is none.
        let trace = parent.map_or(number(trace).max(1), Self::trace);
        let text = format!("00-{trace:032x}-{:016x}-01", number(span).max(1));
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")))
    }

    fn digits(&self, from: usize, to: usize) -> &str {
        self.0.to_str().ok().and_then(|text| text.get(from..to)).unwrap_or_default()
    }

    /// The trace's digits.
    pub fn trace_digits(&self) -> &str {
        self.digits(3, 35)
    }

    /// The trace.
    pub fn trace(&self) -> u128 {
        u128::from_str_radix(self.trace_digits(), 16).unwrap_or_default()
    }

    /// The span.
    pub fn span(&self) -> u64 {
        u64::from_str_radix(self.digits(36, 52), 16).unwrap_or_default()
    }

    /// Whether whoever made it records it.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.digits(53, 55), 16).is_ok_and(|flags| flags & 1 == 1)
    }

    /// As it is passed on.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Says in a request that it is a part of this span.
pub fn stand_below(headers: &mut HeaderMap, parent: HeaderValue) {
    headers.insert(TRACEPARENT, parent);
}

/// Drops what cannot be passed on, and says which trace is left.
pub fn clean(headers: &mut HeaderMap) -> Option<TraceParent> {
    let trace = TraceParent::of(headers);
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
        (clean(&mut headers).map(|trace| trace.trace_digits().to_owned()), headers)
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
    fn a_new_span_stands_in_its_parents_trace_or_begins_one() {
        let entropy: &dyn Entropy = &crate::entropy::SeededEntropy::new(1);
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        let parent = TraceParent::of(&headers).expect("one");
        assert!(parent.is_sampled() && parent.span() == 0x00f0_67aa_0ba9_02b7);
        let child = TraceParent::below(Some(&parent), entropy);
        assert!(is_parent(child.header().as_bytes()) && child.is_sampled());
        assert_eq!(child.trace(), parent.trace());
        assert_ne!(child.span(), parent.span());
        let first = TraceParent::below(None, entropy);
        assert!(is_parent(first.header().as_bytes()) && first.trace() != parent.trace());
        let quiet = GOOD.replace("-01", "-fe");
        headers.insert(TRACEPARENT, HeaderValue::try_from(quiet).expect("a value"));
        assert!(!TraceParent::of(&headers).expect("one").is_sampled());
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
                assert_eq!(trace.trace_digits().len(), 32);
                assert!(trace.trace_digits().bytes().all(|digit| digit.is_ascii_hexdigit()));
            }
        });
    }
}
