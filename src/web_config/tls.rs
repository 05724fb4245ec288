//! TLS configurations. Until connections can be encrypted, every one is refused.

use super::TlsSettings;

/// Why the settings of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This version of the gateway does not encrypt connections.
    #[error("TLS is not available yet; remove tls_server_config")]
    NotAvailable,
}

/// What a connection needs for TLS.
#[derive(Debug)]
pub struct ServerConfigs {}

impl ServerConfigs {
    /// Reads the files and checks the settings.
    ///
    /// # Errors
    /// Always.
    pub fn build(_settings: &TlsSettings, _http2: bool) -> Result<Self, TlsError> {
        Err(TlsError::NotAvailable)
    }
}
