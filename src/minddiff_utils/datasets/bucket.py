"""NSD's public bucket: its agreement, its client, and what its errors mean."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from urllib3.exceptions import HTTPError

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.surroundings import only, own_variables

__all__ = [
    "BUCKET",
    "N_HEADS",
    "REGION",
    "confirm_agreement",
    "make_client",
    "may_pass",
    "status_of",
    "words_of",
]

BUCKET, REGION = "natural-scenes-dataset", "us-east-2"
_QUESTION = (
    "NSD may be used by those who have signed its data access agreement: research and\n"
    "education only, nothing passed on, nobody identified, Allen et al. 2022 cited.\n"
    "  Dataset    https://naturalscenesdataset.org\n"
    "  Terms      https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions\n"
    "  Agreement  https://forms.gle/eT4jHxaWwYUDEf2i9\n"
    "Have you signed NSD's data access agreement? [yes/no] "
)
N_HEADS = 8  # questions about sizes at once
#: Errors of a connection, after which the same request may succeed.
_PASSING = (
    NoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    HTTPError,
    ConnectionError,
)


def confirm_agreement(ask: Callable[[str], str], *, agreed: bool) -> None:
    """Ask once, in words, whether NSD's agreement is signed; nothing is remembered.

    `ask` shows a question and returns the answer, as `input` does; `agreed` says that
    the command line has answered already.

    Raises
    ------
    ConfigError
        The answer is not yes, or nobody is there to be asked.
    """
    if agreed:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            "Nobody is at a terminal to say that NSD's data access agreement is signed:"
            " read and sign it (https://naturalscenesdataset.org), then say so with"
            " --agreement-signed."
        )
    answer = ""
    with suppress(EOFError):
        answer = ask(_QUESTION)
    if answer.strip().lower() not in ("yes", "y"):
        raise ConfigError(
            "Nothing was fetched, since NSD's data access agreement is not signed:"
            " sign it (https://naturalscenesdataset.org), then run again."
        )


def make_client(endpoint: str | None = None, *, n_workers: int = 4) -> Any:
    """Return an anonymous S3 client; `endpoint` is the address of a mirror.

    AWS settings of this account name another store, region or profile, and are not
    read: NSD's bucket is where it is. Proxies are heeded.

    Raises
    ------
    ConfigError
        `endpoint` is no address.
    """
    config = Config(
        signature_version=UNSIGNED,
        region_name=REGION,
        connect_timeout=20,
        read_timeout=60,
        retries={"max_attempts": 4, "mode": "standard"},
        max_pool_connections=max(n_workers, N_HEADS),
        # we verify whole files ourselves; a range has no checksum
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        with own_variables() as variables:
            proxies = {k: v for k, v in os.environ.items() if _is_of_network(k)}
            with only(variables | proxies):
                session = boto3.session.Session()
                return session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"No client for {endpoint or 'S3'} can be made ({words_of(error)}): give an"
            " address such as https://host:port."
        ) from error


def _is_of_network(variable: str) -> bool:
    """Return whether a variable says how to get out, or whose certificates hold."""
    name = variable.lower()
    return name.endswith("_proxy") or name in ("aws_ca_bundle", "requests_ca_bundle")


def words_of(error: Exception) -> str:
    """Return an error of a library in a few words."""
    if isinstance(error, ClientError):
        facts = error.response.get("Error", {})
        return f"{facts.get('Code', '?')}: {facts.get('Message', '')}".strip(": ")
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    return " ".join(str(text).split()) or type(error).__name__


def status_of(error: Exception) -> int:
    """Return the HTTP status of the bucket's answer, 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def may_pass(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    status = status_of(error)
    return isinstance(error, _PASSING) or status >= 500 or status in (408, 429)
