"""One file a domain; `base.py` names every field, `face.py` and the like say only what differs."""
