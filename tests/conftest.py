import os
from pathlib import Path

# Scripts that tests start find the library as they do after path.sh.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
