//! A public key of a JWKS (RFC 7517), and the algorithms that it may be used with.

use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, ED25519, Family};

/// Reason for which a key of a JWKS is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("expected an object")]
    NotAnObject,
    #[error("{0}: expected text")]
    NotText(&'static str),
    #[error("{0} is missing or is not base64url without padding")]
    Base64(&'static str),
    #[error("unsupported kty {0:?}: expected RSA, EC or OKP")]
    Type(String),
    #[error("a symmetric key (kty oct): whoever can read it can sign tokens")]
    Symmetric,
    #[error("a private key ({0} is present): whoever can read it can sign tokens")]
    Private(&'static str),
    #[error("unsupported crv {0:?}: expected P-256, P-384, P-521 or Ed25519")]
    Curve(String),
    #[error("unsupported alg {0:?} for this key")]
    Algorithm(String),
    #[error("the key is not for signatures (use or key_ops)")]
    Use,
    #[error("an RSA key of {0} bits: expected 2048 to 8192")]
    RsaBits(usize),
    #[error("the key is not a valid public key")]
    Invalid,
}

/// Members that only private keys have (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A public key, parsed for each algorithm that it may be used with.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

impl Key {
    /// Reads an entry of `keys`.
    pub(crate) fn parse(jwk: &Value) -> Result<Self, KeyError> {
        let jwk = jwk.as_object().ok_or(KeyError::NotAnObject)?;
        let kind = text(jwk, "kty")?.unwrap_or_default();
        if kind == "oct" {
            return Err(KeyError::Symmetric);
        }
        if let Some(member) = PRIVATE_MEMBERS.into_iter().find(|member| jwk.contains_key(*member)) {
            return Err(KeyError::Private(member));
        }
        check_use(jwk)?;
        let named = match text(jwk, "alg")? {
            Some(name) => Some(Algorithm::by_name(name).ok_or_else(|| KeyError::Algorithm(name.to_owned()))?),
            None => None,
        };
        let is_named = |algorithm: &Algorithm| named.is_none_or(|named| named == *algorithm);
        let verifiers: Vec<_> = match kind {
            "RSA" => rsa(jwk)?.into_iter().filter(|(algorithm, _)| is_named(algorithm)).collect(),
            "EC" => vec![ec(jwk)?],
            "OKP" => vec![ed(jwk)?],
            other => return Err(KeyError::Type(other.to_owned())),
        };
        let verifiers: Vec<_> = verifiers.into_iter().filter(|(algorithm, _)| is_named(algorithm)).collect();
        if verifiers.is_empty() {
            return Err(KeyError::Algorithm(named.map(Algorithm::name).unwrap_or_default().to_owned()));
        }
        Ok(Self { id: text(jwk, "kid")?.map(ToOwned::to_owned), verifiers })
    }

    /// The key for signatures of an algorithm; `None` if it must not be used with it.
    pub(crate) fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(of, _)| *of == algorithm).map(|(_, key)| key)
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, KeyError> {
    jwk.get(name).map(|value| value.as_str().ok_or(KeyError::NotText(name))).transpose()
}

fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = text(jwk, name)?.unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Base64(name))?;
    if bytes.is_empty() { Err(KeyError::Base64(name)) } else { Ok(bytes) }
}

fn check_use(jwk: &Map<String, Value>) -> Result<(), KeyError> {
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation.as_str() == Some("verify")))
    };
    let is_for_signatures = text(jwk, "use")?.is_none_or(|of| of == "sig") && jwk.get("key_ops").is_none_or(verifies);
    if is_for_signatures { Ok(()) } else { Err(KeyError::Use) }
}

fn rsa(jwk: &Map<String, Value>) -> Result<Vec<(Algorithm, ParsedPublicKey)>, KeyError> {
    // Some issuers write the sign byte of the number too.
    let number = |name| -> Result<Vec<u8>, KeyError> {
        let mut bytes = bytes(jwk, name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.drain(..zeros);
        Ok(bytes)
    };
    let components = RsaPublicKeyComponents { n: number("n")?, e: number("e")? };
    let unused = components.n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = components.n.len() * 8 - unused;
    if !(2048..=8192).contains(&bits) {
        return Err(KeyError::RsaBits(bits));
    }
    let parsed = Algorithm::ALL.into_iter().filter_map(|algorithm| match algorithm.family() {
        Family::Rsa(parameters) => Some((algorithm, parameters)),
        Family::Ec(..) | Family::Ed => None,
    });
    parsed
        .map(|(algorithm, parameters)| match components.to_parsed_public_key(parameters) {
            Ok(key) => Ok((algorithm, key)),
            Err(_) => Err(KeyError::Invalid),
        })
        .collect()
}

fn ec(jwk: &Map<String, Value>) -> Result<(Algorithm, ParsedPublicKey), KeyError> {
    let curve = text(jwk, "crv")?.unwrap_or_default();
    let found = Algorithm::ALL.into_iter().find_map(|algorithm| match algorithm.family() {
        Family::Ec(name, bytes, verification) if name == curve => Some((algorithm, bytes, verification)),
        Family::Ec(..) | Family::Rsa(_) | Family::Ed => None,
    });
    let (algorithm, size, verification) = found.ok_or_else(|| KeyError::Curve(curve.to_owned()))?;
    // Uncompressed (SEC 1 section 2.3.3). Coordinates have the full length (RFC 7518 section 6.2.1.2).
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(jwk, name)?;
        if coordinate.len() != size {
            return Err(KeyError::Invalid);
        }
        point.extend(coordinate);
    }
    let key = ParsedPublicKey::new(verification, point).map_err(|_| KeyError::Invalid)?;
    Ok((algorithm, key))
}

