"""Daft on this machine, and work in stages that each end in Parquet files.

Stages keep memory to what one of them needs: what is found goes to the disk, not to the next stage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selfinstruct.core.errors import MissingDependency, UserError

# Read by Daft when it is imported; nothing here phones home.
SILENT = {
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "SCARF_NO_ANALYTICS": "1",
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


class Stages:
    """Dataframes that are kept as files.

    Args:
        daft: from `load_daft`.
        work: an empty folder.
    """

    def __init__(self, daft: Any, work: Path) -> None:
        self._daft = daft
        self._work = work

    def run(self, name: str, frame: Any) -> Any:
        """The dataframe, computed, written to a folder of that name and read from there."""
        import pyarrow.parquet as pq

        place = self._work / name
        place.mkdir()
        frame.write_parquet(str(place), compression="lz4")
        if not any(place.glob("*.parquet")):  # no rows: no file
            schema = frame.schema().to_pyarrow_schema()
            pq.write_table(schema.empty_table(), place / "empty.parquet")
        return self._daft.read_parquet(f"{place}/*.parquet")
