"""Daft, set to work within one process, and silent."""

from __future__ import annotations

import os
from typing import Any

from selfinstruct.core.errors import MissingDependency, UserError

# Read by Daft and Ray when they are imported; nothing here phones home.
SILENT = {
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "SCARF_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def load_daft() -> Any:
    """The `daft` module, set to work in this process.

    Raises `MissingDependency`, or `UserError` where the process has used Daft over Ray.
    """
    os.environ.update(SILENT)
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        import daft
    except ImportError:
        raise MissingDependency("daft", "scale", "filtering with --engine daft") from None
    if daft.get_or_infer_runner_type() != "native":
        try:
            daft.set_runner_native()
        except daft.exceptions.DaftCoreException as error:  # it can be chosen once a process
            raise UserError("this process has used Daft over Ray; start a new one") from error
    return daft
