//! The keyrings of the systems. Each keeps one 32-byte key, as text.
//!
//! Linux and the BSDs: the Secret Service, through the `secret-service` crate itself rather than its keyring-core
//! wrapper, for three reasons: the wrapper drags in zbus's second runtime; it says "no entry" when the service has no
//! collection at all, which must not be taken for "signed out"; and its calls have no time-out.

use std::sync::Arc;

use super::key::Vault;

/// Who we are in a keyring.
#[cfg(feature = "keyring")]
const SERVICE: &str = "mcp-drawbridge";

/// The keyrings of this system, best first. Nothing is asked yet.
pub(super) fn of_this_system() -> Vec<Arc<dyn Vault>> {
    #[cfg(all(feature = "keyring", unix, not(target_os = "macos")))]
    let vaults: Vec<Arc<dyn Vault>> = vec![
        Arc::new(secret_service::SecretService),
        #[cfg(target_os = "linux")]
        Arc::new(native::KEYUTILS),
    ];
    #[cfg(all(feature = "keyring", any(target_os = "macos", windows)))]
    let vaults: Vec<Arc<dyn Vault>> = vec![Arc::new(native::SYSTEM)];
    #[cfg(not(feature = "keyring"))]
    let vaults: Vec<Arc<dyn Vault>> = Vec::new();
    vaults
}

/// The user's name for a key in a keyring.
#[cfg(feature = "keyring")]
fn user(id: super::sealed::KeyId) -> String {
    format!("credential store key {id}")
}

#[cfg(all(feature = "keyring", unix, not(target_os = "macos")))]
mod secret_service {
    use std::collections::HashMap;
    use std::time::Duration;

    use secret_service::{Collection, EncryptionType, Error, Item, SecretService as Service};
    use zeroize::Zeroizing;

    use super::super::key::{Vault, VaultError, from_text, to_text};
    use super::super::sealed::{Key, KeyId, KeyPlace};
    use super::{SERVICE, user};
    use crate::secret::SafeText;

    /// How long the service may take to answer. It may have to be started first.
    const CALL: Duration = Duration::from_secs(8);
    /// How long a person may take to unlock the keyring.
    const PROMPT: Duration = Duration::from_secs(180);

    /// The freedesktop.org Secret Service: GNOME Keyring, KDE Wallet, `KeePassXC`.
    pub(super) struct SecretService;

    impl Vault for SecretService {
        fn place(&self) -> KeyPlace {
            KeyPlace::Keyring
        }

        fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
            run(async {
                let service = connect().await?;
                let Some(item) = find(&service, id).await? else { return Ok(None) };
                read(&item).await
            })
        }

        fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
            run(async {
                let service = connect().await?;
                let collection = unlocked_collection(&service).await?;
                let user = user(id);
                let label = format!("{SERVICE}: key of the credential store");
                let text = to_text(key);
                let item = call(collection.create_item(&label, attributes(&user), text.as_bytes(), true, "text/plain"))
                    .await?;
                match read(&item).await? {
                    Some(kept) if kept.expose() == key.expose() => Ok(()),
                    _ => Err(VaultError("the keyring did not keep the key".into())),
                }
            })
        }

        fn delete(&self, id: KeyId) -> Result<(), VaultError> {
            run(async {
                let service = connect().await?;
                let user = user(id);
                let found = call(service.search_items(attributes(&user))).await?;
                for item in found.unlocked.iter().chain(&found.locked) {
                    call(item.delete()).await?;
                }
                Ok(())
            })
        }
    }

    /// The thread that asks has its own runtime: the bridge's one is not held up.
    fn run<T>(question: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| VaultError(format!("no event loop: {error}")))?.block_on(question)
    }

    async fn call<T>(question: impl Future<Output = Result<T, Error>>) -> Result<T, VaultError> {
        within(CALL, question).await
    }

    async fn within<T>(most: Duration, question: impl Future<Output = Result<T, Error>>) -> Result<T, VaultError> {
        match tokio::time::timeout(most, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::NoResult)) => Err(VaultError("the Secret Service has no default collection".into())),
            Ok(Err(Error::Prompt)) => Err(VaultError("the keyring is locked and was not unlocked".into())),
            Ok(Err(error)) => Err(VaultError(SafeText(&error.to_string()).to_string())),
            Err(_) => Err(VaultError(format!("the Secret Service did not answer in {} s", most.as_secs()))),
        }
    }

    async fn connect<'a>() -> Result<Service<'a>, VaultError> {
        call(Service::connect(EncryptionType::Dh)).await
    }

    fn attributes(user: &str) -> HashMap<&str, &str> {
        // As keyring-core names them, so that the system's own tools show something familiar.
        HashMap::from([("service", SERVICE), ("username", user)])
    }

    async fn unlocked_collection<'a>(service: &'a Service<'_>) -> Result<Collection<'a>, VaultError> {
        let collection = call(service.get_default_collection()).await?;
        if call(collection.is_locked()).await? {
            within(PROMPT, collection.unlock()).await?;
        }
        Ok(collection)
    }

    /// `None` only after the collection was seen, unlocked, without the item.
    async fn find<'a>(service: &'a Service<'_>, id: KeyId) -> Result<Option<Item<'a>>, VaultError> {
        let user = user(id);
        let found = call(service.search_items(attributes(&user))).await?;
        if let Some(item) = found.unlocked.into_iter().next() {
            return Ok(Some(item));
        }
        if let Some(item) = found.locked.into_iter().next() {
            within(PROMPT, item.unlock()).await?;
            return Ok(Some(item));
        }
        // Some services do not show what a locked collection holds.
        unlocked_collection(service).await?;
        Ok(call(service.search_items(attributes(&user))).await?.unlocked.into_iter().next())
    }

    async fn read(item: &Item<'_>) -> Result<Option<Key>, VaultError> {
        let text = Zeroizing::new(call(item.get_secret()).await?);
        Ok(from_text(&text))
    }
}

