"""Whether a caller may have got the answer SUCCESS of a run that billing was never told to settle. Pure.

Celery stores the result before it tells anybody of the success. A result backend that takes it and whose reply is lost
raises, and so the success is nobody's but the caller's.
"""

from __future__ import annotations

import sys
from typing import Final

#: What stores a success, in every result backend of Celery's.
_STORES: Final = "mark_as_done"


def answer_is_in_doubt() -> bool:
    """Whether an error is on its way out of the storing of a success, here and now: it may have been stored."""
    traceback = sys.exc_info()[2]
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == _STORES:
            return True
        traceback = traceback.tb_next
    return False
