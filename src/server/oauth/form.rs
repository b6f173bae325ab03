//! Forms (RFC 6749 appendix B): each parameter once, and an empty one is as if it were not there.

use std::collections::HashMap;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::server::problem::Refusal;

/// Parameters that a request may carry; more are none of ours.
const PARAMETERS_MAX: usize = 32;

/// The parameters of a request, secrets among them.
pub struct Form(HashMap<String, String>);

impl Form {
    /// Reads a request's body.
    ///
    /// # Errors
    /// When it is no form, or a parameter comes twice (RFC 6749 §3.2).
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let kind =
            headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::bad_request(
                "Send a form: `Content-Type: application/x-www-form-urlencoded`.",
            ));
        }
        let mut parameters = HashMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            let twice = parameters.insert(name.into_owned(), value.into_owned()).is_some();
            if twice || parameters.len() > PARAMETERS_MAX {
                return Err(Refusal::bad_request(
                    "A parameter comes twice, or there are too many.",
                ));
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn needed(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            Refusal::bad_request(
                "A parameter is missing: `grant_type`, `refresh_token` or `token`.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body: Vec<u8>, pairs in "[a-c&=%0-9A-F+]{0,80}") {
            let kind = "application/x-www-form-urlencoded".parse().expect("a header");
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
            for body in [&*body, pairs.as_bytes()] {
                if let Ok(form) = Form::read(&headers, body) {
                    prop_assert!(form.0.len() <= PARAMETERS_MAX);
                }
            }
        }
    }

    fn read(body: &str) -> Result<Form, Refusal> {
        let kind = "application/x-www-form-urlencoded; charset=UTF-8".parse().expect("a header");
        Form::read(&HeaderMap::from_iter([(CONTENT_TYPE, kind)]), body.as_bytes())
    }

    #[test]
    fn parameters_are_read_once_and_empty_ones_are_not_there() {
        let form = read("grant_type=refresh_token&scope=a+b%20c&client_id=&x=%FF").expect("a form");
        assert_eq!(form.get("grant_type"), Some("refresh_token"));
        assert_eq!(form.get("scope"), Some("a b c"));
        assert_eq!(form.get("client_id"), None);
        assert!(form.needed("token").is_err());
        assert!(read("token=a&token=b").is_err());
        assert!(read("token=a&token=a").is_err());
        let many: String = (0..40).map(|n| format!("p{n}=1&")).collect();
        assert!(read(&many).is_err());
        assert!(Form::read(&HeaderMap::new(), b"token=a").is_err());
    }

    #[test]
    fn any_bytes_are_a_form_or_refused() {
        let good = [
            "grant_type=refresh_token&refresh_token=gpr_1&client_id=a",
            "token=%67p&token_type_hint=x",
        ];
        let kind = "application/x-www-form-urlencoded".parse().expect("a header");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        crate::fuzz::each("form", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let Ok(form) = Form::read(&headers, bytes) else { return };
            assert!(form.0.len() <= PARAMETERS_MAX);
            let held: usize = form.0.iter().map(|(name, value)| name.len() + value.len()).sum();
            // What is no text takes more room as a sign of that.
            assert!(held <= 3 * bytes.len());
        });
    }
}