#[cfg(all(feature = "keyring", any(target_os = "linux", target_os = "macos", windows)))]
mod native {
    #[cfg(windows)]
    use std::collections::HashMap;

    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::{Entry, Error};
    use zeroize::Zeroizing;

    use super::super::key::{Vault, VaultError, from_text, to_text};
    use super::super::sealed::{Key, KeyId, KeyPlace};
    use super::{SERVICE, user};

    /// A keyring behind a keyring-core store.
    pub(super) struct Native {
        place: KeyPlace,
        entry: fn(&str) -> keyring_core::Result<Entry>,
    }

    /// The kernel's keyring. Its keys end with the machine's uptime.
    #[cfg(target_os = "linux")]
    pub(super) const KEYUTILS: Native = Native {
        place: KeyPlace::Keyutils,
        entry: |user| linux_keyutils_keyring_store::Store::new()?.build(SERVICE, user, None),
    };

    /// The login keychain. macOS asks the user when another binary than the one that made an item wants it.
    #[cfg(target_os = "macos")]
    pub(super) const SYSTEM: Native = Native {
        place: KeyPlace::Keyring,
        entry: |user| apple_native_keyring_store::keychain::Store::new()?.build(SERVICE, user, None),
    };

    /// The Credential Manager. `Local`: the key does not roam to other machines, where the sealed file is not.
    #[cfg(windows)]
    pub(super) const SYSTEM: Native = Native {
        place: KeyPlace::Keyring,
        entry: |user| {
            let modifiers = HashMap::from([("persistence", "Local")]);
            windows_native_keyring_store::Store::new()?.build(SERVICE, user, Some(&modifiers))
        },
    };

    /// In words: the crate's own error may carry the bytes that it read.
    fn refused(error: &Error) -> VaultError {
        VaultError(match error {
            Error::PlatformFailure(why) => format!("the keyring failed: {why}"),
            Error::NoStorageAccess(why) => format!("the keyring cannot be opened: {why}"),
            Error::NoEntry => "the keyring did not keep the key".into(),
            _ => "the keyring failed".into(),
        })
    }

    impl Vault for Native {
        fn place(&self) -> KeyPlace {
            self.place
        }

        fn get(&self, id: KeyId) -> Result<Option<Key>, VaultError> {
            match (self.entry)(&user(id)).and_then(|entry| entry.get_secret()) {
                Ok(text) => Ok(from_text(&Zeroizing::new(text))),
                Err(Error::NoEntry) => Ok(None),
                Err(error) => Err(refused(&error)),
            }
        }

        fn put(&self, id: KeyId, key: &Key) -> Result<(), VaultError> {
            let entry = (self.entry)(&user(id)).map_err(|error| refused(&error))?;
            entry.set_secret(to_text(key).as_bytes()).map_err(|error| refused(&error))?;
            let kept = entry.get_secret().map(Zeroizing::new).map_err(|error| refused(&error))?;
            match from_text(&kept) {
                Some(kept) if kept.expose() == key.expose() => Ok(()),
                _ => Err(VaultError("the keyring did not keep the key".into())),
            }
        }

        fn delete(&self, id: KeyId) -> Result<(), VaultError> {
            let entry = (self.entry)(&user(id)).map_err(|error| refused(&error))?;
            entry.delete_credential().map_err(|error| refused(&error))
        }
    }
}
