"""Why the Prefect API does not serve, in words that say what to do."""

from __future__ import annotations

import os
import ssl

import httpx

NOT_SERVED = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
"""What a request raises if it is not served: by the network, the server, its words, or a setting that is wrong."""

AWAY = (429, 502, 503, 504)
"""What a proxy says while the server behind it starts again, or a server that has too much to do."""

LOGIN, AUTHORITY = "PREFECT_API_AUTH_STRING", "PREFECT_API_SSL_CERT_FILE"


def problem(api_url: str, error: Exception, mend: str) -> str:
    """One sentence about an error of the client (httpx, or what it found in its settings).

    mend: what a person can do if nobody answers, or something else does: "check api_url in site.toml".
    """
    if isinstance(error, httpx.HTTPStatusError):
        return f"the Prefect API at {api_url} {_answered(error.response, mend)}"
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return f"{api_url} is no address of a Prefect API, such as https://host/api: {mend}"
    if isinstance(error, httpx.TooManyRedirects | ValueError):
        return f"{api_url} answers, and not as a Prefect API: {mend}, and whether something before it asks for a login"
    if (untrusted := _untrusted(error)) is not None:
        return (f"the Prefect API at {api_url} has a certificate that this machine does not trust ({untrusted}): set "
                f"{AUTHORITY} to a file with the certificate of the authority that signed it")
    if isinstance(error, OSError):       # of a setting: httpx has errors of its own for the network
        return (f"the Prefect API at {api_url} cannot be asked: {os.environ.get(AUTHORITY, 'a file of certificates')}: "
                f"{error.strerror or type(error).__name__}; mend {AUTHORITY}")
    return f"the Prefect API at {api_url} does not answer: {mend}, the network, and that the server runs"


def is_away(error: Exception) -> bool:
    """Whether nobody is there to answer: the same request may be answered later."""
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, httpx.HTTPStatusError) and error.response.status_code in AWAY)


def is_login_refused(error: Exception) -> bool:
    """Whether the API knows this login no more: to ask again helps nothing, and a person has to know.

    That it does not let this login do one thing (403) is said of a run, too, that is not in the site's pool any more.
    """
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401


def _answered(response: httpx.Response, mend: str) -> str:
    status = response.status_code
    if status == 401:
        return (f"does not accept the login in {LOGIN}: ask its operator for yours" if os.environ.get(LOGIN) else
                f"asks for a login: set {LOGIN} to the one that its operator gave you")
    if status == 403:
        return "does not let this login do that (403): ask its operator what it may do"
    if status in (404, 405) or 300 <= status < 400:
        return f"is something else ({status}): {mend}; a Prefect API's address ends in /api"
    if status == 407:
        return "is behind a proxy that asks for a login (407): look at HTTPS_PROXY and NO_PROXY"
    if status >= 500:
        return f"is in trouble ({status}): try again, or ask its operator"
    return f"refuses the request ({status}): is it Prefect 3.9?"


def _untrusted(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        if isinstance(error, ssl.SSLError):
            return "no TLS, or another version of it"
        error = error.__cause__ or error.__context__
    return None
