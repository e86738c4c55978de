from importlib.util import find_spec

import pytest

from plateau.graphs.engines import NEEDS, GraphOptions, use_engine


@pytest.fixture(params=NEEDS)
def engine(request):
    """Each engine that is installed, one after the other."""
    if find_spec(NEEDS[request.param]) is None:
        pytest.skip(f"needs {NEEDS[request.param]}")
    use_engine(GraphOptions(engine=request.param))
    yield request.param
    use_engine(GraphOptions())
