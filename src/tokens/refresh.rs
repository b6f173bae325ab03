//! The text of a refresh token, and its proof.
//!
//! ```text
//! gpr_<secret id>_<session id, 32 hex digits>_<generation>_<MAC, 32 hex digits>
//! MAC: the first 128 bits of HMAC-SHA-256 (RFC 2104) over purpose, deployment, session, generation
//! ```
//!
//! One text for each token: what is not written exactly as it would be here is not read.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use uuid::Uuid;

/// The longest text that is looked at, in bytes.
pub const REFRESH_MAX: usize = 128;

const PREFIX: &str = "gpr";
const PURPOSE: &[u8] = b"gatepost refresh v1";
const MAC_BYTES: usize = 16;

/// What a refresh token says, before it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// Which secret proves it.
    pub secret: &'a str,
    /// The session.
    pub session: Uuid,
    /// The generation.
    pub generation: u64,
    mac: [u8; MAC_BYTES],
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly 16 bytes in lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 16]> {
    let canonical = text.len() == 32 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
    canonical.then(|| u128::from_str_radix(text, 16).ok())?.map(u128::to_be_bytes)
}

/// Reads a text; `None` for all that was not written by [`mint`].
pub fn parse(text: &str) -> Option<Claimed<'_>> {
    if text.len() > REFRESH_MAX {
        return None;
    }
    let mut parts = text.split('_');
    let prefix = parts.next().filter(|prefix| *prefix == PREFIX);
    let (secret, session) = prefix.and(parts.next()).zip(parts.next())?;
    let (generation, mac) = parts.next().zip(parts.next())?;
    let digits = !generation.is_empty() && generation.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && (generation == "0" || !generation.starts_with('0'));
    if !canonical || parts.next().is_some() {
        return None;
    }
    // Postgres keeps it in a bigint.
    let generation = generation.parse().ok().filter(|g| i64::try_from(*g).is_ok())?;
    let (session, mac) = (Uuid::from_bytes(unhex(session)?), unhex(mac)?);
    Some(Claimed { secret, session, generation, mac })
}

/// Whether `secret` made it in this `deployment`. Takes the same time whatever is wrong.
pub fn is_proven(claimed: &Claimed<'_>, secret: &hmac::Key, deployment: &str) -> bool {
    let mac = mac(secret, deployment, claimed.session, claimed.generation);
    verify_slices_are_equal(&mac, &claimed.mac).is_ok()
}

/// The text of a token.
pub fn mint(
    (id, secret): (&str, &hmac::Key),
    deployment: &str,
    session: Uuid,
    generation: u64,
) -> String {
    let mac = hex(&mac(secret, deployment, session, generation));
    format!("{PREFIX}_{id}_{}_{generation}_{mac}", session.simple())
}

fn mac(secret: &hmac::Key, deployment: &str, session: Uuid, generation: u64) -> [u8; MAC_BYTES] {
    let mut context = hmac::Context::with_key(secret);
    // Each part behind its length: no two inputs make the same bytes.
    for part in [PURPOSE, deployment.as_bytes(), session.as_bytes(), &generation.to_be_bytes()] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    fn prove(text: &str) -> Option<(Uuid, u64)> {
        let claimed = parse(text)?;
        let proven = claimed.secret == "k1" && is_proven(&claimed, &key(), "http://a");
        proven.then_some((claimed.session, claimed.generation))
    }

    #[test]
    fn a_token_proves_itself_and_only_in_its_deployment() {
        let session = Uuid::from_u128(0x0123_4567);
        let text = mint(("k1", &key()), "http://a", session, 42);
        assert!(text.len() <= REFRESH_MAX, "{text}");
        assert_eq!(prove(&text), Some((session, 42)));
        let longest = mint(("0123456789ab", &key()), "http://a", Uuid::max(), i64::MAX as u64);
        assert!(longest.len() <= REFRESH_MAX, "{longest}");
        assert_eq!(prove(&mint(("k1", &key()), "http://b", session, 42)), None);
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert_eq!(prove(&mint(("k1", &other), "http://a", session, 42)), None);
        for junk in ["", "gpr", "gpr____", "gpr_k1", &text.to_uppercase(), &format!("{text}_")] {
            assert_eq!(prove(junk), None, "{junk}");
        }
        let padded = text.replace("_42_", "_042_");
        assert_eq!(prove(&padded), None);
        assert_eq!(prove(&text.replace("_42_", "_+42_")), None);
        assert_eq!(prove(&text.replace("_42_", "_43_")), None);
    }

    proptest! {
        /// Changed, shortened or lengthened by one character, wherever: not proven.
        #[test]
        fn no_altered_token_is_proven(
            generation in 0_u64..1 << 40,
            session: u128,
            at: proptest::sample::Index,
            to in "[0-9a-zA-Z_.-]",
            how in 0_u8..3,
        ) {
            let text = mint(("k1", &key()), "http://a", Uuid::from_u128(session), generation);
            let at = at.index(text.len());
            let altered = match how {
                0 => format!("{}{to}{}", &text[..at], &text[at + 1..]),
                1 => format!("{}{}", &text[..at], &text[at + 1..]),
                _ => format!("{}{to}{}", &text[..at], &text[at..]),
            };
            prop_assume!(altered != text);
            prop_assert_eq!(prove(&altered), None);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,160}") {
            prop_assert_eq!(prove(&text), None);
        }
    }
}
