//! The ciphers with a key of their own.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{AesGcm, KeyInit, Nonce};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::rand::{SecureRandom, SystemRandom};

const GCM_NONCE: usize = 12;
const CBC_IV: usize = 16;
const BOX_NONCE: usize = 24;

type Aes192Gcm = AesGcm<Aes192, aes_gcm::aead::consts::U12>;

/// A key with its cipher. The key's bytes are nowhere printed.
pub(super) enum Cipher {
    Gcm128(Box<aes_gcm::Aes128Gcm>),
    Gcm192(Box<Aes192Gcm>),
    Gcm256(Box<aes_gcm::Aes256Gcm>),
    Cbc(Box<[u8]>),
    Box(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// AES-GCM with a key of 16, 24 or 32 bytes; None: of another length.
    pub(super) fn gcm(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Gcm128(Box::new(KeyInit::new_from_slice(key).ok()?)),
            24 => Self::Gcm192(Box::new(KeyInit::new_from_slice(key).ok()?)),
            32 => Self::Gcm256(Box::new(KeyInit::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    pub(super) fn cbc(key: &[u8]) -> Option<Self> {
        matches!(key.len(), 16 | 24 | 32).then(|| Self::Cbc(key.into()))
    }

    pub(super) fn secretbox(key: &[u8]) -> Option<Self> {
        Some(Self::Box(Box::new(KeyInit::new_from_slice(key).ok()?)))
    }

    /// Appends the sealed value. `path` is authenticated where the cipher can.
    pub(super) fn seal(&self, path: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let payload = Payload { msg: plain, aad: path };
        match self {
            Self::Gcm128(key) => {
                append(out, random::<GCM_NONCE>(), |nonce| key.encrypt(Nonce::from_slice(nonce), payload))
            }
            Self::Gcm192(key) => {
                append(out, random::<GCM_NONCE>(), |nonce| key.encrypt(Nonce::from_slice(nonce), payload))
            }
            Self::Gcm256(key) => {
                append(out, random::<GCM_NONCE>(), |nonce| key.encrypt(Nonce::from_slice(nonce), payload))
            }
            Self::Cbc(key) => append(out, random::<CBC_IV>(), |iv| Ok(cbc_seal(key, iv, plain))),
            Self::Box(key) => append(out, random::<BOX_NONCE>(), |nonce| key.encrypt(nonce.into(), plain)),
        }
    }

    /// None: another key, another path, or damaged.
    pub(super) fn open(&self, path: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let length = match self {
            Self::Gcm128(_) | Self::Gcm192(_) | Self::Gcm256(_) => GCM_NONCE,
            Self::Cbc(_) => CBC_IV,
            Self::Box(_) => BOX_NONCE,
        };
        let (nonce, msg) = sealed.split_at_checked(length)?;
        let payload = Payload { msg, aad: path };
        match self {
            Self::Gcm128(key) => key.decrypt(Nonce::from_slice(nonce), payload).ok(),
            Self::Gcm192(key) => key.decrypt(Nonce::from_slice(nonce), payload).ok(),
            Self::Gcm256(key) => key.decrypt(Nonce::from_slice(nonce), payload).ok(),
            Self::Cbc(key) => cbc_open(key, nonce, msg),
            Self::Box(key) => key.decrypt(nonce.into(), msg).ok(),
        }
    }
}

/// Appends a nonce and what is sealed with it. Values are far below the lengths that ciphers refuse.
fn append<const N: usize>(
    out: &mut Vec<u8>,
    nonce: [u8; N],
    seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, aes_gcm::Error>,
) {
    out.extend_from_slice(&nonce);
    let sealed = seal(&nonce);
    debug_assert!(sealed.is_ok(), "a value is longer than a cipher takes");
    out.extend(sealed.unwrap_or_default());
}

/// Random bytes of the kernel, which does not run out of them.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "a nonce that is used twice gives the plain text away: better no process than that"
    )]
    SystemRandom::new().fill(&mut bytes).expect("random bytes of the kernel");
    bytes
}

fn cbc_seal(key: &[u8], iv: &[u8], plain: &[u8]) -> Vec<u8> {
    fn sealed<C: KeyIvInit + BlockEncryptMut>(key: &[u8], iv: &[u8], plain: &[u8]) -> Vec<u8> {
        C::new_from_slices(key, iv)
            .map(|cipher| cipher.encrypt_padded_vec_mut::<Pkcs7>(plain))
            .unwrap_or_default()
    }
    match key.len() {
        16 => sealed::<cbc::Encryptor<Aes128>>(key, iv, plain),
        24 => sealed::<cbc::Encryptor<Aes192>>(key, iv, plain),
        _ => sealed::<cbc::Encryptor<Aes256>>(key, iv, plain),
    }
}

fn cbc_open(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    fn opened<C: KeyIvInit + BlockDecryptMut>(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        C::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed).ok()
    }
    match key.len() {
        16 => opened::<cbc::Decryptor<Aes128>>(key, iv, sealed),
        24 => opened::<cbc::Decryptor<Aes192>>(key, iv, sealed),
        _ => opened::<cbc::Decryptor<Aes256>>(key, iv, sealed),
    }
}
