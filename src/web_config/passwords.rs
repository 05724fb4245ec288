//! Verifies passwords against bcrypt hashes, on a thread of its own.
//!
//! A hash of cost 10 takes about 50 ms of processor time, so it must not be computed on a core, and clients must not be able to queue any
//! number of them. Results are kept under a keyed digest of user, hash and password, so a job that pushes with the same password
//! again costs one digest. The rules are those of Go's `golang.org/x/crypto/bcrypt` and of exporter-toolkit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_channel::oneshot;

use crate::telemetry::faults;

/// How many different passwords may wait for the thread.
const QUEUE_MAX: usize = 64;
/// How many of them clients of one network may have, so that one that guesses does not lock out the others.
const QUEUE_MAX_OF_NETWORK: usize = QUEUE_MAX - QUEUE_MAX / 4;
/// How many results of each kind are kept. Right and wrong passwords are counted apart, so that guesses do not displace right ones.
const CACHED_MAX: usize = 100;
/// The part of the results that is dropped when there are too many.
const EVICTED: usize = CACHED_MAX / 10;
/// What bcrypt uses of a password, with the final NUL.
const PASSWORD_BYTES_MAX: usize = 72;

const SALT_CHARS: usize = 22;
const DIGEST_CHARS: usize = 31;
const DIGEST_BYTES: usize = 23;
/// Go ignores the unused bits of the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The thread has too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked, try again")]
pub(crate) struct Busy;

/// Verifies passwords. Clones share the thread and the results.
#[derive(Clone)]
pub(crate) struct Passwords {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

struct Shared {
    /// Random for each process, so that the digests of one say nothing about passwords to a reader of its memory who lacks the key,
    /// and nobody can make two passwords collide.
    key: hmac::Key,
    results: Mutex<Results>,
}

#[derive(Default)]
struct Results {
    right: HashSet<Digest>,
    wrong: HashSet<Digest>,
    waiting: HashMap<Digest, Waiting>,
}

/// The requests that wait for one result.
struct Waiting {
    /// Of the first one.
    network: IpAddr,
    answers: Vec<oneshot::Sender<bool>>,
}

/// Of a user, the hash, and the password.
type Digest = [u8; 32];

struct Job {
    digest: Digest,
    hash: Hash,
    /// Whether the password is right if it fits the hash.
    is_user_known: bool,
    password: Vec<u8>,
}

impl Passwords {
    /// Starts the thread, which ends with the program.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| std::io::Error::other("no random numbers"))?;
        let shared = Arc::new(Shared { key, results: Mutex::default() });
        let (jobs, inbox) = bounded(QUEUE_MAX);
        let of_thread = shared.clone();
        faults::spawn("passwords", move || of_thread.serve(&inbox))?;
        Ok(Self { shared, jobs })
    }

    /// Whether this is the password of this user. An unknown user takes as long as a known one.
    ///
    /// # Errors
    /// Too many other passwords wait.
    pub(crate) async fn verify(
        &self,
        users: &BTreeMap<String, String>,
        name: &[u8],
        password: &[u8],
        network: IpAddr,
    ) -> Result<bool, Busy> {
        let text = std::str::from_utf8(name).ok().and_then(|name| users.get(name));
        let digest = self.shared.digest(&[name, text.map_or(&[], |text| text.as_bytes()), password]);
        let answer = {
            let mut results = self.shared.results();
            if let Some(is_right) = results.known(&digest) {
                return Ok(is_right);
            }
            let (tx, answer) = oneshot::channel();
            if let Some(waiting) = results.waiting.get_mut(&digest) {
                waiting.answers.push(tx);
            } else {
                let of_network = results.waiting.values().filter(|other| other.network == network).count();
                if of_network >= QUEUE_MAX_OF_NETWORK {
                    return Err(Busy);
                }
                let hash = text.and_then(|text| Hash::parse(text));
                let is_user_known = hash.is_some();
                let hash = hash.unwrap_or_else(|| self.shared.decoy(users, name));
                let job = Job { digest, hash, is_user_known, password: password_bytes(password) };
                self.jobs.try_send(job).map_err(|_| Busy)?;
                results.waiting.insert(digest, Waiting { network, answers: vec![tx] });
            }
            answer
        };
        // The sender is dropped only if the thread panicked.
        answer.await.map_err(|_| Busy)
    }
}

