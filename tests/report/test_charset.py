"""Text is decoded as pydicom decodes it, whichever way is taken."""

from __future__ import annotations

import pytest

from router.report import charset

_ASCII = bytes(byte for byte in range(128) if byte != 0x1B)


@pytest.mark.parametrize("term", ["", *charset.known_terms()])
def test_ascii_is_what_pydicom_makes_of_it_in_every_character_set(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [_ASCII, b"", b"Phantom^Drawn ", b"A\\B=C", b"\x1b(B$"]
    found = [charset.decoded(text, (term,)) for text in texts]
    monkeypatch.setattr(charset, "_ASCII_IN", frozenset())
    assert found == [charset.decoded(text, (term,)) for text in texts]


def test_no_term_and_several_and_unknown_ones_are_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [(), ("",), ("", ""), ("ISO_IR 100", "ISO 2022 IR 87"), ("", "ISO 2022 IR 149"), ("UNHEARD OF",)]
    found = [charset.decoded(_ASCII, terms) for terms in every]
    monkeypatch.setattr(charset, "_ASCII_IN", frozenset())
    assert found == [charset.decoded(_ASCII, terms) for terms in every]


def test_letters_beyond_ascii_are_decoded_by_their_set() -> None:
    assert charset.decoded("Müller".encode("latin-1"), ("ISO_IR 100",)) == "Müller"
    assert charset.decoded("Müller".encode(), ("ISO_IR 192",)) == "Müller"
    assert charset.decoded("Müller".encode("latin-1"), ("ISO_IR 192",)) is None
