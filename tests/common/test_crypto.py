import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from libs.common.crypto import OVERHEAD, TamperedError, UnknownKeyError, Vault

OLD, NEW, ALIEN = "a1" * 32, "b2" * 48, "c3" * 32
VAULT = Vault(OLD)


def test_sm4_gcm_of_the_library_gives_the_vector_of_rfc_8998() -> None:
    key, nonce = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"), bytes.fromhex("00001234567800000000ABCD")
    plaintext = b"".join(bytes([byte]) * 8 for byte in b"\xaa\xbb\xcc\xdd\xee\xff\xee\xaa")
    encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2"))
    ciphertext = encryptor.update(plaintext) + encryptor.finalize()
    assert ciphertext.hex().startswith("17f399f08c67d5ee19d0dc9969c4bb7d")
    assert encryptor.tag.hex() == "83de3541e4c2b58177e065a9bf7b62ec"


def test_sm3_of_the_library_gives_the_vector_of_the_standard() -> None:
    digest = hashes.Hash(hashes.SM3())
    digest.update(b"abc")
    assert digest.finalize().hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_what_was_sealed_opens_with_its_context(plaintext: bytes, context: bytes) -> None:
    sealed = VAULT.seal(plaintext, context)
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert VAULT.open(sealed, context) == plaintext


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_is_refused(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(VAULT.seal(plaintext, b"person/1"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((TamperedError, UnknownKeyError)):
        VAULT.open(bytes(sealed), b"person/1")


@given(st.binary(max_size=60), st.data())
def test_a_shortened_value_is_refused(plaintext: bytes, data: st.DataObject) -> None:
    sealed = VAULT.seal(plaintext, b"")
    with pytest.raises(TamperedError):
        VAULT.open(sealed[: data.draw(st.integers(0, len(sealed) - 1))], b"")


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_value_moved_to_another_context_is_refused(context: bytes, other: bytes) -> None:
    sealed = VAULT.seal("张三".encode(), context)
    if context != other:
        with pytest.raises(TamperedError, match="its context is not what was sealed"):
            VAULT.open(sealed, other)


def test_sealing_twice_gives_two_values() -> None:
    assert len({VAULT.seal(b"same", b"") for _ in range(100)}) == 100


def test_a_retired_key_still_opens_and_is_still_found() -> None:
    sealed, indexed = VAULT.seal(b"old", b"x"), VAULT.index("H12345678")
    rotated = Vault(NEW, [OLD])
    assert rotated.open(sealed, b"x") == b"old"
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal(b"new", b"x"))
    assert rotated.index("H12345678") == rotated.indexes("H12345678")[0] != indexed
    assert indexed in rotated.indexes("H12345678")


def test_a_key_that_is_not_held_is_named_by_its_id_only() -> None:
    sealed = Vault(ALIEN).seal(b"value", b"")
    with pytest.raises(UnknownKeyError, match=r"sealed with key [0-9a-f]{8}, which is not held"):
        VAULT.open(sealed, b"")


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_look_up_key_is_the_same_for_the_same_text_only(one: str, other: str) -> None:
    assert (VAULT.index(one) == VAULT.index(other)) == (one == other)
    assert VAULT.index(one) == Vault(OLD).index(one) != Vault(NEW).index(one)
    assert len(VAULT.index(one)) == 32


def test_look_up_keys_of_different_contexts_cannot_be_matched() -> None:
    assert len({VAULT.index("12", b""), VAULT.index("12", b"account"), VAULT.index("t12", b"accoun")}) == 3


@pytest.mark.parametrize("bad", ["", "zz" * 32, "a1" * 31, "a1" * 31 + "a"])
def test_a_bad_master_key_is_refused_without_being_repeated(bad: str) -> None:
    with pytest.raises(ValueError, match=r"^a master key ") as refusal:
        Vault(bad)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    assert bad[:8] not in str(refusal.value) or not bad


def test_the_same_master_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        Vault(OLD, [NEW, OLD])


def test_no_key_shows_in_a_representation() -> None:
    assert "a1a1" not in f"{VAULT!r}{vars(VAULT)!r}"
    assert "seal=" not in f"{vars(VAULT)!r}"


def test_a_material_of_20_mib_is_sealed_and_opened_in_seconds() -> None:
    material = bytes(range(256)) * (20 * 4096)
    start = time.perf_counter()
    assert VAULT.open(VAULT.seal(material, b"material/1"), b"material/1") == material
    assert time.perf_counter() - start < 5
