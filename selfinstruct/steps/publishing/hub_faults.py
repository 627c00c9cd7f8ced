"""What goes wrong at a Hub, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selfinstruct.core.errors import PrivacyError, UserError


@contextmanager
def one_line(endpoint: str, repo_id: str) -> Iterator[None]:
    """Turn what the client raises for `repo_id` at `endpoint` into a `UserError`."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError:
        raise UserError(
            f"{repo_id}: {endpoint} does not show it to this token; give the token write access "
            "to that namespace"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(_refused(endpoint, repo_id, error)) from None
    except OfflineModeIsEnabled:
        raise UserError(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to publish"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is no repository id: {_first_line(error)}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UserError(
            f"{endpoint} cannot be reached ({type(error).__name__}: {_first_line(error)}); "
            "see recipe.publish.endpoint, then give the same command again"
        ) from None
    except RuntimeError as error:  # an upload thread's wrapping of what really happened
        cause = error.__cause__
        if isinstance(cause, PrivacyError):
            raise cause from None
        if isinstance(cause, HfHubHTTPError):
            raise UserError(_refused(endpoint, repo_id, cause)) from None
        raise UserError(
            f"{repo_id}: upload to {endpoint} failed ({_first_line(cause or error)}); "
            "give the same command again: what has arrived is not sent twice"
        ) from None
    except ValueError as error:  # the card's metadata, or a reply that is no Hub's
        raise UserError(
            f"{repo_id}: {endpoint} refused it: {' '.join(str(error).split())}"
        ) from None


def _refused(endpoint: str, repo_id: str, error: Any) -> str:
    status = error.response.status_code
    hints = {
        401: "the token is not valid there",
        403: "the token may not write there",
        409: "somebody else changed the repository meanwhile; give the same command again",
        412: "somebody else changed the repository meanwhile; give the same command again",
        413: "a file is too large for it",
        429: "it asks to come back later",
    }
    said = _first_line(error.server_message or error)
    return f"{repo_id}: {endpoint} answered {status} ({hints.get(status, said)})"


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
