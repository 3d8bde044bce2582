"""The way to the providers through a company's network: its proxy, and its own authority."""

import json
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pytest_django import Settings

from providers.adapters.yahoo import session as yahoo_session
from providers.base import ErrorKind, ProviderError, Quote
from providers.http import client as http
from providers.http import network
from providers.http.network import certificates, is_time_out, timed_out
from providers.http.transfer import Phase
from tests.providers.company_network import (
    PASSWORD,
    Certificates,
    Proxy,
    connect_proxy,
    make_certificates,
    tls_provider,
)
from tests.providers.raw_server import raw_server
from tests.providers.yahoo_bodies import ROW, chart_body
from tests.simulator import ask

PROVIDERS = ("alpha_vantage", "finnhub", "yfinance")
BODIES = {
    "/api/v1/quote": b'{"c":150.25,"d":1,"dp":1,"h":151,"l":149,"o":150,"pc":150,"t":1739566800}',
    "/query": json.dumps(
        {
            "Global Quote": {
                "01. symbol": "AAPL",
                "05. price": "150.25",
                "07. latest trading day": "2025-02-14",
            }
        }
    ).encode(),
    "/v8/finance/chart/AAPL": json.dumps(chart_body(ROW)).encode(),
    "/v1/test/getcrumb": b"crumb",
}
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates need openssl")


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return the files of an authority that nobody else knows."""
    return make_certificates(tmp_path_factory.mktemp("company"))


@pytest.fixture(autouse=True)
def _own_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    http._forget_session()
    yahoo_session.forget_clients()
    yield
    http._forget_session()
    yahoo_session.forget_clients()


@pytest.fixture
def provider_url(company: Certificates, settings: Settings) -> Iterator[str]:
    """Yield the address of a server that plays all providers behind the company's authority."""
    with tls_provider(company.server, BODIES) as url:
        point_at(settings, url)
        yield url


def point_at(settings: Settings, url: str) -> None:
    settings.ALPHA_VANTAGE_BASE_URL = settings.FINNHUB_BASE_URL = settings.YAHOO_BASE_URL = url
    settings.ALPHA_VANTAGE_API_KEY = settings.FINNHUB_API_KEY = "canary-key-123456"


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with connect_proxy() as running:
        settings.PROVIDER_PROXY = running.url
        yield running


def error_of(provider: str) -> str:
    found = ask(provider, "AAPL")
    assert isinstance(found, ProviderError), found
    assert found.kind == ErrorKind.UPSTREAM_ERROR
    assert PASSWORD not in repr(found)
    assert "CANARY" not in found.message
    return found.message


@needs_openssl
@pytest.mark.parametrize("provider", PROVIDERS)
def test_own_authority_is_trusted_by_the_setting_alone(
    provider: str, provider_url: str, company: Certificates, settings: Settings
) -> None:
    message = error_of(provider)
    assert "its certificate is not trusted" in message
    assert "PROVIDER_CA_FILE" in message
    settings.PROVIDER_CA_FILE = str(company.authority)
    assert isinstance(ask(provider, "AAPL"), Quote)


@needs_openssl
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", ["expired", "of_another_host"])
def test_certificate_that_is_not_the_providers_is_not_trusted(
    provider: str, name: str, company: Certificates, settings: Settings
) -> None:
    settings.PROVIDER_CA_FILE = str(company.authority)
    with tls_provider(getattr(company, name), BODIES) as url:
        point_at(settings, url)
        assert "its certificate is not trusted" in error_of(provider)
    with tls_provider(company.server, BODIES) as url:
        point_at(settings, url)
        assert isinstance(ask(provider, "AAPL"), Quote)


def end_of_http2(connection: ssl.SSLSocket) -> None:
    """Answer a request by HTTP/2's settings, and that the server goes away."""
    connection.recv(65536)
    connection.sendall(bytes(3) + b"\x04" + bytes(5))
    connection.recv(65536)
    connection.sendall(b"\0\0\x08\x07" + bytes(5) + bytes(8))


