//! Secrets on their way into and out of the sealed file: `#[serde(with = "secret_text")]`.
//!
//! `Secret` itself has no `Serialize`: nothing but the store may write one down.

use serde::{Deserialize as _, Deserializer, Serializer};

use crate::secret::Secret;

pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

pub(super) mod optional {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::secret::Secret;

    #[expect(clippy::ref_option, reason = "serde's `with` calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(secret: &Option<Secret>, out: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => out.serialize_some(secret.expose()),
            None => out.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(input)?.map(Secret::new))
    }
}
