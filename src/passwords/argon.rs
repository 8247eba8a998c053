//! Argon2id (RFC 9106): its PHC string, and one thread's memory to compute it in.
//!
//! Whatever a string asks for is bounded before a single byte of memory is taken for it: a hostile row must not be able
//! to exhaust the machine.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash as Phc, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::cost::Argon2Params;
use crate::domain::invalid::Invalid;
use crate::domain::password::PasswordHash;
use crate::host::{Entropy, random};

const SALT_LEN: usize = 16;
const OUTPUT_LEN: usize = 32;
const OUTPUT_LEN_MIN: usize = 16;
/// A PHC string that was read: only Argon2id of version 19, and within the bounds.
#[derive(Clone)]
pub(super) struct StoredHash {
    pub(super) params: Argon2Params,
    salt: Salt,
    output: Output,
}

impl StoredHash {
    /// Reads a PHC string. The sentence of a refusal does not repeat it.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::new("must be a PHC string: $argon2id$v=19$m=..,t=..,p=..$salt$hash");
        let phc = Phc::new(text).map_err(|_| malformed())?;
        if phc.algorithm != ARGON2ID_IDENT || phc.version != Some(Version::V0x13.into()) {
            return Err(Invalid::new("must be Argon2id of version 19 ($argon2id$v=19$..)"));
        }
        let mut costs = [0; 3];
        let mut given = phc.params.iter();
        for (cost, name) in costs.iter_mut().zip(["m", "t", "p"]) {
            let (ident, value) = given.next().ok_or_else(malformed)?;
            if ident.as_str() != name {
                return Err(malformed());
            }
            *cost = value.decimal().map_err(|_| malformed())?;
        }
        // A key id or associated data would have gone into the hash; this module has neither.
        if given.next().is_some() {
            return Err(malformed());
        }
        let [memory_kib, iterations, parallelism] = costs;
        let params = Argon2Params::unchecked(memory_kib, iterations, parallelism);
        params.check_bounds()?;
        let (Some(salt), Some(output)) = (phc.salt, phc.hash) else { return Err(malformed()) };
        if output.len() < OUTPUT_LEN_MIN {
            return Err(Invalid::new(format!("must have a hash of at least {OUTPUT_LEN_MIN} bytes")));
        }
        Ok(Self { params, salt, output })
    }

    /// A hash that no password has: random output, so that verifying against it is the same work and never succeeds.
    pub(super) fn dummy(params: Argon2Params, entropy: &dyn Entropy) -> Self {
        let salt = Salt::new(&random::<SALT_LEN>(entropy)).expect("a salt of this length is taken");
        let output = Output::new(&random::<OUTPUT_LEN>(entropy)).expect("an output of this length is taken");
        Self { params, salt, output }
    }

    /// Whether a new hash of the same password would look otherwise. A stronger one is replaced as well: all users
    /// shall cost the same time, or it says who has an account.
    pub(super) fn needs_upgrade(&self, policy: Argon2Params) -> bool {
        self.params != policy || self.salt.len() < SALT_LEN || self.output.len() != OUTPUT_LEN
    }

    fn to_phc(&self) -> PasswordHash {
        let mut params = ParamsString::new();
        let cost = self.params;
        for (name, cost) in [("m", cost.memory_kib()), ("t", cost.iterations()), ("p", cost.parallelism())] {
            params.add_decimal(name, cost).expect("three short numbers fit");
        }
        let version = Some(Version::V0x13.into());
        let (salt, hash) = (Some(self.salt), Some(self.output));
        PasswordHash::from_phc(Phc { algorithm: ARGON2ID_IDENT, version, params, salt, hash }.to_string())
    }
}

/// One thread's memory for hashing, kept from hash to hash. It holds what a password can be guessed from while a hash
/// runs, so it is to be wiped after each, and is when dropped.
pub(super) struct Hasher {
    blocks: Vec<Block>,
    blocks_kept_max: usize,
}

impl Hasher {
    /// Takes no memory yet; between hashes it will keep as much as `policy` asks for, not what one large hash did.
    pub(super) fn new(policy: Argon2Params) -> Self {
        Self { blocks: Vec::new(), blocks_kept_max: policy.memory_kib() as usize }
    }

