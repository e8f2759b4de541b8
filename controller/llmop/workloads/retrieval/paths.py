"""What requests below /v1/vector_stores say by their address."""

from starlette.requests import Request

from llmop.workloads.refusals import invalid, no_such
from llmop.workloads.retrieval.values import Store
from llmop.workloads.service import Service, owner_of


async def find(service: Service, request: Request) -> Store:
    """The store that the path names, if it belongs to the client's key. Raises Refused."""
    name = request.path_params["id"]
    store = await service.stores.find(name, owner_of(request))
    if store is None:
        raise no_such("vector store", name)
    return store


def is_oldest_first(request: Request) -> bool:
    """Raises Refused."""
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order", "must be asc or desc")
    if request.query_params.get("before"):
        raise invalid("before", "is not served: turn the order round and use after")
    return order == "asc"
