"""Programs that the core lives in; each room here is a thin adapter to one of them."""
