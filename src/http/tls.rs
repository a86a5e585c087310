//! TLS: rustls with ring, the system's trust store, the user's own CAs and client certificate.
//!
//! Reading the system's roots costs milliseconds and hundreds of system calls, and so may a CA file that is a whole bundle. So they
//! are parsed when a certificate is there to be verified, or by [`LazyVerifier::prepare`] on another thread while the connection is
//! being made. Whether the user's files are there and hold what they should is looked at from the start.
//! `SSL_CERT_FILE` replaces the system's roots on every system, `SSL_CERT_DIR` on Linux and the BSDs.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretSlice};

use super::{HttpError, HttpOptions, pin};

/// Largest PEM file that is read, in bytes. The system's own bundles have about 300 KiB.
const MAX_PEM: u64 = 8 << 20;
/// How much of a CA file is looked at first, in bytes.
const LOOKED_AT: u64 = 16 << 10;

/// A TLS client configuration, and the part of it that still has to read the system's roots.
///
/// The files that the user named are read here, so that a wrong one is a usage error from the start.
pub(super) fn configure(options: &HttpOptions) -> Result<(ClientConfig, Arc<LazyVerifier>), HttpError> {
    let provider = Arc::new(crypto::ring::default_provider());
    for file in &options.ca_files {
        check_ca_file(file)?;
    }
    let verifier = Arc::new(LazyVerifier {
        provider: Arc::clone(&provider),
        ca_files: options.ca_files.clone(),
        loaded: OnceLock::new(),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::usage("TLS cannot be set up").with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
    let mut config = match &options.client_identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let certificates = read_client_chain(chain)?;
            let private = read_private_key(key)?;
            builder.with_client_auth_cert(certificates, private).map_err(|error| {
                let message = format!(
                    "the client certificate {} and the key {} cannot be used: {error}",
                    chain.display(),
                    key.display()
                );
                HttpError::usage(message).with_source(error)
            })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, verifier))
}

/// Verifies servers' certificates against the system's roots and the user's, which it reads when it is first asked.
#[derive(Debug)]
pub(super) struct LazyVerifier {
    provider: Arc<CryptoProvider>,
    ca_files: Vec<PathBuf>,
    loaded: OnceLock<Result<Loaded, rustls::Error>>,
}

#[derive(Debug)]
struct Loaded {
    /// From the user's files.
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl LazyVerifier {
    /// Reads the roots now, on this thread.
    pub(super) fn prepare(&self) {
        let _ = self.loaded();
    }

    fn loaded(&self) -> Result<&Loaded, rustls::Error> {
        self.loaded.get_or_init(|| self.load()).as_ref().map_err(rustls::Error::clone)
    }

    fn load(&self) -> Result<Loaded, rustls::Error> {
        let mut roots = Vec::new();
        for file in &self.ca_files {
            roots.extend(read_ca_file(file).map_err(general)?);
        }
        let verifier = self.verifier(&roots)?;
        Ok(Loaded { roots, verifier })
    }

    fn verifier(&self, roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
        // The platform's verifier knows SSL_CERT_FILE only where the roots are files anyway.
        #[cfg(any(windows, target_vendor = "apple"))]
        if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
            let mut store = RootCertStore::empty();
            let found = read_ca_file(Path::new(&file)).map_err(general)?;
            store.add_parsable_certificates(found.into_iter().chain(roots.iter().cloned()));
            let provider = Arc::clone(&self.provider);
            let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(store.into(), provider)
                .build()
                .map_err(general)?;
            return Ok(verifier);
        }
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(
            roots.iter().cloned(),
            Arc::clone(&self.provider),
        )?;
        Ok(Arc::new(verifier))
    }
}

/// `classify.rs` shows the text.
fn general(error: impl std::fmt::Display) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

impl ServerCertVerifier for LazyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Loaded { roots, verifier } = self.loaded()?;
        if roots.iter().any(|root| root == end_entity) {
            return pin::verify(end_entity, server_name, now);
        }
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the file is there and looks as if it held certificates. Quick, for it happens at every start: the file may be a bundle of hundreds.
fn check_ca_file(path: &Path) -> Result<(), HttpError> {
    let what = "the CA file";
    let begin = read_up_to(path, what, LOOKED_AT)?;
    let holds = |bytes: &[u8]| is_der(bytes) || memchr::memmem::find(bytes, b"-----BEGIN CERTIFICATE-----").is_some();
    // A long text may stand before the first certificate.
    if holds(begin.expose_secret()) || holds(read(path, what)?.expose_secret()) {
        return Ok(());
    }
    Err(no_certificate(path))
}

/// Windows exports .cer files as DER: an ASN.1 SEQUENCE.
fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30)
}

fn no_certificate(path: &Path) -> HttpError {
    let message = format!("the CA file {} holds no usable certificate", path.display());
    HttpError::usage(message).with_hint("it must be PEM: lines between BEGIN CERTIFICATE and END CERTIFICATE")
}

/// The certificates of a CA file, PEM or a single DER certificate, without those that cannot be a root.
fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let bytes = read(path, "the CA file")?;
    let bytes = bytes.expose_secret();
    let mut found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok).collect();
    if found.is_empty() && is_der(bytes) {
        found.push(CertificateDer::from(bytes.to_vec()));
    }
    found.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    if found.is_empty() {
        return Err(no_certificate(path));
    }
    Ok(found)
}

fn read_client_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let bytes = read(path, "the client certificate")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes.expose_secret()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => {
            let message = format!("{} holds no PEM certificate", path.display());
            Err(HttpError::usage(message))
        }
    }
}

fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, HttpError> {
    let bytes = read(path, "the client key")?;
    let bytes = bytes.expose_secret();
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        let message = format!("{} holds no PEM private key", path.display());
        let error = HttpError::usage(message);
        let is_encrypted = memchr::memmem::find(bytes, b"ENCRYPTED").is_some();
        if is_encrypted {
            return error.with_hint("it is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN");
        }
        error
    })
}

/// The whole file.
fn read(path: &Path, what: &str) -> Result<SecretSlice<u8>, HttpError> {
    let bytes = read_up_to(path, what, MAX_PEM + 1)?;
    if bytes.expose_secret().len() as u64 > MAX_PEM {
        let message = format!("{what} {} is larger than {MAX_PEM} bytes", path.display());
        return Err(HttpError::usage(message));
    }
    Ok(bytes)
}

fn read_up_to(path: &Path, what: &str, limit: u64) -> Result<SecretSlice<u8>, HttpError> {
    let fail = |error: std::io::Error| {
        let message = format!("cannot read {what} {}: {error}", path.display());
        HttpError::usage(message).with_source(error)
    };
    let file = File::open(path).map_err(fail)?;
    // One read for a usual file; nothing secret is left behind in a buffer that grew.
    let expected = file.metadata().map_err(fail)?.len().saturating_add(1).min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes.into())
}
