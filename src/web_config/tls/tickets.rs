//! Keys of session tickets, which all cores share. They are replaced every few hours, and with the private key of the server; until then
//! sessions can be resumed after a reload, too.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// The ticket keys of a public key, as long as a configuration uses them.
type Tickets = (Vec<u8>, Weak<dyn ProducesTickets>);

static IN_USE: Mutex<Vec<Tickets>> = Mutex::new(Vec::new());

/// The ticket keys for a server with this public key. They are those of the configuration in force, if it has the same public key.
///
/// # Errors
/// There is no randomness.
pub(super) fn for_server(public_key: &[u8]) -> Result<Arc<dyn ProducesTickets>, Error> {
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|(_, tickets)| tickets.strong_count() > 0);
    let known = in_use.iter().find(|(known, _)| known == public_key);
    if let Some(tickets) = known.and_then(|(_, tickets)| tickets.upgrade()) {
        return Ok(tickets);
    }
    let tickets = Ticketer::new()?;
    in_use.push((public_key.to_vec(), Arc::downgrade(&tickets)));
    Ok(tickets)
}
