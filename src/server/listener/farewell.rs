//! What is said to a head that nobody could read.
//!
//! The parser answers it by itself, with a status and no content. It is known by standing where no
//! request has asked for anything: all that was said before has been written out, and none has
//! begun since ([`Slot::is_quiet`](super::slot::Slot::is_quiet)). A problem document goes out in
//! its place. Behind an answer that is still being written it goes out as it is.

use super::framing::Fault;
use crate::server::problem::{Code, Refusal};

/// How the parser says that it has nothing to say.
const EMPTY: &str = "content-length: 0\r\n";

/// The parser's answer with a problem document, and the word for what was wrong in the metrics;
/// `None` where these bytes are no such answer. With a `fault` the word was said already.
pub(super) fn instead_of(
    bytes: &[u8],
    fault: Option<Fault>,
) -> Option<(Vec<u8>, Option<&'static str>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (line, fields) = text.split_once("\r\n")?;
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let (refusal, word) = match (fault, status) {
        (Some(Fault::Endless), "400") => (Code::BodyTooLarge.into(), None),
        (Some(Fault::Large), "400" | "431") => (Code::HeadTooLarge.into(), None),
        (Some(fault), "400") => (Refusal::bad_request(fault.detail()), None),
        (_, "400") => (Refusal::bad_request("The head is not one of HTTP/1.1."), Some("syntax")),
        (_, "414") => (Code::TargetTooLong.into(), Some("target_too_long")),
        (_, "431") => (Code::HeadTooLarge.into(), Some("head_too_large")),
        _ => return None,
    };
    let (before, after) = fields.split_once(EMPTY)?;
    let (status, document) = (refusal.code().status(), refusal.document());
    let length = document.len();
    let mut said = format!(
        "HTTP/1.1 {status}\r\n{before}content-type: application/problem+json\r\n\
         content-length: {length}\r\n{after}"
    )
    .into_bytes();
    said.extend(document);
    Some((said, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(head: &str, fault: Option<Fault>) -> Option<(String, Option<&'static str>)> {
        let (said, word) = instead_of(head.as_bytes(), fault)?;
        Some((String::from_utf8(said).expect("text"), word))
    }

    const TOO_LARGE: &str = "431 Request Header Fields Too Large";

    fn own(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n")
    }

    #[test]
    fn the_parsers_words_get_a_reason() {
        for (status, fault, code, word) in [
            ("400 Bad Request", Some(Fault::Coding), "bad_request", None),
            ("400 Bad Request", None, "bad_request", Some("syntax")),
            ("414 URI Too Long", None, "target_too_long", Some("target_too_long")),
            (TOO_LARGE, None, "head_too_large", Some("head_too_large")),
            (TOO_LARGE, Some(Fault::Large), "head_too_large", None),
        ] {
            let (answer, told) = said(&own(status), fault).expect("an answer");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\nconnection: close")), "{head}");
            assert!(
                head.contains(&format!("content-length: {}\r\ndate: now", body.len())),
                "{head}"
            );
            let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!((document["code"].as_str(), told), (Some(code), word));
        }
    }

    #[test]
    fn what_was_put_in_a_heads_place_is_not_what_was_wrong_with_it() {
        let (answer, _) = said(&own("400 Bad Request"), Some(Fault::Large)).expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {TOO_LARGE}\r\nconnection: close")),
            "{answer}"
        );
    }

    #[test]
    fn anything_else_is_left_alone() {
        assert_eq!(said(&own("200 OK"), None), None);
        assert_eq!(said("HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nhello", None), None);
        assert_eq!(said("", None), None);
    }

    #[test]
    fn any_bytes_of_the_parser_are_replaced_whole_or_left_alone() {
        let good = ["400 Bad Request", "414 URI Too Long", "431 Too Large"]
            .map(|status| own(status).into_bytes());
        crate::fuzz::each("farewell", &good, |bytes| {
            for fault in [None, Some(Fault::Line)] {
                let Some((said, _)) = instead_of(bytes, fault) else { continue };
                let said = String::from_utf8(said).expect("text stays text");
                assert!(said.starts_with("HTTP/1.1 ") && said.ends_with('}'), "{said:?}");
            }
        });
    }
}
