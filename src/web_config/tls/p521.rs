//! Key exchange over P-521, which rustls does not bring with it.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P521, EphemeralPrivateKey, PublicKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// The first byte of a point that is not compressed, the only form that TLS allows.
const UNCOMPRESSED: u8 = 0x04;

/// The group `secp521r1`.
pub(super) static SECP521R1: &dyn SupportedKxGroup = &P521;

struct P521;

struct Exchange {
    private_key: EphemeralPrivateKey,
    public_key: PublicKey,
}

impl fmt::Debug for P521 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl SupportedKxGroup for P521 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private_key =
            EphemeralPrivateKey::generate(&ECDH_P521, &SystemRandom::new()).map_err(|_| GetRandomFailed)?;
        let public_key = private_key.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { private_key, public_key }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        if peer.first() != Some(&UNCOMPRESSED) {
            return Err(invalid());
        }
        agree_ephemeral(self.private_key, UnparsedPublicKey::new(&ECDH_P521, peer), invalid(), |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn pub_key(&self) -> &[u8] {
        self.public_key.as_ref()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_invalid_points_are_refused() {
        let start = || SECP521R1.start().expect("a key can be generated");
        let (ours, theirs) = (start(), start());
        let (our_point, their_point) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        assert_eq!(our_point.len(), 133);
        let secret = ours.complete(&their_point).expect("the point is valid");
        assert_eq!(secret.secret_bytes(), theirs.complete(&our_point).expect("valid").secret_bytes());

        let mut off_the_curve = their_point.clone();
        off_the_curve[132] ^= 1;
        let mut compressed = their_point[..67].to_vec();
        compressed[0] = 0x02;
        for invalid in [&off_the_curve[..], &compressed, &their_point[..132], &[]] {
            assert!(start().complete(invalid).is_err());
        }
    }
}