    /// Makes a new hash, with a salt of its own.
    pub(super) fn hash(
        &mut self,
        password: &[u8],
        params: Argon2Params,
        entropy: &dyn Entropy,
    ) -> PasswordHash {
        let mut made = StoredHash::dummy(params, entropy);
        let mut output = Zeroizing::new([0; OUTPUT_LEN]);
        self.run(password, &made.salt, params, output.as_mut_slice());
        made.output = Output::new(output.as_slice()).expect("an output of this length is taken");
        made.to_phc()
    }

    /// Whether `password` is the one that was hashed.
    pub(super) fn verify(&mut self, password: &[u8], stored: &StoredHash) -> bool {
        let mut output = Zeroizing::new([0; Output::MAX_LENGTH]);
        let output = &mut output[..stored.output.len()];
        self.run(password, &stored.salt, stored.params, output);
        output.ct_eq(stored.output.as_bytes()).into()
    }

    /// Only does the work.
    pub(super) fn waste(&mut self, password: &[u8], salt: &StoredHash, params: Argon2Params) {
        self.run(password, &salt.salt, params, Zeroizing::new([0; OUTPUT_LEN]).as_mut_slice());
    }

    fn run(&mut self, password: &[u8], salt: &Salt, params: Argon2Params, output: &mut [u8]) {
        let engine = engine(params, output.len());
        let needed = engine.params().block_count();
        if self.blocks.len() < needed {
            self.blocks.resize(needed, Block::new());
        }
        engine
            .hash_password_into_with_memory(password, salt, output, &mut self.blocks[..needed])
            .expect("password, salt, output and memory are of lengths that Argon2 takes");
    }

