//! The text of an API key: `gp_<env>_` + 30 random base62 + 6 base62 check characters.
//!
//! The check characters are the CRC-32 (IEEE) of everything before them, alphabet `0-9A-Za-z`, most
//! significant first, padded with `0`. They prove nothing about who issued a key; they let junk be
//! refused without a lookup, and secret scanners recognise a key.

use std::fmt;

use super::Digest;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 30;
const CHECK_CHARS: usize = 6;
const ENV_MAX: usize = 16;

/// How many random bytes [`ApiKey::make`] is given: each character takes one, rejecting 248 and
/// above.
pub const SEED_BYTES: usize = 64;

/// A well-formed API key in plain text. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Makes a key for `env` out of random bytes; `None` when too few of them were usable
    /// (draw again) or `env` is not 1 to 16 lower-case letters or digits.
    pub fn make(env: &str, seed: &[u8; SEED_BYTES]) -> Option<Self> {
        if !is_env(env.as_bytes()) {
            return None;
        }
        let mut text = format!("gp_{env}_");
        // 248 = 4 × 62: the bytes above it would favour the first letters of the alphabet.
        let usable = seed.iter().filter(|byte| **byte < 248);
        let random = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        let before = text.len();
        text.extend(random.take(RANDOM_CHARS));
        if text.len() != before + RANDOM_CHARS {
            return None;
        }
        let check = check_chars(text.as_bytes());
        text.extend(check.map(char::from));
        Some(Self(text))
    }

    /// Recognises a key by its shape and check characters, without any lookup.
    pub fn parse(text: &str) -> Option<Self> {
        is_well_formed(text).then(|| Self(text.to_owned()))
    }

    /// The key itself, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn digest(&self) -> Digest {
        digest(&self.0)
    }

    /// Its readable start, `gp_live_`.
    pub fn prefix(&self) -> &str {
        &self.0[..self.0.len() - RANDOM_CHARS - CHECK_CHARS]
    }

    /// Its last four characters.
    pub fn last4(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", self.prefix())
    }
}

/// SHA-256 of the whole key (178 random bits need no slow hash).
pub fn digest(text: &str) -> Digest {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    Digest(bytes)
}

/// Whether `text` has the shape of a key and its check characters are right. Allocates nothing.
pub fn is_well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(rest) = bytes.strip_prefix(b"gp_") else { return false };
    let Some(split) = rest.iter().position(|byte| *byte == b'_') else { return false };
    let (env, tail) = (&rest[..split], &rest[split + 1..]);
    let (covered, check) = bytes.split_at(bytes.len().saturating_sub(CHECK_CHARS));
    is_env(env)
        && tail.len() == RANDOM_CHARS + CHECK_CHARS
        && tail.iter().all(u8::is_ascii_alphanumeric)
        && check == check_chars(covered)
}

fn is_env(env: &[u8]) -> bool {
    (1..=ENV_MAX).contains(&env.len())
        && env.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn check_chars(covered: &[u8]) -> [u8; CHECK_CHARS] {
    let mut rest = crc32fast::hash(covered);
    let mut chars = [b'0'; CHECK_CHARS];
    for slot in chars.iter_mut().rev() {
        *slot = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey::make("live", &[7; SEED_BYTES]).expect("usable bytes")
    }

    #[test]
    fn a_made_key_is_well_formed() {
        let key = key();
        assert_eq!(key.prefix(), "gp_live_");
        assert_eq!(key.reveal().len(), 8 + 36);
        assert_eq!(ApiKey::parse(key.reveal()), Some(key.clone()));
        assert_eq!(key.last4(), &key.reveal()[40..]);
    }

    #[test]
    fn the_check_characters_are_crc32_in_base62() {
        // CRC-32 of "123456789" is 0xCBF43926 = 3421780262, the check value of the algorithm.
        let text = check_chars(b"123456789");
        let value = text.iter().fold(0u64, |value, char| {
            let digit = ALPHABET.iter().position(|known| known == char).expect("in the alphabet");
            value * 62 + digit as u64
        });
        assert_eq!(value, 0xCBF4_3926);
    }

    #[test]
    fn every_single_changed_character_is_refused() {
        let key = key();
        for at in 0..key.reveal().len() {
            let mut bytes = key.reveal().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).expect("still ASCII");
            assert!(!is_well_formed(&changed), "accepted {changed}");
        }
    }

    #[test]
    fn junk_is_refused_without_a_panic() {
        for junk in ["", "gp_", "gp__", "gp_live_", "gp_live", "gp_live_é", "gp_LIVE_000", "日本語"]
        {
            assert!(!is_well_formed(junk));
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", key()), "ApiKey(gp_live_…)");
    }

    #[test]
    fn any_bytes_are_a_key_as_it_is_made_or_none() {
        let good = [key().reveal().as_bytes().to_vec(), b"gp_test_".to_vec()];
        crate::fuzz::each("API key", &good, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            // The check characters would stop nearly every input: they are made right, too.
            let made = text.get(..text.len().saturating_sub(CHECK_CHARS)).unwrap_or_default();
            let check = check_chars(made.as_bytes()).map(char::from);
            for text in [text.to_owned(), made.chars().chain(check).collect()] {
                let Some(key) = ApiKey::parse(&text) else { continue };
                assert!(text.starts_with(key.prefix()) && text.ends_with(key.last4()));
                assert!(text.len() <= 3 + ENV_MAX + 1 + RANDOM_CHARS + CHECK_CHARS, "{text}");
            }
        });
    }
}
