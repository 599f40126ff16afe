"""What `rackproof verify` answers mean, one by one, and what to do."""

from __future__ import annotations

CERTIFICATE_CODES = {
    "CERTIFICATE_TOO_LARGE": "The file is larger than any certificate. It was not read to its end. Ask for the right "
    "one.",
    "CERTIFICATE_NOT_JSON": "The file is no JSON, or JSON with a key written twice: cut off, damaged on its way, or "
    "another file. Fetch it again from where it was issued.",
    "CERTIFICATE_MALFORMED": "It is JSON and no certificate, or it is signed and contradicts itself: its subjects are "
    "not the facts that it lists, its gates rest on evidence that it does not name. Nothing of it counts.",
    "CERTIFICATE_WRONG_PAYLOAD_TYPE": "It is a signed file of another kind: a list of revocations, another tool's "
    "attestation. Verify it with the tool that made it.",
    "CERTIFICATE_UNTRUSTED": "None of the keys you trust signed it, or one did after its time. If you know who issued "
    "it, get their public key by another way than the file's and give it with --key.",
    "CERTIFICATE_ALTERED": "It names a key that you trust, and the signature is not of these bytes: something was "
    "changed after it was signed. Do not use it; ask where it came from.",
    "CERTIFICATE_UNKNOWN_PREDICATE": "It is an in-toto attestation of another kind, or of a version that this "
    "rackproof does not read. A newer one may.",
    "CERTIFICATE_NOT_YET_VALID": "It is dated in the future. This machine's clock, or that of who issued it, is "
    "wrong: timedatectl; chronyc tracking.",
    "CERTIFICATE_EXPIRED": "Its lifetime is over: what was measured then says nothing of today. Test the rack again.",
    "CERTIFICATE_REVOKED": "Whoever issued it took it back, for every node that it names; the reason stands beside it.",
    "CERTIFICATE_STAMP_WRONG": "The timestamp is of another file, of an authority that you do not trust, or older than "
    "the certificate says it is. Without it the certificate may be good; with it, it is not.",
    "CERTIFICATE_OTHER_RACK": "It is a certificate, and of another rack than the one it was held against.",
    "CERTIFICATE_DRIFTED": "rackproof verify FILE --against RACK read facts that are not what was certified: each is "
    "named with its node. Whatever was done to those nodes, their evidence is of other machines. Revoke them, see "
    "what to test again (rackproof recert plan RACK --after CHANGE), and certify anew.",
    "CERTIFICATE_UNPROVEN": "Evidence that the certificate names is not in the ledger, or is damaged: its signature "
    "is good, and nobody can look at what it rests on. Restore the artifacts from a copy, or measure again.",
    "CERTIFICATE_LAPSED": "By the ledger a node that it names is neither certified nor admitted any more: it was set "
    "aside, drained or failed since. rackproof why NODE says it.",
}
