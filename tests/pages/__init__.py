"""Pages of docs/ that are done as they say: what a page asks its readers to do, and the terminals in which tests do it."""
