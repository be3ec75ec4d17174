"""What made a result is told without telling where."""

from __future__ import annotations

import json
import platform
from datetime import datetime
from importlib.metadata import version

from cldistill_plugins.evaluation.provenance import provenance


def test_a_result_says_what_made_it_and_not_where() -> None:
    found = provenance("cldistill eval x --output y", 7, ("cldistill", "no-such-distribution"))
    assert json.loads(json.dumps(found)) == found
    assert (found["command"], found["seed"]) == ("cldistill eval x --output y", 7)
    assert found["versions"] == {"cldistill": version("cldistill")}
    assert datetime.fromisoformat(found["created"]).tzinfo is not None
    assert set(found["machine"]) == {"cpu", "cores", "python", "platform"} and found["machine"]["cores"] >= 1
    assert platform.node() not in json.dumps(found)
