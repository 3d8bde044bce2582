"""Ask one provider once: lease, permit, request, rows."""
