"""Loading the function, where no broker does it."""

from __future__ import annotations

import os
from typing import Any, Union

from redis import exceptions


def load_function(client: Any, path: Union[str, "os.PathLike[str]"]) -> None:
    """Loads ``runcast.lua`` of Runcast's sources into Redis, if no version of
    it is there. Brokers do so when they start, and replace an older one."""
    with open(path, encoding="utf-8") as file:
        source = file.read()
    try:
        client.execute_command("FUNCTION LOAD", source)
    except exceptions.ResponseError as error:
        if "already exists" not in str(error):
            raise
