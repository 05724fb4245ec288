//! Keys of session tickets, which all cores share. They are replaced every few hours, and with the private key of the server; until then
//! sessions can be resumed after a reload, too.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// The tickets of a public key.
type Tickets = (Vec<u8>, Arc<dyn ProducesTickets>);

static LATEST: Mutex<Option<Tickets>> = Mutex::new(None);

/// The keys of the tickets for a server with this public key.
///
/// # Errors
/// There is no randomness.
pub(super) fn for_server(public_key: &[u8]) -> Result<Arc<dyn ProducesTickets>, Error> {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, tickets)) = &*latest
        && known == public_key
    {
        return Ok(tickets.clone());
    }
    let tickets = Ticketer::new()?;
    *latest = Some((public_key.to_vec(), tickets.clone()));
    Ok(tickets)
}
