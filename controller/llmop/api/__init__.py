"""Everything on the wire, generated from proto/. Nothing is written by hand below this package."""
