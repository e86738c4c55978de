"""`torchrun`, also where torch's own does not start: torch 1.13 on Python 3.11.

Since 3.11 an enumeration of flags leaves out the members 0 and 3, so torch takes its own default,
"redirect no output", for nothing at all and stops. Same options as `torchrun`.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

if Std.from_str("0") is None:
    Std.from_str = lambda number: Std(int(number))

if __name__ == "__main__":
    try:
        run.main()
    except ChildFailedError:
        sys.exit(1)  # the processes have said why
