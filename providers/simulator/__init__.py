"""A local server that answers as the providers do, and misbehaves on demand. It needs no key."""
