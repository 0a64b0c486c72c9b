//! Signature algorithms (RFC 7518 section 3.1, RFC 8037).

use aws_lc_rs::signature::{self, RsaParameters, VerificationAlgorithm};

/// A public-key signature algorithm. Those with shared keys (`HS256`, ...) and `none` are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// Keys that an algorithm uses. A key of one family never verifies a signature of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// From 2048 to 8192 bits (RFC 7518 sections 3.3 and 3.5).
    Rsa(&'static RsaParameters),
    /// Curve (`crv`), bytes of a coordinate, and the algorithm on it.
    Ec(&'static str, usize, &'static signature::EcdsaVerificationAlgorithm),
    /// `Ed25519`.
    Ed,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Name as in `alg`. Letter case counts (RFC 7515 section 4.1.1).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Rs256 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Family::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Family::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Family::Ec("P-256", 32, &signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Family::Ec("P-384", 48, &signature::ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Family::Ec("P-521", 66, &signature::ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Family::Ed,
        }
    }
}

/// The algorithm of Ed25519 keys.
pub(crate) const ED25519: &dyn VerificationAlgorithm = &signature::ED25519;