    /// Leaves nothing of the last hash behind, and gives back what a large one took beyond the usual.
    pub(super) fn wipe(&mut self) {
        self.blocks.iter_mut().zeroize();
        self.blocks.truncate(self.blocks_kept_max);
        self.blocks.shrink_to_fit();
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn engine(params: Argon2Params, output_len: usize) -> Argon2<'static> {
    let params =
        Params::new(params.memory_kib(), params.iterations(), params.parallelism(), Some(output_len))
            .expect("the bounds were checked, and they lie within the algorithm's");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::SeededEntropy;

    const CHEAP: Argon2Params = Argon2Params::unchecked(16, 1, 1);

    fn parse(text: &str) -> StoredHash {
        StoredHash::parse(text).expect(text)
    }

    fn verify(password: &[u8], text: &str) -> bool {
        Hasher::new(CHEAP).verify(password, &parse(text))
    }

    fn with_costs(costs: &str) -> String {
        format!("$argon2id$v=19${costs}$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    }

    #[test]
    fn a_hash_verifies_its_own_password_only_and_salts_differ() {
        let (entropy, mut hasher) = (SeededEntropy::new(1), Hasher::new(CHEAP));
        let hash = hasher.hash(b"correct horse", CHEAP, &entropy);
        assert!(hash.expose().starts_with("$argon2id$v=19$m=16,t=1,p=1$"), "{}", hash.expose());
        assert!(verify(b"correct horse", hash.expose()));
        assert!(!verify(b"correct horsf", hash.expose()));
        assert_ne!(hash, hasher.hash(b"correct horse", CHEAP, &entropy));
    }

    #[test]
    fn hashes_of_other_implementations_verify() {
        // Test vectors of the reference implementation in C, version 0x13, with several costs and lanes.
        for text in [
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
        ] {
            assert!(verify(b"password", text), "{text}");
            assert!(!verify(b"passwore", text), "{text}");
        }
    }

    #[test]
    fn every_byte_counts() {
        let mut hasher = Hasher::new(CHEAP);
        let password = vec![b'x'; 1_024];
        let hash = hasher.hash(&password, CHEAP, &SeededEntropy::new(1));
        assert!(verify(&password, hash.expose()));
        for position in [1, 73, 129, 1_024] {
            let mut other = password.clone();
            other[position - 1] ^= 1;
            assert!(!verify(&other, hash.expose()), "byte {position}");
        }
        assert!(!verify(&password[..1_023], hash.expose()));
        let hash = hasher.hash(b"before\0after", CHEAP, &SeededEntropy::new(1));
        assert!(verify(b"before\0after", hash.expose()));
        assert!(!verify(b"before\0afteR", hash.expose()) && !verify(b"before", hash.expose()));
    }

    #[test]
    fn hostile_costs_are_refused_before_anything_runs() {
        assert!(StoredHash::parse(&with_costs("m=16,t=1,p=1")).is_ok());
        for costs in [
            "m=262145,t=1,p=1",
            "m=262144,t=5,p=1",
            "m=4294967295,t=1,p=1",
            "m=4294967296,t=1,p=1",
            "m=16,t=65,p=1",
            "m=16,t=0,p=1",
            "m=256,t=1,p=17",
            "m=16,t=1,p=0",
            "m=15,t=1,p=2",
            "m=16,t=1",
            "t=1,m=16,p=1",
            "m=16,t=1,p=1,p=1",
            "m=16,t=1,p=1,data=AAAA",
            "m=16,t=1,p=1,keyid=AAAA",
            "m=016,t=1,p=1",
            "m=-1,t=1,p=1",
            "m=,t=1,p=1",
            "m,t,p",
            "",
        ] {
            assert!(StoredHash::parse(&with_costs(costs)).is_err(), "{costs}");
        }
    }

    #[test]
    fn only_whole_strings_of_the_one_scheme_are_read() {
        let good = with_costs("m=16,t=1,p=1");
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("argon2id", "argon2d"),
            ("argon2id", "scrypt"),
            ("v=19", "v=16"),
            ("v=19$", ""),
            ("$c29tZXNhbHRzb21lc2FsdA", "$c2FsdA"),
            ("$c29tZXNhbHRzb21lc2FsdA", ""),
            ("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ""),
            ("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "$AAAAAAAAAAAAAAAAAAAA"),
            ("AAA", "AA="),
        ] {
            assert!(StoredHash::parse(&good.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
        assert!(StoredHash::parse(&format!("{good}$x")).is_err());
        assert!(StoredHash::parse(&format!("{good}{}", "A".repeat(1 << 20))).is_err());
        assert!(StoredHash::parse("").is_err());
    }

    #[test]
    fn whatever_differs_from_the_policy_is_replaced() {
        let policy = Argon2Params::unchecked(32, 2, 1);
        assert!(!parse(&with_costs("m=32,t=2,p=1")).needs_upgrade(policy));
        for costs in ["m=31,t=2,p=1", "m=32,t=1,p=1", "m=32,t=2,p=2", "m=64,t=3,p=1"] {
            assert!(parse(&with_costs(costs)).needs_upgrade(policy), "{costs}");
        }
        let short_salt = with_costs("m=32,t=2,p=1").replace("c29tZXNhbHRzb21lc2FsdA", "c29tZXNhbHQ");
        assert!(parse(&short_salt).needs_upgrade(policy));
        let short_output = with_costs("m=32,t=2,p=1").replace(&"A".repeat(43), &"A".repeat(22));
        assert!(parse(&short_output).needs_upgrade(policy));
    }

    #[test]
    fn memory_is_wiped_and_what_is_unusual_is_given_back() {
        let (entropy, mut hasher) = (SeededEntropy::new(1), Hasher::new(CHEAP));
        let is_zero = |block: &Block| block.as_ref().iter().all(|word| *word == 0);
        hasher.hash(b"x", Argon2Params::unchecked(64, 1, 1), &entropy);
        assert!(hasher.blocks.len() == 64 && !hasher.blocks.iter().any(is_zero));
        hasher.wipe();
        assert!(hasher.blocks.len() == 16 && hasher.blocks.iter().all(is_zero));
        assert!(hasher.blocks.capacity() < 64);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), tail in "[$,=a-zA-Z0-9+/.-]{0,80}") {
            let _ = StoredHash::parse(&text);
            let _ = StoredHash::parse(&format!("$argon2id$v=19${tail}"));
        }
    }
}
