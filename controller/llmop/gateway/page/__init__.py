"""The chat page at `GET /`: what `static/` holds, and how it is served.

What belongs here: files that a browser loads as they are (no build step, nothing from elsewhere), and the headers that keep the page to
this gateway. What does not: any knowledge of models, keys and requests; the page gets all that from the API, like every client.
"""
