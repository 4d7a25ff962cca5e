"""A web server: a page that shows predictions, a JSON API, and the protocol of a Label Studio ML backend.

Requests stay in memory: uploads are never spooled to disk, no path or URL in a request is followed, and sizes, rates
and waiting times are bounded.
"""

from importlib.util import find_spec

from boxless.errors import BoxlessError

if not all(map(find_spec, ("fastapi", "uvicorn", "python_multipart"))):
    raise BoxlessError("the server is not installed: in the checkout pip install -e '.[serve]'")

from boxless.server.app import build_server, create_app, serve
from boxless.server.guard import Limits

__all__ = ["Limits", "build_server", "create_app", "serve"]
