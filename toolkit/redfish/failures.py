"""What sushy, requests and a BMC's own error answers raise, turned into our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.redfish.credentials import Credentials
from toolkit.redfish.model import BmcRefusedError
from toolkit.redfish.text import printable, root_cause
from toolkit.redfish.transport import Trust

_REFUSALS = frozenset({401, 403})


class BmcAnswerError(UndecidedError):
    """The BMC answered with an HTTP error: it did not do it. `status` is HTTP's; 404: it does not have that."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


def refused(at: str, login: Credentials, status: int) -> BmcRefusedError:
    """Our login was not accepted."""
    hint = "correct the site's bmc.yml"
    if login.next_password:
        hint = "a change of its password was cut off: rackproof bmc rotate-password ends it"
    return BmcRefusedError(f"{at}: it refused user {login.username!r} (HTTP {status})", hint)


def answered(at: str, login: Credentials, status: int, document: object) -> UndecidedError:
    """An HTTP error of the BMC's, with its own words."""
    if status in _REFUSALS:
        return refused(at, login, status)
    hint = "wait, or end sessions at the BMC" if status == 503 else "look at the BMC's log"
    return BmcAnswerError(f"{at}: HTTP {status}: {said(document)}", hint, status)


def said(document: object) -> str:
    """The message of an error answer (DSP0266, "Error responses"), bounded; empty where it is none."""
    found = document.get("error") if isinstance(document, Mapping) else None
    if not isinstance(found, Mapping):
        return ""
    details = found.get("@Message.ExtendedInfo")
    first = details[0] if isinstance(details, list) and details else None
    told = first.get("Message") if isinstance(first, Mapping) else None
    return printable(told or found.get("message"))


@contextmanager
def translated(at: str, trust: Trust) -> Iterator[None]:
    """Turns what requests raises, and what documents of the wrong shape end in, into our words."""
    from requests.exceptions import RequestException

    try:
        yield
    except RequestException as error:
        raise no_answer(at, trust, error) from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        text = f"{at}: its answer is not Redfish ({type(error).__name__})"
        raise UndecidedError(text, "check the address: is a BMC there?") from error


def no_answer(at: str, trust: Trust, error: Exception) -> UndecidedError:
    """The connection failed: told apart are a certificate that is not trusted, silence, and what the system says."""
    text = str(error)
    if "Fingerprints did not match" in text:
        return BmcRefusedError(
            f"{at}: its certificate is not the one that the rack file pins",
            "if the BMC was replaced, read its new fingerprint at its own console and correct certificate_sha256",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BmcRefusedError(
            f"{at}: its certificate does not verify against {trust}",
            "put the CA that signed this BMC's certificate there; never switch verification off",
        )
    cause = "did not answer in time" if "timed out" in text else f"does not answer ({root_cause(error)})"
    return UnreachableError(f"{at}: it {cause}", "check the BMC's power, cable and address; then run again")