@needs_openssl
@pytest.mark.parametrize("provider", PROVIDERS)
def test_server_that_goes_away_is_an_error_and_asked_once(
    provider: str, company: Certificates, settings: Settings
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company.server)
    context.set_alpn_protocols(["h2"])
    spoken: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    # A connection on which nothing is sent stays open.
                    connection.settimeout(1)
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as encrypted:
                        spoken.append(encrypted.selected_alpn_protocol())
                        end_of_http2(encrypted)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        settings.PROVIDER_CA_FILE = str(company.authority)
        url = f"https://localhost:{listener.getsockname()[1]}"
        point_at(settings, url)
        yahoo_session._client(url).do_without_crumb()
        message = error_of(provider)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert message.startswith("the provider broke off its answer (")
    assert spoken[0] == "h2"
    # A second connection may be made, and nothing is sent on it.
    with tls_provider(company.server, BODIES) as url:
        point_at(settings, url)
        assert isinstance(ask(provider, "AAPL"), Quote)


@needs_openssl
@pytest.mark.parametrize("provider", PROVIDERS)
def test_all_requests_go_by_the_proxy(
    provider: str, provider_url: str, company: Certificates, proxy: Proxy, settings: Settings
) -> None:
    settings.PROVIDER_CA_FILE = str(company.authority)
    assert isinstance(ask(provider, "AAPL"), Quote)
    assert set(proxy.targets) == {provider_url.removeprefix("https://")}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_proxy_that_refuses_is_named(provider: str, proxy: Proxy, settings: Settings) -> None:
    point_at(settings, "https://provider.example")
    settings.PROVIDER_PROXY = proxy.url.replace("CANARY", "WRONG")
    message = error_of(provider)
    assert message == ("the provider cannot be reached: the proxy of PROVIDER_PROXY refuses it (HTTP 407)")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy of PROVIDER_PROXY refuses it (HTTP 502)"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "(HTTP 302)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "proxy failed"),
        (b"", "proxy failed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", "failed"),
        (b"HTTP/1.1 200 OK\r\n\r\nno TLS", "TLS failed"),
    ],
    ids=["502", "302", "ssh", "nothing", "headers", "no TLS"],
)
def test_proxy_that_answers_nonsense_is_named(
    provider: str, reply: bytes, message: str, settings: Settings
) -> None:
    point_at(settings, "https://provider.example")
    with raw_server(lambda connection, _: connection.sendall(reply)) as url:
        settings.PROVIDER_PROXY = url
        found = error_of(provider)
    assert found.startswith("the provider cannot be reached: ")
    assert message in found


@pytest.mark.parametrize("provider", PROVIDERS)
def test_proxy_that_is_away_is_named(provider: str, settings: Settings) -> None:
    point_at(settings, "https://provider.example")
    settings.PROVIDER_PROXY = f"http://user:CANARY-password@127.0.0.1:{closed_port()}"
    assert error_of(provider) == "the proxy of PROVIDER_PROXY cannot be reached: connection failed"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("variable", [None, "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_failed_connection_names_what_to_set(
    provider: str, variable: str | None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "http://user:CANARY-password@127.0.0.1:1")
    point_at(settings, f"https://127.0.0.1:{closed_port()}")
    hint = f"{variable.upper()} is not read: set" if variable else "where a proxy is needed, set"
    assert error_of(provider) == f"the provider cannot be reached: connection failed; {hint} PROVIDER_PROXY"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_proxy_password_is_taken_out_of_an_answer(settings: Settings, tmp_path: Path) -> None:
    settings.PROVIDER_PROXY = "http://user:CANARY%2Fpass%20word@proxy.example:3128"
    assert set(network.proxy_secrets()) == {PASSWORD, "CANARY%2Fpass%20word"}


@needs_openssl
def test_file_of_certificates_is_made_again_where_it_was_removed(
    company: Certificates, settings: Settings
) -> None:
    settings.PROVIDER_CA_FILE = str(company.authority)
    path = Path(certificates())
    assert company.authority.read_text() in path.read_text()
    path.unlink()
    assert Path(certificates()).exists()


@pytest.mark.parametrize("phase", Phase)
def test_time_out_of_any_phase_is_known_by_its_message(phase: Phase) -> None:
    assert is_time_out(timed_out(10, phase).message)
    assert not is_time_out("the provider broke off its answer (body)")