fn ed(jwk: &Map<String, Value>) -> Result<(Algorithm, ParsedPublicKey), KeyError> {
    let curve = text(jwk, "crv")?.unwrap_or_default();
    if curve != "Ed25519" {
        return Err(KeyError::Curve(curve.to_owned()));
    }
    let key = bytes(jwk, "x")?;
    // The parser would read other encodings of a key, too.
    if key.len() != 32 {
        return Err(KeyError::Invalid);
    }
    let key = ParsedPublicKey::new(ED25519, key).map_err(|_| KeyError::Invalid)?;
    Ok((Algorithm::EdDsa, key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{ALGORITHMS, base64url, jwks, signer, with};
    use crate::{JwksError, KeySet, MAX_KEYS, public_part};

    #[test]
    fn a_key_is_for_the_algorithms_of_its_type() {
        for (of, expected) in [
            ("RS256", &ALGORITHMS[..6]),
            ("ES256", &["ES256"]),
            ("ES384", &["ES384"]),
            ("ES512", &["ES512"]),
            ("EdDSA", &["EdDSA"]),
        ] {
            let key = Key::parse(&signer(of).jwk()).unwrap();
            let found = Algorithm::ALL.into_iter().filter(|algorithm| key.verifier(*algorithm).is_some());
            assert_eq!(found.map(Algorithm::name).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_says_why() {
        let (rsa, ec, ed) = (signer("RS256").jwk(), signer("ES256").jwk(), signer("EdDSA").jwk());
        let short = base64url([0x80; 128]);
        let p384 = signer("ES384").jwk();
        for (jwk, expected) in [
            (json!("x"), KeyError::NotAnObject),
            (json!({}), KeyError::Type(String::new())),
            (json!({"kty": 1}), KeyError::NotText("kty")),
            (json!({"kty": "oct", "k": "AAAA"}), KeyError::Symmetric),
            (with(rsa.clone(), json!({"d": "AQ"})), KeyError::Private("d")),
            (with(rsa.clone(), json!({"p": "AQ"})), KeyError::Private("p")),
            (with(ec.clone(), json!({"d": "AQ"})), KeyError::Private("d")),
            (with(ed.clone(), json!({"d": "AQ"})), KeyError::Private("d")),
            (with(rsa.clone(), json!({"n": short})), KeyError::RsaBits(1024)),
            (with(rsa.clone(), json!({"n": null})), KeyError::Base64("n")),
            (with(rsa.clone(), json!({"n": "a+b="})), KeyError::Base64("n")),
            (with(rsa.clone(), json!({"alg": "ES256"})), KeyError::Algorithm("ES256".to_owned())),
            (with(rsa.clone(), json!({"alg": "HS256"})), KeyError::Algorithm("HS256".to_owned())),
            (with(rsa.clone(), json!({"alg": "RSA-OAEP"})), KeyError::Algorithm("RSA-OAEP".to_owned())),
            (with(rsa.clone(), json!({"use": "enc"})), KeyError::Use),
            (with(rsa, json!({"key_ops": ["encrypt"]})), KeyError::Use),
            (with(ec.clone(), json!({"crv": "secp256k1"})), KeyError::Curve("secp256k1".to_owned())),
            (with(ec.clone(), json!({"crv": "P-384"})), KeyError::Invalid),
            (with(ec.clone(), json!({"x": base64url([1; 32])})), KeyError::Invalid),
            (with(ec.clone(), json!({"x": base64url([0; 31])})), KeyError::Invalid),
            (with(ec, json!({"x": p384["x"], "y": p384["y"]})), KeyError::Invalid),
            (with(ed.clone(), json!({"crv": "X25519"})), KeyError::Curve("X25519".to_owned())),
            (with(ed, json!({"x": base64url([1; 31])})), KeyError::Invalid),
        ] {
            assert_eq!(Key::parse(&jwk).err(), Some(expected), "{jwk}");
        }
    }

    #[test]
    fn a_leading_zero_of_an_rsa_number_means_nothing() {
        let rsa = signer("RS256").jwk();
        let n = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
        assert!(Key::parse(&with(rsa, json!({"n": base64url([vec![0], n].concat())}))).is_ok());
    }

    #[test]
    fn secrets_of_a_set_go_no_further() {
        let public = signer("ES256").jwk();
        let private = with(public.clone(), json!({"d": "c2VjcmV0"}));
        let secret = json!({"kty": "oct", "k": "c2VjcmV0"});
        let (text, refused) = public_part(jwks(&[private.clone(), public.clone(), secret.clone()]).as_bytes()).unwrap();

        assert_eq!(text, jwks(&[public]));
        assert_eq!(refused, [(0, KeyError::Private("d")), (2, KeyError::Symmetric)]);
        for (json, expected) in [
            (jwks(&[secret, private]), JwksError::NoneUsable(Some(KeyError::Symmetric))),
            (jwks(&[]), JwksError::NoneUsable(None)),
            ("x".to_owned(), JwksError::NotJson),
            ("{}".to_owned(), JwksError::NoKeys),
            (jwks(&vec![json!({}); MAX_KEYS + 1]), JwksError::TooMany(MAX_KEYS + 1)),
            (" ".repeat((1 << 20) + 1), JwksError::TooLong((1 << 20) + 1)),
        ] {
            assert_eq!(KeySet::parse(json.as_bytes()).err(), Some(expected));
        }
    }
}
