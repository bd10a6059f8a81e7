"""One format a module, each a thin adapter over a library: `(data, name) -> Content`."""
