"""A package, so that fixtures of its scope end with it: Playwright's loop must not be there when tests with loops of their own come."""
