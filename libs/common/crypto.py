"""Encryption at rest (SM4-GCM) and look-up by keyed hash (HMAC-SM3), from one master key.

The state algorithms GB/T 39786 asks for: SM4 (GB/T 32907) in GCM as in RFC 8998, SM3 (GB/T 32905), keys derived
with HKDF-SM3 (RFC 5869). What `Vault.seal` returns is

    version (1 byte) | key id (4) | nonce (12, random) | ciphertext (as long as the plaintext) | tag (16)

so 33 bytes more than the plaintext. The header and the caller's context are authenticated with it: a sealed
value moved to another row or column, whose context differs, does not open.

The key id is derived from the master key, so no number has to be kept beside it. To rotate: make a new key
current and keep the old one as retired; old values still open, `indexes` still finds them, and once everything
is sealed and indexed again the old key is dropped. One key seals at most 2^32 values (the bound of NIST SP
800-38D for random nonces), far more than a city files.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

OVERHEAD = 33
"""Bytes that sealing adds."""

_VERSION = b"\x01"
_HEADER, _NONCE, _TAG = 5, 12, 16
_MASTER_BYTES = 32


class VaultError(Exception):
    """A sealed value cannot be opened."""


class UnknownKeyError(VaultError):
    """The value was sealed with a key that this vault does not hold: it was dropped too early, or is another's."""


class TamperedError(VaultError):
    """The value, or the context it is opened with, is not what was sealed."""


@dataclass(frozen=True, slots=True)
class _Keys:
    key_id: bytes
    seal: bytes = field(repr=False)
    index: bytes = field(repr=False)


class Vault:
    """Seals and opens values and makes their look-up keys; holds one current key and any retired ones.

    Keys are hexadecimal, 32 bytes or more each. Raises `ValueError` for a key that is not, or that is given twice;
    no message repeats any part of a key.
    """

    def __init__(self, current: str, retired: Iterable[str] = ()) -> None:
        every = [_derive(master) for master in (current, *retired)]
        self._current = every[0]
        self._by_id = {keys.key_id: keys for keys in every}
        if len(self._by_id) != len(every):
            raise ValueError("the same master key is given twice")

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of the keys held, in hexadecimal. They stand in every sealed value and tell nothing of a key."""
        return frozenset(key_id.hex() for key_id in self._by_id)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the current key, bound to `context` (which row and column this is). Never twice the same.

        About 0.2 s for a material of 20 MiB: call it from a thread there.
        """
        header, nonce = _VERSION + self._current.key_id, secrets.token_bytes(_NONCE)
        encryptor = Cipher(algorithms.SM4(self._current.seal), modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(header + context)
        body = encryptor.update(plaintext) + encryptor.finalize()
        return b"".join((header, nonce, body, encryptor.tag))

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt what `seal` returned for the same context.

        Raises `UnknownKeyError` when its key is not held, `TamperedError` when any bit of it or of the context differs.
        """
        keys = self._keys_of(sealed)
        view = memoryview(sealed)
        nonce, body, tag = view[_HEADER : _HEADER + _NONCE], view[_HEADER + _NONCE : -_TAG], view[-_TAG:]
        decryptor = Cipher(algorithms.SM4(keys.seal), modes.GCM(bytes(nonce), bytes(tag))).decryptor()
        decryptor.authenticate_additional_data(sealed[:_HEADER] + context)
        plaintext = decryptor.update(body)
        try:
            return plaintext + decryptor.finalize()
        except InvalidTag:
            raise TamperedError("the sealed value or its context is not what was sealed") from None

    def is_current(self, sealed: bytes) -> bool:
        """Say whether a value is sealed under the current key. Errors as for `open`, but no tag is checked."""
        return self._keys_of(sealed) is self._current

    def index(self, text: str, context: bytes = b"") -> bytes:
        """Return the look-up key of a text: 32 bytes, the same for the same text and context.

        Normalise the text first. Different contexts (identity number, bank account) give keys that cannot be
        matched with one another.
        """
        return _index(self._current, text, context)

    def indexes(self, text: str, context: bytes = b"") -> list[bytes]:
        """Return the look-up keys under every key held, the current one first: to find rows not yet indexed again."""
        return [_index(keys, text, context) for keys in self._by_id.values()]

    def _keys_of(self, sealed: bytes) -> _Keys:
        if len(sealed) < OVERHEAD or sealed[:1] != _VERSION:
            raise TamperedError("this is no sealed value")
        key_id = sealed[1:_HEADER]
        try:
            return self._by_id[key_id]
        except KeyError:
            raise UnknownKeyError(f"sealed with key {key_id.hex()}, which is not held") from None


def _derive(master: str) -> _Keys:
    try:
        secret = bytes.fromhex(master)
    except ValueError:
        raise ValueError("a master key is hexadecimal") from None
    if len(secret) < _MASTER_BYTES:
        raise ValueError(f"a master key has {_MASTER_BYTES} bytes or more, {2 * _MASTER_BYTES} hexadecimal digits")
    return _Keys(
        key_id=_expand(secret, b"key id", _HEADER - 1),
        seal=_expand(secret, b"seal", 16),
        index=_expand(secret, b"index", 32),
    )


def _expand(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(hashes.SM3(), length, salt=None, info=b"huanquan v1 " + purpose).derive(secret)


def _index(keys: _Keys, text: str, context: bytes) -> bytes:
    mac = hmac.HMAC(keys.index, hashes.SM3())
    # The length keeps one context and text from running together as another's.
    mac.update(len(context).to_bytes(4, "big") + context + text.encode())
    return mac.finalize()
