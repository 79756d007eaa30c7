//! Ids are newtypes: what names a key cannot be passed where a diff id is meant.
//!
//! blake3 names what is ours (keys, trees, contents); sha256 names what OCI names (blobs, diff ids, chain ids).

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A text that is not 64 lower-case hexadecimal digits, with the prefix the type wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: {0:?}")]
pub struct BadDigest(pub String);

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Not pushed digit by digit: it showed in the profile of a plan.
    let mut digits = vec![0; bytes.len() * 2];
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        (pair[0], pair[1]) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
    }
    String::from_utf8(digits).expect("digits are ASCII")
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 64 hexadecimal digits, without the algorithm.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }
            /// The first 16 of them, as commands show and take them.
            pub fn first_digits(&self) -> String {
                hex(&self.0[..8])
            }
            /// Twelve characters for directory and file names where the whole digest is too long (60 bits).
            pub fn short(&self) -> String {
                short(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "{}{}", $prefix, hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = BadDigest;
            fn from_str(text: &str) -> Result<Self, BadDigest> {
                text.strip_prefix($prefix).and_then(unhex).map($name).ok_or_else(|| BadDigest(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadDigest;
            fn try_from(text: String) -> Result<Self, BadDigest> {
                text.parse()
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": concat!("^", $prefix, "[0-9a-f]{64}$") })
            }
        }
        impl From<$name> for String {
            fn from(digest: $name) -> String {
                digest.to_string()
            }
        }
    };
}

digest!(
    /// The key of an action: blake3 of its canonical encoding.
    Key,
    ""
);
digest!(
    /// What an import *is*: blake3 of its listing without times.
    TreeDigest,
    ""
);
digest!(
    /// blake3 of one file's bytes.
    ContentDigest,
    ""
);
digest!(
    /// sha256 of an uncompressed layer tar (image-spec, config.md, "Layer DiffID").
    DiffId,
    "sha256:"
);
digest!(
    /// sha256 of a blob as it lies in a layout.
    BlobDigest,
    "sha256:"
);
digest!(
    /// A stack of layers (image-spec, config.md, "Layer ChainID"); `ChainId::SCRATCH` is the empty stack.
    ChainId,
    "sha256:"
);

impl Key {
    /// The key of an encoded action.
    pub fn of(encoding: &[u8]) -> Key {
        Key(*blake3::hash(encoding).as_bytes())
    }
}

impl ContentDigest {
    /// Of bytes at hand.
    pub fn of(bytes: &[u8]) -> ContentDigest {
        ContentDigest(*blake3::hash(bytes).as_bytes())
    }
}

impl BlobDigest {
    /// Of bytes at hand.
    pub fn of(bytes: &[u8]) -> BlobDigest {
        BlobDigest(Sha256::digest(bytes).into())
    }
}

impl ChainId {
    /// The empty stack: written as 64 zeros, which no sha256 is known to be.
    pub const SCRATCH: ChainId = ChainId([0; 32]);

    /// The chain with one more layer on top.
    pub fn push(self, top: DiffId) -> ChainId {
        if self == ChainId::SCRATCH {
            return ChainId(top.0);
        }
        ChainId(Sha256::digest(format!("{self} {top}")).into())
    }
}

/// A stack of layers by diff id, bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chain(pub Vec<DiffId>);

impl Chain {
    /// The chain id of the whole stack.
    pub fn id(&self) -> ChainId {
        self.0.iter().fold(ChainId::SCRATCH, |chain, diff_id| chain.push(*diff_id))
    }

    /// The chain id after each layer, bottom first: `ids()[i]` is the stack of the layers `0..=i`.
    pub fn ids(&self) -> Vec<ChainId> {
        let mut chain = ChainId::SCRATCH;
        self.0
            .iter()
            .map(|diff_id| {
                chain = chain.push(*diff_id);
                chain
            })
            .collect()
    }

    /// The stack with one more layer on top; an empty change adds nothing.
    pub fn with(&self, top: Option<DiffId>) -> Chain {
        let mut chain = self.clone();
        chain.0.extend(top);
        chain
    }
}

/// Twelve base-32 characters (0-9a-v): the first 60 bits.
fn short(bytes: &[u8; 32]) -> String {
    let first = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
    (0..12).map(|i| b"0123456789abcdefghijklmnopqrstuv"[(first >> (59 - 5 * i) & 31) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_follows_the_image_spec() {
        let (a, b) = (DiffId([1; 32]), DiffId([2; 32]));
        let two = Chain(vec![a, b]);
        assert_eq!(Chain(vec![a]).id().0, a.0);
        assert_eq!(two.id().0, BlobDigest::of(format!("{a} {b}").as_bytes()).0);
        assert_eq!(two.ids(), [ChainId(a.0), two.id()]);
        assert_eq!(two.id().short().len(), 12);
    }

    #[test]
    fn digests_read_back_what_they_write() {
        let diff_id = DiffId([0xab; 32]);
        assert_eq!(diff_id.to_string().parse(), Ok(diff_id));
        assert!("sha256:ABCD".parse::<DiffId>().is_err());
        assert!(diff_id.hex().parse::<DiffId>().is_err());
    }
}
