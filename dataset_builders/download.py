"""Files of a corpus from their official host: resumed, checked, retried."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    Attributes:
        url: where it lies, http or https.
        file_name: what to call it here, relative to the folder; may have folders ("S1/S1_E1_A1.mat").
        md5, sha256: hex digests, as far as the host states them.
        size: bytes, where known.
    """

    url: str
    file_name: str
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
