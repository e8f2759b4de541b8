"""What clients are told where the places fail that things are kept in; what happened stands in the log."""

import logging
import sqlite3

from llmop.domain.errors import Unavailable
from llmop.workloads import refusals
from llmop.workloads.refusals import Refused
from llmop.workloads.retrieval.postgres import TooSlow

LOG = logging.getLogger(__name__)

KINDS = (sqlite3.Error, Unavailable)


def refusal(error: Exception, what: str) -> Refused:
    """Of one of these kinds. `what` was being done."""
    LOG.error("%s: %s", what, error)
    if isinstance(error, Unavailable):
        return refusals.vectors_away(error.setting if isinstance(error, TooSlow) else "")
    return Refused(507, "store_failed", f"the store does not take it: {error}")