impl Shared {
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A digest of the parts. Their lengths are part of it: joining them plainly lets one password stand for another one
    /// (CVE-2022-46146).
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// A hash for a user that does not exist. It has the cost of one that does, always the same for a name.
    fn decoy(&self, users: &BTreeMap<String, String>, name: &[u8]) -> Hash {
        let digest = self.digest(&[name]);
        let at = usize::from(digest[0]) % users.len().max(1);
        let cost = users.values().nth(at).and_then(|text| Hash::parse(text)).map_or(10, |hash| hash.cost);
        let (mut salt, mut bytes) = ([0; 16], [0; DIGEST_BYTES]);
        salt.copy_from_slice(&digest[16..]);
        bytes.copy_from_slice(&digest[..DIGEST_BYTES]);
        Hash { cost, salt, digest: bytes }
    }

    fn serve(&self, inbox: &Receiver<Job>) {
        for job in inbox {
            let mut results = self.results();
            if results.waiting.get(&job.digest).is_none_or(Waiting::is_abandoned) {
                results.waiting.remove(&job.digest);
                continue;
            }
            drop(results);
            let is_right = faults::contain(|| job.hash.fits(&job.password) & job.is_user_known);
            let mut results = self.results();
            let waiting = results.waiting.remove(&job.digest);
            let Ok(is_right) = is_right else { continue };
            results.keep(job.digest, is_right);
            drop(results);
            for answer in waiting.into_iter().flat_map(|waiting| waiting.answers) {
                let _ = answer.send(is_right);
            }
        }
    }
}

impl Results {
    fn known(&self, digest: &Digest) -> Option<bool> {
        if self.right.contains(digest) {
            return Some(true);
        }
        self.wrong.contains(digest).then_some(false)
    }

    fn keep(&mut self, digest: Digest, is_right: bool) {
        let results = if is_right { &mut self.right } else { &mut self.wrong };
        if results.len() >= CACHED_MAX {
            // The order of a set is random.
            let evicted: Vec<_> = results.iter().take(EVICTED).copied().collect();
            for digest in evicted {
                results.remove(&digest);
            }
        }
        results.insert(digest);
    }
}

impl Waiting {
    fn is_abandoned(&self) -> bool {
        self.answers.iter().all(oneshot::Sender::is_canceled)
    }
}

/// What bcrypt hashes of a password: with a final NUL, as in C, and at most 72 bytes.
fn password_bytes(password: &[u8]) -> Vec<u8> {
    let mut bytes = password[..password.len().min(PASSWORD_BYTES_MAX)].to_vec();
    bytes.push(0);
    bytes.truncate(PASSWORD_BYTES_MAX);
    bytes
}

/// A bcrypt hash.
#[derive(Clone, Copy)]
struct Hash {
    cost: u32,
    salt: [u8; 16],
    digest: [u8; DIGEST_BYTES],
}

