"""Why a certificate is not valid: one code each."""

from __future__ import annotations

from enum import StrEnum

from toolkit.errors import EvidenceError


class Refusal(StrEnum):
    """Stable names; each is a reason why a file proves nothing."""

    TOO_LARGE = "CERTIFICATE_TOO_LARGE"
    NOT_JSON = "CERTIFICATE_NOT_JSON"
    MALFORMED = "CERTIFICATE_MALFORMED"
    WRONG_PAYLOAD_TYPE = "CERTIFICATE_WRONG_PAYLOAD_TYPE"
    UNTRUSTED = "CERTIFICATE_UNTRUSTED"
    ALTERED = "CERTIFICATE_ALTERED"
    UNKNOWN_PREDICATE = "CERTIFICATE_UNKNOWN_PREDICATE"
    NOT_YET_VALID = "CERTIFICATE_NOT_YET_VALID"
    EXPIRED = "CERTIFICATE_EXPIRED"
    REVOKED = "CERTIFICATE_REVOKED"
    OTHER_RACK = "CERTIFICATE_OTHER_RACK"
    STAMP_WRONG = "CERTIFICATE_STAMP_WRONG"


_NEXT = {
    Refusal.TOO_LARGE: "this is not a certificate that rackproof wrote",
    Refusal.NOT_JSON: "this is not a certificate that rackproof wrote; fetch it again from where it was issued",
    Refusal.MALFORMED: "fetch it again from where it was issued",
    Refusal.WRONG_PAYLOAD_TYPE: "this is another kind of signed file; verify it with the tool that made it",
    Refusal.UNTRUSTED: "if you know who signed it, give their public key with --key",
    Refusal.ALTERED: "do not use it; fetch it again from where it was issued",
    Refusal.UNKNOWN_PREDICATE: "a newer rackproof may know it: upgrade this one",
    Refusal.NOT_YET_VALID: "check the clocks of this machine and of the one that issued it",
    Refusal.REVOKED: "test the rack again: rackproof bringup RACK",
    Refusal.EXPIRED: "test the rack again: rackproof bringup RACK",
    Refusal.STAMP_WRONG: "give the timestamp that came with this very certificate, and the root of who made it",
    Refusal.OTHER_RACK: "verify it against the rack that it names; ask whoever gave it to you for this one's",
}


class CertificateRefusedError(EvidenceError):
    """The file is no valid certificate. `refusal` says why; exit code 1."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(f"{refusal}: {detail}", _NEXT[refusal])
        self.refusal = refusal
