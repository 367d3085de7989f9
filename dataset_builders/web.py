"""Requests that survive a bad connection: what may succeed on another attempt is told from what never will."""

import contextlib
import email.utils
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import datasets
import httpx2

from .errors import DownloadError

logger = datasets.utils.logging.get_logger(__name__)

RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 300.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """When to give up.

    Attributes:
        tries: attempts in a row that bring nothing new.
        wait: seconds before the second attempt; doubled before each further one.
        timeout: seconds without a byte after which a connection counts as dropped.
    """

    tries: int = 6
    wait: float = 1.0
    timeout: float = 60.0


class Broken(Exception):
    """An attempt failed in a way that another may not; `wait` is what the host asks for, in seconds."""

    def __init__(self, what: str, wait: float = 0.0):
        super().__init__(what)
        self.wait = wait


def open_client(patience: Patience) -> httpx2.Client:
    """A client that follows redirects, as most hosts of data need."""
    return httpx2.Client(follow_redirects=True, timeout=patience.timeout, headers={"User-Agent": "tinymyo-hf"})


def retry(url: str, patience: Patience, attempt: Callable[[], Result], progress: Callable[[], int]) -> Result:
    """Repeat `attempt` while it raises `Broken`; an attempt after which `progress()` is larger than ever is free.

    Raises:
        DownloadError: `patience.tries` attempts in a row brought nothing.
    """
    best, failures = progress(), 0
    while True:
        try:
            return attempt()
        except Broken as broken:
            failures = 1 if progress() > best else failures + 1
            best = max(best, progress())
            if failures >= patience.tries:
                kept = f"; {best} bytes are kept, and the same command goes on from there" if best else ""
                raise DownloadError(f"{url}: {broken}, {failures} times in a row{kept}") from broken
            pause = min(max(broken.wait, patience.wait * 2 ** (failures - 1)), LONGEST_WAIT)
            logger.warning(f"{url}: {broken}; trying again in {pause:.0f} s")
            time.sleep(pause)


@contextlib.contextmanager
def request(client: httpx2.Client, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    """The answer to a GET request (200, 206 or 416), its body still to be read.

    A connection that breaks while the body is read is `Broken`, too.
    """
    try:
        with client.stream("GET", url, headers=headers) as response:
            status = f"the host answers {response.status_code} {response.reason_phrase}".rstrip()
            if response.status_code in RETRIED_STATUS:
                raise Broken(status, _asked_wait(response))
            if response.status_code not in (200, 206, 416):
                raise DownloadError(f"{url}: {status}")
            yield response
    except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
        raise DownloadError(f"{url}: {error}") from error
    except httpx2.RequestError as error:
        raise Broken(f"the connection failed ({error or type(error).__name__})") from error


def _asked_wait(response: httpx2.Response) -> float:
    """Seconds that the host asks to wait (`Retry-After`: a number or a date), 0 if it does not."""
    text = response.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