impl Hash {
    /// Reads `$2b$10$…`. As in Go, the digit may be lower than 2, and any letter may follow it, or none; they change nothing. `None` if
    /// the hash is invalid; such a hash fits no password.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('$')?.strip_prefix(|digit| digit <= '2')?;
        let rest = rest.strip_prefix('$').or_else(|| rest.strip_prefix(|_| true)?.strip_prefix('$'))?;
        let (cost, rest) = rest.split_at_checked(2)?;
        let cost = cost.parse().ok().filter(|cost| (4..=31).contains(cost))?;
        let rest = rest.strip_prefix('$')?;
        let (salt, rest) = rest.split_at_checked(SALT_CHARS)?;
        let digest = rest.get(..DIGEST_CHARS)?;
        let salt = BASE64.decode(salt).ok()?.try_into().ok()?;
        let digest = BASE64.decode(digest).ok()?.try_into().ok()?;
        Some(Self { cost, salt, digest })
    }

    /// Whether the bytes are those of the password.
    fn fits(&self, password: &[u8]) -> bool {
        let computed = bcrypt::bcrypt(self.cost, self.salt, password);
        verify_slices_are_equal(&computed[..DIGEST_BYTES], &self.digest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    /// Of the password `abc`, with the least cost.
    fn hash_of(password: &str, cost: u32) -> String {
        let salt = *b"0123456789abcdef";
        let digest = bcrypt::bcrypt(cost, salt, &password_bytes(password.as_bytes()));
        format!("$2b${cost:02}${}{}", BASE64.encode(salt), BASE64.encode(&digest[..DIGEST_BYTES]))
    }

    fn network(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    fn wait(check: impl Future<Output = Result<bool, Busy>>) -> Result<bool, Busy> {
        let mut check = std::pin::pin!(check);
        loop {
            if let Some(result) = check.as_mut().now_or_never() {
                return result;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn published_hashes_fit_their_passwords() {
        // From the test vectors of jBCrypt and of Openwall's crypt_blowfish.
        for (password, text) in [
            (&b""[..], "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
            (b"a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
            (b"abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
            (b"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
            (b"\xff\xff\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        ] {
            let hash = Hash::parse(text).expect("the hash is valid");
            assert!(hash.fits(&password_bytes(password)), "{text}");
            assert!(!hash.fits(&password_bytes(b"other")), "{text}");
        }
    }

    #[test]
    fn every_variant_of_the_prefix_is_accepted() {
        let text = hash_of("abc", 4);
        for prefix in ["$1$", "$2$", "$2a$", "$2b$", "$2x$", "$2y$"] {
            let hash = Hash::parse(&text.replace("$2b$", prefix)).expect("the prefix is valid");
            assert!(hash.fits(&password_bytes(b"abc")), "{prefix}");
        }
        for invalid in ["", "abc", "$3$04$", "$2b$99$", "$2b$04", &text[..58], &text.replace("$04$", "$03$")]
        {
            assert!(Hash::parse(invalid).is_none(), "{invalid}");
        }
    }

    #[test]
    fn passwords_are_cut_after_72_bytes_and_may_contain_nul() {
        let long = "x".repeat(100);
        let hash = Hash::parse(&hash_of(&long, 4)).expect("the hash is valid");
        assert!(hash.fits(&password_bytes("x".repeat(72).as_bytes())));
        assert!(!hash.fits(&password_bytes("x".repeat(71).as_bytes())));
        let hash = Hash::parse(&hash_of("a\0b", 4)).expect("the hash is valid");
        assert!(hash.fits(&password_bytes(b"a\0b")) && !hash.fits(&password_bytes(b"a")));
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_accepted_first_and_from_the_cache() {
        let passwords = Passwords::start().expect("the thread starts");
        let users = BTreeMap::from([("alice".to_owned(), hash_of("abc", 4)), ("bob".into(), hash_of("", 4))]);
        let verify = |name: &str, password: &str| {
            wait(passwords.verify(&users, name.as_bytes(), password.as_bytes(), network(1)))
        };
        for _ in 0..2 {
            assert_eq!(verify("alice", "abc"), Ok(true));
            assert_eq!(verify("bob", ""), Ok(true));
            assert_eq!(verify("alice", "abd"), Ok(false));
            assert_eq!(verify("bob", "abc"), Ok(false));
            assert_eq!(verify("carol", "abc"), Ok(false));
            assert_eq!(verify("", ""), Ok(false));
        }
        let results = passwords.shared.results();
        assert_eq!((results.right.len(), results.wrong.len(), results.waiting.len()), (2, 4, 0));
    }

    /// CVE-2022-46146: with parts that were only joined, the result of an unknown user became that of a known one.
    #[test]
    fn a_password_cannot_pose_as_the_result_of_another() {
        let passwords = Passwords::start().expect("the thread starts");
        let hash = hash_of("abc", 4);
        let users = BTreeMap::from([("alice".to_owned(), hash.clone())]);
        let verify = |name: &str, password: &str| {
            wait(passwords.verify(&users, name.as_bytes(), password.as_bytes(), network(1)))
        };
        assert_eq!(verify("alice", "abc"), Ok(true));
        assert_eq!(verify(&format!("alice{hash}"), "abc"), Ok(false));
        assert_eq!(verify("alice", &format!("{hash}abc")), Ok(false));
        assert_eq!(verify(&format!("alice:{hash}"), "abc"), Ok(false));
    }

    #[test]
    fn a_changed_hash_takes_effect_at_once() {
        let passwords = Passwords::start().expect("the thread starts");
        let users = |password| BTreeMap::from([("alice".to_owned(), hash_of(password, 4))]);
        let verify = |users: &_| wait(passwords.verify(users, b"alice", b"abc", network(1)));
        assert_eq!(verify(&users("abc")), Ok(true));
        assert_eq!(verify(&users("new")), Ok(false));
        assert_eq!(verify(&users("abc")), Ok(true));
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_a_known_one() {
        let passwords = Passwords::start().expect("the thread starts");
        let users: BTreeMap<_, _> =
            (4..8).map(|cost| (format!("user-{cost}"), hash_of("abc", cost))).collect();
        let cost = |name: &str| passwords.shared.decoy(&users, name.as_bytes()).cost;
        let costs: std::collections::BTreeSet<_> = (0..100).map(|at| cost(&at.to_string())).collect();
        assert_eq!(costs, (4..8).collect());
        assert_eq!(cost("carol"), cost("carol"));
        assert_eq!(passwords.shared.decoy(&BTreeMap::new(), b"carol").cost, 10);
    }

    #[test]
    fn the_queue_is_bounded_and_one_network_leaves_room_for_others() {
        let passwords = Passwords::start().expect("the thread starts");
        let users = BTreeMap::from([("alice".to_owned(), hash_of("abc", 4))]);
        // Keeps the thread out.
        let mut results = passwords.shared.results();
        let mut others = Vec::new();
        for at in 0..QUEUE_MAX_OF_NETWORK {
            let (answer, other) = oneshot::channel();
            others.push(other);
            let mut digest = Digest::default();
            digest[..8].copy_from_slice(&at.to_be_bytes());
            results.waiting.insert(digest, Waiting { network: network(1), answers: vec![answer] });
        }
        drop(results);
        let verify = |last| wait(passwords.verify(&users, b"alice", b"abc", network(last)));
        assert_eq!(verify(1), Err(Busy));
        assert_eq!(verify(2), Ok(true));
        assert_eq!(verify(1), Ok(true), "a known result needs no place");
    }

    #[test]
    fn requests_with_the_same_password_share_one_computation() {
        let passwords = Passwords::start().expect("the thread starts");
        let users = BTreeMap::from([("alice".to_owned(), hash_of("abc", 10))]);
        let mut checks: Vec<_> = (0..3 * QUEUE_MAX)
            .map(|_| Box::pin(passwords.verify(&users, b"alice", b"abc", network(1))))
            .collect();
        let first: Vec<_> = checks.iter_mut().map(|check| check.as_mut().now_or_never()).collect();
        for (check, first) in checks.into_iter().zip(first) {
            assert_eq!(first.unwrap_or_else(|| wait(check)), Ok(true));
        }
    }

    #[test]
    fn a_job_that_nobody_waits_for_is_not_computed() {
        let passwords = Passwords::start().expect("the thread starts");
        let users = BTreeMap::from([("alice".to_owned(), hash_of("abc", 12))]);
        for password in [&b"0"[..], b"1"] {
            // The second one is in the queue while the first one is computed.
            let mut check = Box::pin(passwords.verify(&users, b"alice", password, network(1)));
            assert!(check.as_mut().now_or_never().is_none());
        }
        while !passwords.shared.results().waiting.is_empty() {
            std::thread::yield_now();
        }
        assert!(passwords.shared.results().wrong.len() < 2);
    }

    #[test]
    fn results_are_bounded_and_wrong_ones_do_not_displace_right_ones() {
        let mut results = Results::default();
        results.keep([255; 32], true);
        for at in 0..10 * CACHED_MAX {
            let mut digest = Digest::default();
            digest[..8].copy_from_slice(&at.to_be_bytes());
            results.keep(digest, false);
            assert_eq!(results.known(&digest), Some(false));
            assert!(results.wrong.len() <= CACHED_MAX);
        }
        assert_eq!(results.known(&[255; 32]), Some(true));
    }
}
