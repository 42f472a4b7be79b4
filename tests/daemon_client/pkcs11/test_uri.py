import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_client.modules.pkcs11_uri import Pkcs11Uri, UriError, build_uri, parse_uri

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
paths = texts.map(lambda text: f"/{text.lstrip('/')}")

uris = st.builds(
    Pkcs11Uri,
    token=st.none() | texts,
    manufacturer=st.none() | texts,
    serial=st.none() | texts,
    model=st.none() | texts,
    object=st.none() | texts,
    id=st.none() | st.binary(),
    module_path=st.none() | paths | st.just("p11-kit-proxy.so"),
    pin_source=st.none() | paths,
)


def refusal(text: str) -> str:
    with pytest.raises(UriError) as refused:
        parse_uri(text)
    return str(refused.value)


@given(uris)
def test_what_is_built_is_read_as_it_was(uri: Pkcs11Uri) -> None:
    assert parse_uri(build_uri(uri)) == uri


@given(st.text() | st.text().map(lambda rest: f"pkcs11:{rest}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UriError):
        parse_uri(text)


@given(st.text(min_size=4))
def test_a_refusal_does_not_tell_a_pin(pin: str) -> None:
    assert refusal(f"pkcs11:token=a?pin-value={pin}") == refusal("pkcs11:?pin-value=")


def test_all_attributes_are_read() -> None:
    assert parse_uri(
        "pkcs11:token=The%20token;manufacturer=Snake%20Oil,%20Inc.;serial=0a&b;model=1.0;"
        "object=k%C3%A9y;id=%01%ff~;type=private"
        "?module-path=/usr/lib/hsm.so&pin-source=file:/etc/a%20pin"
    ) == Pkcs11Uri(
        token="The token",
        manufacturer="Snake Oil, Inc.",
        serial="0a&b",
        model="1.0",
        object="kéy",
        id=b"\x01\xff~",
        module_path="/usr/lib/hsm.so",
        pin_source="/etc/a pin",
    )


def test_a_uri_without_attributes_names_any_key() -> None:
    assert parse_uri("pkcs11:") == parse_uri("PKCS11:?") == Pkcs11Uri()


@pytest.mark.parametrize(
    "source", ["file:/etc/pin", "file:///etc/pin", "file://localhost/etc/pin", "/etc/pin"]
)
def test_a_pin_source_is_a_file_in_any_of_its_spellings(source: str) -> None:
    assert parse_uri(f"pkcs11:?pin-source={source}").pin_source == "/etc/pin"


@pytest.mark.parametrize(
    "source", ["", "pin", "file:pin", "file:", "file://host/etc/pin", "https://host/pin", "//a/b"]
)
def test_a_pin_source_that_is_no_absolute_path_is_refused(source: str) -> None:
    assert "absolute path" in refusal(f"pkcs11:?pin-source={source}")


def test_a_pin_source_that_is_a_program_is_refused_with_what_to_do() -> None:
    assert "askpass:" in refusal("pkcs11:?pin-source=|/usr/bin/pin")


def test_a_pin_value_is_refused_wherever_it_is_with_what_to_do() -> None:
    for text in ("pkcs11:pin-value=1234", "pkcs11:token=a?pin-value=1234", "pkcs11:?pin-value"):
        assert "pin-source" in refusal(text)
        assert "1234" not in refusal(text)


@pytest.mark.parametrize("path", ["", "lib/hsm.so", "./hsm.so"])
def test_a_module_path_that_depends_on_the_working_directory_is_refused(path: str) -> None:
    assert "module-path" in refusal(f"pkcs11:?module-path={path}")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "pkcs11:"),
        ("/etc/key.pem", "pkcs11:"),
        ("pkcs12:token=a", "pkcs11:"),
        ("pkcs11", "pkcs11:"),
        ("pkcs11:tokn=a", "'tokn'"),
        ("pkcs11:module-path=/a", "'module-path'"),
        ("pkcs11:?token=a", "'token'"),
        ("pkcs11:?x-vendor=a", "'x-vendor'"),
        ("pkcs11:slot-id=1", "'slot-id'"),
        ("pkcs11:token", "name=value"),
        ("pkcs11:token=a;", "name=value"),
        ("pkcs11:token=a;token=b", "twice"),
        ("pkcs11:type=public", "type"),
        ("pkcs11:token=a b", "%20"),
        ("pkcs11:token=a#b", "%23"),
        ("pkcs11:object=a/b", "%2F"),
        ("pkcs11:object=%2", "hexadecimal"),
        ("pkcs11:object=%zz", "hexadecimal"),
        ("pkcs11:object=%ff", "UTF-8"),
        ("pkcs11:object=%00", "NUL"),
        ("pkcs11:object=\udcff", "object"),
    ],
)
def test_a_refusal_says_what_is_wrong(text: str, word: str) -> None:
    assert word in refusal(text)
