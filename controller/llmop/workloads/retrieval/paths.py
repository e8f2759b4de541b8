"""What requests below /v1/vector_stores say by their address."""

from typing import NamedTuple

from starlette.requests import Request

from llmop.workloads.refusals import invalid, no_such
from llmop.workloads.retrieval.values import Store
from llmop.workloads.service import Page, Service, owner_of, page_of

_PARAMETERS = ("limit", "after", "before", "order")


async def find(service: Service, request: Request) -> Store:
    """The store that the path names, if it belongs to the client's key. Raises Refused."""
    name = request.path_params["id"]
    store = await service.stores.find(name, owner_of(request))
    if store is None:
        raise no_such("vector store", name)
    return store


class Listing(NamedTuple):
    """What a list is asked for: so many after `page.after` and before `before`, in this order. `backwards` = the page before an object is
    wanted, which is what comes after it when the order is turned round.
    """

    page: Page
    before: str
    oldest_first: bool
    backwards: bool


def listing(request: Request, *more: str) -> Listing:
    """`more` are parameters of the address besides those of all lists. Raises Refused."""
    given, known = request.query_params, (*_PARAMETERS, *more)
    for name in sorted(given.keys() - set(known)):
        raise invalid(name[:100], f"is not known; there are {', '.join(known)}")
    order = given.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order", "must be asc or desc")
    page, before = page_of(request, most=100, usual=20), given.get("before", "")
    if before and not page.after:
        return Listing(page._replace(after=before), "", order == "desc", True)
    return Listing(page, before, order == "asc", False)
